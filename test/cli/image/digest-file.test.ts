// The file of --digestfile: a digest takes the place of a digest, and of nothing else.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { linkSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { writeDigest } from '../../../src/cli/image/digest-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-digest-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const at = (name: string) => join(directory, name);
const DIGEST = `sha256:${'a'.repeat(64)}`;

test('a new file, an empty one and one with another digest hold the digest afterwards', async () => {
  await writeDigest(at('new'), DIGEST);
  writeFileSync(at('empty'), '');
  writeFileSync(at('other'), `sha256:${'b'.repeat(64)}\n`);
  for (const name of ['empty', 'other']) await writeDigest(at(name), DIGEST);
  for (const name of ['new', 'empty', 'other']) assert.equal(readFileSync(at(name), 'latin1'), DIGEST);
  await writeDigest('/dev/null', DIGEST);
});

test('a file with anything else is left as it is, under its own name and by a link', async () => {
  const contents = [
    randomBytes(32),
    Buffer.from('-----BEGIN PRIVATE KEY-----\n'),
    Buffer.from(`${DIGEST}\n${'#'.repeat(300)}`),
    Buffer.from('{}'),
  ];
  for (const [index, content] of contents.entries()) {
    const file = at(`precious-${index}`);
    writeFileSync(file, content);
    symlinkSync(file, `${file}.symbolic`);
    linkSync(file, `${file}.hard`);
    for (const name of [file, `${file}.symbolic`, `${file}.hard`])
      await assert.rejects(writeDigest(name, DIGEST), { code: 'not-written' });
    assert.deepEqual(readFileSync(file), content);
  }
});
