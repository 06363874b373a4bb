// An image that is changed in place takes the place of the one that was read, and of no other.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { openImageStore } from '../../../src/image/transports/open.ts';
import { createStoredManifest, type ImageStore } from '../../../src/image/transports/store.ts';
import { rejects } from '../harness.ts';
import { v2Recipient } from '../packet-recipients.ts';
import { setUpRegistry } from './registry/harness.ts';

const KEYS = ['a', 'b', 'c'].map((name) => `gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/${name}`);

/** The same image under one name in places of each kind, and what opens it there. */
async function places(t: TestContext): Promise<readonly (() => ImageStore)[]> {
  const { directory, made, open } = await setUpRegistry(t, { layers: [{}] });
  const file = (name: string) => () => {
    const store = openImageStore(parseImageReference(name));
    t.after(() => store.close());
    return store;
  };
  const plain = file(`oci:${made.directory}:latest`);
  const opened = [
    file(`oci:${join(directory, 'layout')}:app`),
    file(`oci:${join(directory, 'lone')}`),
    file(`oci-archive:${join(directory, 'archive')}:app`),
    () => open('app:1'),
    () => open('app:digest', { digestTag: true }),
  ];
  for (const place of opened) {
    const store = place();
    await encryptImage(plain(), store, { recipients: [v2Recipient(KEYS)] });
    await store.close();
  }
  return opened;
}

test('an image that another run has changed since it was read stays as that run left it', async (t) => {
  for (const place of await places(t)) {
    const [slow, quick] = [place(), place()];
    const read = await slow.readRoot();
    const [ours, theirs] = [' ', '\n'].map((space) => {
      const bytes = Buffer.concat([read.bytes, Buffer.from(space)]);
      return createStoredManifest(bytes, read.mediaType);
    });
    assert.ok(ours !== undefined && theirs !== undefined);
    assert.equal((await quick.readRoot()).digest, read.digest);
    await quick.writeRoot(theirs);
    await quick.close();
    await rejects('not-written', slow.writeRoot(ours));
    await slow.close();
    assert.equal((await place().readRoot()).digest, theirs.digest, slow.name);
  }
});
