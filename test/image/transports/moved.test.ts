// An image that is changed in place takes the place of the one that was read, and of no other.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { LayoutIndex } from '../../../src/image/transports/layout-index.ts';
import { openImageStore } from '../../../src/image/transports/open.ts';
import { createStoredManifest, type ImageStore } from '../../../src/image/transports/store.ts';
import { rejects } from '../harness.ts';
import { v2Recipient } from '../packet-recipients.ts';
import { end, setUpRegistry } from './registry/harness.ts';

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
    assert.match(
      (await rejects('not-written', slow.writeRoot(ours))).message,
      /was (?:moved to another image|changed by another program) meanwhile$/,
    );
    await slow.close();
    assert.equal((await place().readRoot()).digest, theirs.digest, slow.name);
  }
});

test('a tag that was removed since it was read is said to be so, also after the registry did not say', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, { layers: [{}] });
  const plain = openImageStore(parseImageReference(`oci:${made.directory}:latest`));
  t.after(() => plain.close());
  await encryptImage(plain, open('app:1'), { recipients: [v2Recipient(KEYS)] });
  const store = open('app:1');
  const { bytes, mediaType } = await store.readRoot();
  const ours = createStoredManifest(Buffer.concat([bytes, Buffer.from(' ')]), mediaType);
  for (const [status, code, message] of [
    [403, 'refused', /./],
    [404, 'not-written', /was removed meanwhile$/],
  ] as const) {
    fake.fault = (request, response) => request.method === 'GET' && end(response, status);
    assert.match((await rejects(code, store.writeRoot(ours))).message, message);
  }
});

test('an entry of a layout that was removed since it was read is said to be so', () => {
  const entry = (digit: string, tag: string) => ({
    ...{ mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: `sha256:${digit.repeat(64)}`, size: 2 },
    annotations: { 'org.opencontainers.image.ref.name': tag },
  });
  const index = (...manifests: readonly object[]) =>
    LayoutIndex.parse(Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })), 'index.json');
  const name = { name: 'oci:a:one', tag: 'one' };
  const found = index(entry('1', 'one')).select(name);
  const image = { mediaType: found.mediaType, digest: `sha256:${'3'.repeat(64)}`, size: 2 };
  for (const [tag, how] of [
    ['one', 'moved to another image'],
    ['two', 'removed'],
  ] as const) {
    const message = `oci:a:one was ${how} meanwhile`;
    assert.throws(() => index(entry('2', tag)).with(image, name, found), { code: 'not-written', message });
  }
});
