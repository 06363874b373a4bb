// Texts for people are understood at once: no help, error, hint or document holds words that need two readings. Decisions
// are numbered, and the maps of folders name every folder.
import assert from 'node:assert/strict';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** What to write in place of each. */
const INSTEAD: readonly (readonly [RegExp, string])[] = [
  [/\bwhoever\b/i, 'name the subject: the user, the client, a build system'],
  [/\bnobody\b/i, 'name the subject: no recipient, no user, no server'],
  [/\bwhatsoever\b|\bwhosoever\b/i, 'any'],
  [/\bsomebody who\b/i, 'name the subject: an attacker, a recipient'],
  [/\bask(?:s|ed)? nobody\b/i, 'makes no request'],
  [/\b(?:is|are|was) had\b/i, 'comes from'],
  [/\bthe mend\b|\bmended\b/i, 'fix, fixed'],
  [/\band the reverse\b/i, 'say the second half too'],
  [/\b(?:that|what) is meant\b|\bbe meant so\b/i, 'say what it is'],
  [/\b(?:is|are) spoken to\b/i, 'connects to'],
  [/\bwhere (?:there is|there are|none|no|it is not|one cannot)\b/i, '"if" for a condition, "where" for a place'],
];

/** Lines in which such a word is right. */
const EXCEPTIONS: readonly string[] = ['names nobody-at-all'];

/** What a text says in words that need two readings, and what to write in place of each. */
function hardWords(file: string, text: string): readonly string[] {
  return text.split('\n').flatMap((line, index) =>
    INSTEAD.flatMap(([pattern, better]) => {
      const match = EXCEPTIONS.some((exception) => line.includes(exception)) ? null : pattern.exec(line);
      return match === null ? [] : [`${file}:${index + 1}: "${match[0]}": ${better}`];
    }),
  );
}

const read = (file: string) => readFileSync(join(PROJECT, file), 'utf8');

test('documents', () => {
  const files = globSync(
    ['*.md', 'docs/*.md', 'test/{,vectors/}README.md', 'deploy/**/*.{service,socket,yaml,txt}', 'examples/*.sh'],
    {
      cwd: PROJECT,
    },
  );
  assert.ok(files.length > 25);
  assert.deepEqual(
    files.sort().flatMap((file) => hardWords(file, read(file))),
    [],
  );
});

test('help, errors and hints', () => {
  const files = globSync('src/**/*.ts', { cwd: PROJECT }).sort();
  assert.ok(files.length > 150);
  // Comments with lines of their own are not for users.
  const texts = files.map((file) => [file, read(file).replace(/^\s*(?:\/\/|\/?\*).*$/gm, '')] as const);
  assert.deepEqual(
    texts.flatMap(([file, text]) => hardWords(file, text)),
    [],
  );
});

test('every decision has a number, a date and a status', () => {
  const document = read('docs/decisions.md');
  const titles = document.match(/^## .*$/gm) ?? [];
  const decided = [...document.matchAll(/^## (\d+)\. \S.*\n\n\*\d{4}-\d\d-\d\d · (?:in force|replaced by \d+)\*$/gm)];
  assert.deepEqual(
    decided.map(([, number]) => Number(number)),
    titles.map((_, index) => index + 1),
    'a new one goes to the end: "## N. TITLE", a blank line, "*YYYY-MM-DD · in force*"',
  );
});

test('CONTRIBUTING.md and test/README.md say what each folder of src and test holds', () => {
  const foldersOf = (path: string) =>
    readdirSync(join(PROJECT, path), { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? entry.name : [],
    );
  const namesIn = (file: string) =>
    (read(file).match(/^\| `.*$/gm) ?? []).flatMap((row) => row.split('|')[1]?.match(/(?<=`)[\w-]+(?=`)/g) ?? []);
  assert.deepEqual(namesIn('CONTRIBUTING.md').toSorted(), foldersOf('src').toSorted());
  const named = namesIn('test/README.md');
  assert.deepEqual(
    foldersOf('test').filter((folder) => !named.includes(folder)),
    [],
  );
  assert.deepEqual(
    named.filter((name) => ![...foldersOf('test'), ...foldersOf('src')].includes(name)),
    [],
  );
});
