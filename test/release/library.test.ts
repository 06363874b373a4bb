// The library as it is installed: its types are read by strict TypeScript, and the programs of its document and its
// examples run on both runtimes and in a bundle. `npm run test:wide` does the same with all versions.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { after, before, describe, test } from 'node:test';
import { createKeyfile } from '../../src/kms/keyfile/key.ts';
import { toolPath } from '../../tools/process.ts';
import { readImages, writeImage } from '../fixtures/images.ts';
import { type Packed, runProgram, unpackLibrary } from './packed.ts';

const NODE = [process.execPath];
const BUN = [toolPath('bun')];

describe('the packed library', () => {
  let packed: Packed;
  let digest: string;
  let thumbprint: string;
  let file: string;
  const cleanups: (() => Promise<unknown>)[] = [];
  before(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'library-key-'));
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    file = join(directory, 'app.key');
    thumbprint = createKeyfile(file);
    packed = await unpackLibrary(cleanups, `keyfile://${file}`);
    // Larger than what one thread does anyway.
    digest = (await writeImage(join(packed.directory, 'app'), { layers: [{ size: 5 * 1024 * 1024 }] })).digest;
  });
  after(async () => {
    for (const cleanup of cleanups) await cleanup();
  });

  const ownKey = (command: readonly string[], name: string) =>
    runProgram(packed, command, ['oci:app:latest', `oci:${name}:latest`, `oci:${name}-opened:latest`]);

  async function assertOpened(name: string): Promise<void> {
    const [opened] = await readImages(join(packed.directory, name));
    assert.equal(opened?.digest, digest, name);
  }

  test('its types and all programs are strict TypeScript', async () => {
    await runProgram(packed, [toolPath('tsc')], ['-p', '.']);
  });

  test('the programs of the document encrypt and decrypt', async () => {
    const documents = packed.programs.filter((name) => name.startsWith('document-'));
    assert.equal(documents.length, 2);
    for (const name of documents) {
      assert.match(await runProgram(packed, [...NODE, name]), /^sha256:[0-9a-f]{64}\n$/);
      await assertOpened('opened');
    }
  });

  test('a key of its own scheme works on Node and Bun', async () => {
    const [node, bun] = await Promise.all([
      ownKey([...NODE, 'own-key.ts'], 'node'),
      ownKey([...BUN, 'own-key.ts'], 'bun'),
    ]);
    assert.deepEqual([node, bun], ['x-acme opens what it encrypts\n', 'x-acme opens what it encrypts\n']);
    await assertOpened('node-opened');
    await assertOpened('bun-opened');
  });

  test('an image goes to a place of its own', async () => {
    const output = await runProgram(packed, [...NODE, 'own-place.ts'], ['oci:app:latest', file]);
    assert.equal(output, `encrypted ${thumbprint}\n`);
  });

  test('large layers go through a bundle, which has no threads of ours', async () => {
    const words = ['build', 'own-key.ts', '--target=node', '--outfile=bundle.js'];
    await runProgram(packed, BUN, words);
    await ownKey([...NODE, 'bundle.js'], 'bundle');
    await assertOpened('bundle-opened');
  });
});
