// The tests say the same on every machine.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

test('names in a directory are sorted before a list is compared with them: no system promises an order', () => {
  const unsorted = globSync('test/**/*.ts', { cwd: PROJECT }).flatMap((file) => {
    const text = readFileSync(join(PROJECT, file), 'utf8');
    const compared = text.matchAll(/deepEqual\(\s*(?:await )?readdir(?:Sync)?\([^;]*?, \[[^\];]*,[^;]*?;/g);
    return [...compared].flatMap(([words]) => (/\.(?:sort|toSorted)\(/.test(words) ? [] : [`${file}: ${words}`]));
  });
  assert.deepEqual(unsorted, []);
});
