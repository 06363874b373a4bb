// No file sends its reader to a document that is not there: a name of a document is a path of this repository or a URL.
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

const files = globSync(
  [
    '*.{md,json}',
    '.ci/*',
    '{src,scripts,tools,test,bench,docs,examples,deploy}/**/*.{ts,mjs,md,json,go,py,sh,service,socket,yaml,yml,conf}',
  ],
  { cwd: PROJECT, exclude: ['package-lock.json'] },
).sort();

/** Whether a name leads to a file, from the top of the repository or from the file that says it. */
function isThere(name: string, file: string): boolean {
  // What it writes stands in docs.
  const folder = file === 'tools/documents.ts' ? 'docs' : dirname(file);
  return existsSync(join(PROJECT, name)) || existsSync(join(PROJECT, folder, name));
}

/** The documents that a text names, but for addresses and for patterns that name many. */
function documentsOf(text: string): readonly string[] {
  const words = text.split(/\s+/).filter((word) => word.includes('.md') && !/https?:\/\/|\*\.md/.test(word));
  return words.flatMap((word) => [...word.matchAll(/[\w./-]{1,200}\.md\b/g)].map(([name]) => name));
}

test('a name of a document is found in a comment, a link and a sentence', () => {
  const text = '/** (elsewhere.md 12c). */ [a](docs/other.md#b), `docs/*.md` https://host/blob/main/docs/page.md';
  assert.deepEqual(documentsOf(text), ['elsewhere.md', 'docs/other.md']);
});

test('every document that a file names is there', () => {
  assert.ok(files.length > 300 && files.includes('src/base/errors.ts'), `${files.length} files`);
  const missing = files
    .filter((file) => file !== 'test/architecture/references.test.ts')
    .flatMap((file) =>
      documentsOf(readFileSync(join(PROJECT, file), 'utf8'))
        .filter((name) => !isThere(name, file))
        .map((name) => `${file} → ${name}`),
    );
  assert.deepEqual(missing, []);
});

test('a section is one of a document that is named beside it', () => {
  const nameless = files
    .filter((file) => file.endsWith('.ts') && file !== 'test/architecture/references.test.ts')
    .flatMap((file) => {
      const lines = readFileSync(join(PROJECT, file), 'utf8').split('\n');
      const around = (index: number) => lines.slice(Math.max(0, index - 2), index + 1).join('\n');
      return lines.flatMap((line, index) =>
        /\bsection \d/i.test(line) && !/\b(?:RFC|NIST|BIP|PKCS|[\w-]+\.md)\b/.test(around(index))
          ? [`${file}:${index + 1}: ${line.trim()}`]
          : [],
      );
    });
  assert.deepEqual(nameless, []);
});

test('a section that is named of one of our documents is one of its headings', () => {
  const missing: string[] = [];
  let found = 0;
  for (const file of files) {
    const text = readFileSync(join(PROJECT, file), 'utf8');
    for (const [, name = '', section = ''] of text.matchAll(
      /(?<![\w/.-])([\w./-]{1,100}\.md) section (\d+(?:\.\d+)*)/g,
    )) {
      const path = [name, join(dirname(file), name), join('docs', name)].find((one) => existsSync(join(PROJECT, one)));
      if (path === undefined) continue;
      found++;
      const heading = new RegExp(`^#+ ${section.replaceAll('.', '\\.')}\\.? `, 'm');
      if (!heading.test(readFileSync(join(PROJECT, path), 'utf8')))
        missing.push(`${file} → ${name} section ${section}`);
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(found >= 8, `${found} sections`);
});
