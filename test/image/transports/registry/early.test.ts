// A registry that answers before it has read what it is sent.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { parseImageReference } from '../../../../src/image/model/reference.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { openRegistry } from '../../../../src/image/transports/registry/store.ts';
import type { ImageSource } from '../../../../src/image/transports/store.ts';
import { blobPath, writeImage } from '../../../fixtures/images.ts';
import { rejects, scratch } from '../../harness.ts';
import { v2Recipient } from '../../packet-recipients.ts';
import { startFakeRegistry } from './fake-registry.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const MIB = 1024 * 1024;

test('a registry that takes a layer unread, and reads it when the next parts are in memory, sees nothing of the plain ones', async (t) => {
  const { fake, plain, blob, store } = await setUp(t);
  const received: Buffer[] = [];
  fake.fault = async (request, _, path) => {
    if (request.method !== 'PATCH') return false;
    request.on('error', () => undefined);
    request.socket.write(`HTTP/1.1 202 Accepted\r\nlocation: ${path}\r\ncontent-length: 0\r\n\r\n`);
    await sleep(600);
    request.on('data', (bytes) => received.push(bytes));
    return true;
  };
  await rejects('unavailable', encryptImage(slowed(plain), store, { recipients: [v2Recipient([A])] }));
  const all = Buffer.concat(received);
  for (let at = 0; at < blob.length - 32; at += MIB / 4) assert.ok(!all.includes(blob.subarray(at, at + 32)));
  assert.ok(!fake.requests.some(({ path }) => path.includes('/manifests/')));
});

test('a registry that refuses a layer in its middle is understood', async (t) => {
  const { fake, plain, store } = await setUp(t);
  fake.fault = (request, response) => {
    if (request.method !== 'PATCH') return false;
    response.writeHead(403, { 'content-length': '0' }).end();
    return true;
  };
  await rejects('refused', encryptImage(plain, store, { recipients: [v2Recipient([A])] }));
});

/** Memory is full of plain bytes for a while before they are encrypted there. */
function slowed(source: ImageSource): ImageSource {
  return {
    name: source.name,
    transfers: source.transfers,
    readRoot: () => source.readRoot(),
    readManifest: (descriptor) => source.readManifest(descriptor),
    close: () => source.close(),
    openBlob: async (blob) => {
      const reader = await source.openBlob(blob);
      const read = async (into: Uint8Array) => {
        const length = await reader.read(into.subarray(0, MIB / 16));
        await sleep(2);
        return length;
      };
      return { read, close: () => reader.close() };
    },
  };
}

async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const fake = await startFakeRegistry(t, directory);
  const made = await writeImage(join(directory, 'plain'), { layers: [{ size: 16 * MIB, compression: 'none' }] });
  const image = parseImageReference(`docker://${fake.host}/app:enc`);
  assert.ok(image.transport === 'docker');
  const store = openRegistry(image, { caFiles: [fake.authority] });
  t.after(() => store.close());
  const [layer] = made.images[0]?.layers ?? [];
  const blob = await readFile(blobPath(made.directory, layer?.digest ?? ''));
  assert.ok(blob.length > 16 * MIB);
  return { fake, blob, store, plain: openLayout(made.directory, 'latest', 'oci:plain') };
}
