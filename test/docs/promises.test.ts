// docs/promises.md has a row for every promise, and the tests that it counts are there.
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT } from '../../tools/process.ts';

const read = (file: string) => readFileSync(join(PROJECT, file), 'utf8');
const document = read('docs/promises.md');
const rows = [...document.matchAll(/^\| (P[^|]*?) \| ([^|]+?) \|/gm)].map(([, names = '', what = '']) => ({
  names: names.split(', '),
  what,
}));

test('P30 no promise is without a row', () => {
  const proved = new Set(rows.flatMap(({ names }) => names.map((name) => Number(name.slice(1)))));
  const last = Math.max(...proved);
  assert.ok(last >= 33, `P${last} is the last`);
  const missing = Array.from({ length: last }, (_, index) => index + 1).filter((number) => !proved.has(number));
  assert.deepEqual(missing, []);
});

test('P30 the files that the proofs run are there, and tests name each promise', () => {
  const scripts = globSync('scripts/prove*.ts', { cwd: PROJECT }).map(read);
  const named = new Set(scripts.flatMap((text) => text.match(/\btest\/[\w./-]+\.ts\b/g) ?? []));
  assert.ok(named.size > 15, `${named.size} files`);
  assert.deepEqual(
    [...named].filter((file) => !existsSync(join(PROJECT, file))),
    [],
  );
  const numbers = new Set<string>();
  for (const file of globSync('test/**/*.ts', { cwd: PROJECT }))
    for (const [number] of read(file).matchAll(/\bP\d+\b/g)) numbers.add(number);
  const testless = rows
    .flatMap(({ names }) => names)
    .filter((name) => !['P1', 'P8'].includes(name) && !numbers.has(name));
  assert.deepEqual(testless, [], 'P1 and P8 are counted by scripts/prove.ts and scripts/soak.ts');
});

test('P35 the scores of the files sum up to their row, and each change is noticed, without a difference or open', () => {
  const scores = [...read('docs/mutants.md').matchAll(/^\| (src\/\S+) \| ([\d |]+) \|/gm)].map(
    ([, file = '', numbers = '']) => ({ file, numbers: numbers.split(' | ').map(Number) }),
  );
  assert.ok(scores.length >= 12, `${scores.length} files`);
  const sum = [0, 1, 2, 3, 4].map((column) => scores.reduce((total, { numbers }) => total + (numbers[column] ?? 0), 0));
  const [changes = 0, tried = 0, noticed = 0, equivalent = 0, open = 0] = sum;
  assert.equal(tried, noticed + equivalent + open);
  const score = ((100 * noticed) / (tried - equivalent)).toFixed(1);
  const [row = ''] = document.match(/^\| P35 .*$/m) ?? [];
  assert.ok(
    row.includes(
      `| ${tried} of ${changes} changes in ${scores.length} files, ${noticed} noticed, ${equivalent} without a difference: ${score} %;`,
    ),
    row,
  );
});
