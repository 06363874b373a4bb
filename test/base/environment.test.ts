// Variables: every one that the source reads is in the table, and is judged when it is read.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkedEnvironment, VARIABLES } from '../../src/base/environment.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import { CANARIES } from '../fixtures/canaries.ts';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'environment-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** The names by which a source reads an environment: member, destructuring, and the pairs of Vault and OpenBao. */
function namesRead(text: string): readonly string[] {
  const members = [
    ...text.matchAll(
      /\b(?:environment|process\.env|checkedEnvironment\(process\.env\))\??\.([A-Z][A-Z0-9_]+|[a-z]+_proxy)\b/g,
    ),
  ];
  const taken = [...text.matchAll(/\{([^{}]*)\}\s*=\s*(?:[\w.]+\.)?(?:environment|process\.env)\b/g)];
  const vault = [...text.matchAll(/\bvaultVariable\((?:\w+\.)?environment, '(\w+)'\)/g)];
  return [
    ...members.map(([, name = '']) => name),
    ...taken.flatMap(([, list = '']) => list.split(',').map((one) => one.replace(/[:=].*/s, '').trim())),
    ...vault.flatMap(([, name = '']) => [`VAULT_${name}`, `BAO_${name}`]),
  ].filter((name) => name !== '' && name !== 'environment');
}

const sources = globSync('**/*.ts', { cwd: SOURCE }).map((file) => ({
  file,
  text: readFileSync(join(SOURCE, file), 'utf8')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, ''),
}));

test('every variable that the source reads is in the table', () => {
  const unknown = sources.flatMap(({ file, text }) =>
    namesRead(text)
      .filter((name) => !VARIABLES.has(name))
      .map((name) => `${file}: ${name}`),
  );
  assert.deepEqual(unknown, []);
});

test('every variable of the table is read, so that the table is the list', () => {
  const all = sources.filter(({ file }) => file !== 'base/environment.ts').map(({ text }) => text);
  const unread = [...VARIABLES.keys()].filter((name) => {
    const short = name.replace(/^(?:BAO|VAULT)_/, '');
    return !all.some((text) => new RegExp(`\\b(?:${name}|${short})\\b`).test(text));
  });
  assert.deepEqual(unread, []);
});

test('no other way to read a variable is used than those that are looked for', () => {
  const places = sources.flatMap(({ file, text }) =>
    [...text.matchAll(/\b(?:environment|process\.env)\[([\w.()]+)\]/g)].map(([, what = '']) => `${file}: ${what}`),
  );
  assert.deepEqual(
    [...new Set(places)].toSorted(),
    [
      'base/environment.ts: name',
      'cli/doctor/clients.ts: VARIABLE',
      'cli/options/variables.ts: variable',
      'kms/awskms/endpoint.ts: variable',
      'kms/pkcs11/login.ts: pinVariable',
    ],
    'a name that is made is one that no test sees: add its names to the table, and the place here',
  );
});

const read = (name: string, value: string): string | undefined => checkedEnvironment({ [name]: value })[name];
const refusal = (name: string, value: string) => {
  try {
    read(name, value);
  } catch (error) {
    return asOcicryptError(error);
  }
  return assert.fail(`${name} is taken`);
};

for (const [name, kind] of VARIABLES) {
  test(`${name} has what slipped in around it taken off, or says so`, () => {
    if (kind === 'any') return;
    const usual = kind === 'file' ? '/run/secrets/name' : 'value';
    assert.equal(read(name, usual), usual);
    assert.equal(read(name, ''), '');
    for (const stray of [`${usual}\n`, `${usual}\r\n`, ` ${usual}`, `${usual} `, `\uFEFF${usual}`, `${usual}\u00A0`]) {
      if (kind === 'word' || kind === 'text') assert.equal(read(name, stray), usual);
      else if (kind === 'secret' && /\n$/.test(stray)) assert.equal(read(name, stray), usual);
      else assert.equal(refusal(name, stray).code, 'configuration');
    }
    for (const inside of ['va\0lue', 'va\u202Elue', 'va\nlue'])
      assert.equal(refusal(name, inside).code, 'configuration');
    if (kind === 'word') assert.equal(refusal(name, 'va lue').code, 'configuration');
    if (!['directories', 'directory', 'file'].includes(kind)) return;
    for (const { text, parts } of Object.values(CANARIES)) {
      const { code, message, hint = '' } = refusal(name, text);
      assert.equal(code, 'configuration');
      assert.match(message, new RegExp(`^${name} holds the content of a file, not its name$`));
      for (const part of parts) assert.ok(!`${message}${hint}`.includes(part));
    }
  });
}

test('a variable that names a file names a regular one', () => {
  const [fifo, file] = [join(directory, 'fifo'), join(directory, 'file')];
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  writeFileSync(file, '');
  for (const [name, kind] of VARIABLES) {
    if (kind !== 'file') continue;
    for (const other of [fifo, '/dev/zero', '/dev/tty', directory])
      assert.equal(refusal(name, other).code, 'configuration');
    for (const good of [file, join(directory, 'missing')]) assert.equal(read(name, good), good);
  }
});
