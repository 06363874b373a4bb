// kill -9 at random instants: afterwards there is the old image or the new one, whole, and a second run completes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openLayout } from '../../src/image/layout.ts';
import { openImageSource, openImageStore } from '../../src/image/open.ts';
import { parseImageReference } from '../../src/image/reference.ts';
import { copyBlob, type ImageSource } from '../../src/image/store.ts';
import { imagesOf, readImageTree } from '../../src/image/tree.ts';
import { writeIndex } from '../fixtures/images.ts';
import { rejects, scratch } from './harness.ts';
import { packetKeys, v2Recipient } from './packet-recipients.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const MIB = 1024 * 1024;
const child = fileURLToPath(new URL('crash-child.ts', import.meta.url));
/** A sample here; `CRASHES=200` for the proof. */
const kills = Number(process.env.CRASHES ?? 8);

for (const kind of ['oci', 'oci-archive'] as const) {
  for (const operation of ['encrypt', 'rewrap'] as const) {
    test(`${operation} of ${kind}: is killed at any moment and leaves the old image or the new one`, async (t) => {
      const directory = await scratch(t);
      const made = await writeIndex(join(directory, 'plain'), [
        { platform: { os: 'linux', architecture: 'amd64' }, layers: [{ size: 4 * MIB }, {}] },
        { platform: { os: 'linux', architecture: 'arm64' }, layers: [{ size: 2 * MIB }] },
      ]);
      const start = openImageStore(parseImageReference(`${kind}:${join(directory, 'start')}:latest`));
      const plain = openLayout(made.directory, 'latest', made.reference);
      await encryptImage(plain, start, { recipients: [v2Recipient([A])] });
      if (operation === 'encrypt') await decryptImage(start, start, { keys: packetKeys([A]) });
      const old = (await start.readRoot()).digest;
      await start.close();
      let before = 0;
      for (let round = 0; round < kills; round++) {
        const path = join(directory, `round-${round}`);
        await cp(join(directory, 'start'), path, { recursive: true });
        const reference = `${kind}:${path}:latest`;
        // Spread over the time that the work takes.
        await runAndKill([operation, reference], (round * 150) / kills);
        const after = openImageSource(parseImageReference(reference));
        const root = await checkWhole(after);
        await after.close();
        if (root === old) before++;
        if (operation === 'encrypt' && root !== old) continue;
        const store = openImageStore(parseImageReference(reference));
        if (operation === 'encrypt') await encryptImage(store, store, { recipients: [v2Recipient([A])] });
        const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
        assert.equal((await decryptImage(store, back, { keys: packetKeys([A]) })).digest, made.digest);
        await store.close();
        await rm(path, { recursive: true });
      }
      assert.ok(before > 0, 'no kill came early enough to prove anything');
    });
  }
}

async function runAndKill(args: readonly string[], milliseconds: number): Promise<void> {
  const running = spawn(process.execPath, [child, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(running, 'exit');
  await Promise.race([once(running.stdout, 'data'), ended]);
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  running.kill('SIGKILL');
  await ended;
}

/** Reads everything that the name stands for, and copies every blob into nowhere, which checks its digest. */
async function checkWhole(source: ImageSource): Promise<string> {
  const tree = await readImageTree(source);
  const nowhere = {
    ...source,
    hasBlob: async () => false,
    createBlob: async () => ({ write: async () => {}, commit: async () => {}, discard: async () => {} }),
    writeManifest: async () => {},
    writeRoot: async () => {},
  };
  for (const { manifest } of imagesOf(tree)) {
    for (const blob of [manifest.config, ...manifest.layers]) await copyBlob(source, nowhere, blob);
  }
  return tree.stored.digest;
}

test('a place that cannot be written to is one clear error', async (t) => {
  const directory = await scratch(t);
  const made = await writeIndex(join(directory, 'plain'), [{ layers: [{}] }]);
  const plain = openLayout(made.directory, 'latest', made.reference);
  const full = openLayout('/dev/full/x', 'latest', 'oci:/dev/full/x');
  await rejects('not-written', encryptImage(plain, full, { recipients: [v2Recipient([A])] }));
});
