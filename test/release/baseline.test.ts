// docs/security is true: each control of the OSPS Baseline is answered, its evidence is in the file that is named, and the
// policies hold for what the lockfile pins.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { test } from 'node:test';
import { PROJECT } from '../../tools/process.ts';
import { installedPackages } from '../../tools/release/contents.ts';

const FOLDER = 'docs/security';
const read = (file: string) => readFileSync(join(PROJECT, file), 'utf8');

/** How many requirements each family of the version 2026.02.19 has, without those that were withdrawn. */
const REQUIREMENTS = { AC: 6, BR: 12, DO: 8, GV: 6, LE: 5, QA: 13, SA: 4, VM: 10 };

test('every control of the baseline is answered once, by words that are in the file that is named', () => {
  const rows = [
    ...read('docs/security/baseline.md').matchAll(/^\| (OSPS-([A-Z]{2})-\d\d\.\d\d) \| [123 ]+ \| (.*) \|$/gm),
  ];
  assert.equal(new Set(rows.map(([, control]) => control)).size, rows.length);
  const families = Object.groupBy(rows, ([, , family = '']) => family);
  const counted = Object.fromEntries(Object.entries(families).map(([family, list]) => [family, list?.length]));
  assert.deepEqual(counted, REQUIREMENTS);
  for (const [, control, , answer = ''] of rows) {
    const named = [...answer.matchAll(/\[[^\]]+\]\(([^)]+)\): "((?:[^"\\]|\\.)+)"/g)];
    assert.ok(named.length > 0 || /setting:|one repository|the test reads/.test(answer), `${control}: ${answer}`);
    for (const [, file = '', words = ''] of named) {
      const text = read(normalize(join(FOLDER, file)));
      assert.ok(text.includes(words.replaceAll('\\"', '"')), `${control}: ${file} does not say ${words}`);
    }
  }
});

test('the repository holds no program, no archive and no file that cannot be read (OSPS-QA-05)', () => {
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: PROJECT }).toString().split('\0').filter(Boolean);
  const unreadable = files.filter(
    (file) => existsSync(join(PROJECT, file)) && readFileSync(join(PROJECT, file)).includes(0),
  );
  assert.deepEqual(unreadable, []);
});

test('what is installed has a licence that the policy allows', () => {
  const [, list = ''] = /licence other than (.*?), and for the runtime/.exec(read('docs/security/policies.md')) ?? [];
  const allowed = list.split(', ');
  assert.ok(allowed.includes('MIT'));
  for (const { name, license } of installedPackages()) {
    const known = allowed.some((one) => license === one || (one === 'BSD' && license.startsWith('BSD-')));
    assert.ok(known, `${name}: ${license}`);
  }
});

test('the tests that docs/security/audit-questions.md names are there', () => {
  const named = [...read('docs/security/audit-questions.md').matchAll(/`((?:test|scripts)\/[^`]+)`/g)].map(
    ([, path = '']) => path,
  );
  assert.ok(named.length > 10);
  for (const path of named) assert.ok(existsSync(join(PROJECT, path)), path);
});

test('the documents for machines are JSON, and about this product', () => {
  for (const file of globSync(`${FOLDER}/*.json`, { cwd: PROJECT })) {
    const document = JSON.parse(read(file));
    assert.match(JSON.stringify(document.metadata ?? document), /ocicrypt-kms/);
  }
});
