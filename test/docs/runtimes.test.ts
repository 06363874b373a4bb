// docs/runtimes.md and the source say the same of runtimes and names; test/emulators/runtimes.emulator.ts has run them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDigestTag } from '../../src/image/model/digest-tag.ts';
import { RUNTIMES, runtimeName } from '../../src/image/runtimes.ts';
import { readDocument } from './transcript.ts';

test('what is said of a name is what was seen in every runtime', async () => {
  const document = await readDocument('docs/runtimes.md');
  const [head = [], ...rows] = [...document.matchAll(/^\| (?:image|not signed|signed).*\|$/gm)].map(([line]) =>
    line.slice(2, -2).split(' | '),
  );
  assert.deepEqual(
    head.slice(2).map((cell) => cell.replace(/ [\d.]+(?: \(.*\))?$/, '')),
    RUNTIMES,
  );
  const digest = `sha256:${'ab'.repeat(32)}`;
  const image = {
    transport: 'docker',
    host: 'registry.example',
    name: 'app',
    tag: undefined,
    digest: undefined,
  } as const;
  const names = [
    { ...image, tag: '1' },
    { ...image, digest },
    { ...image, tag: formatDigestTag(digest) },
  ].map(runtimeName);
  assert.equal(rows.length, 5 * names.length);
  for (const [index, [said = '', kind, ...cells]] of rows.entries()) {
    const name = names[index % names.length];
    assert.equal(kind, name?.kind);
    // Signatures that are read change what a name alone would allow.
    if (said.includes('read') || said.includes('enforced')) {
      assert.deepEqual(
        cells.map((cell) => cell === 'decrypts'),
        [false, false, false, true],
      );
    } else {
      assert.deepEqual(
        RUNTIMES.filter((_, column) => cells[column] === 'decrypts'),
        name?.runtimes,
      );
    }
  }
});
