// Whole images in layouts: encrypted and decrypted by us, and by skopeo from either side.

import assert from 'node:assert/strict';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ErrorCode } from '../../../src/base/errors.ts';
import type { LayerKeyUnwrapper } from '../../../src/client/layer-keys.ts';
import { decryptImage } from '../../../src/image/decrypt.ts';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { inspectImage } from '../../../src/image/inspect.ts';
import type { ImageProgress } from '../../../src/image/transform.ts';
import { openLayout } from '../../../src/image/transports/layout.ts';
import { verifyImage } from '../../../src/image/verify.ts';
import { blobPath, type Image, readImages, writeImage, writeIndex } from '../../fixtures/images.ts';
import { writeRsaKey } from '../../fixtures/keys.ts';
import { copy, skopeo } from '../../real-clients/skopeo.ts';
import { realClients } from '../../real-clients/tools.ts';
import { digestOf, rejects, scratch } from '../harness.ts';
import { jweKey, jweRecipient } from '../jwe-recipient.ts';

const MIB = 1024 * 1024;

test('an image comes back with the digest it had, through threads and without', async (t) => {
  const { directory, recipient, key } = await setUp(t);
  const made = await writeImage(join(directory, 'plain'), {
    layers: [{ size: 100 }, { size: 5 * MIB }, { compression: 'none' }, { compression: 'zstd' }, { size: 0 }],
  });
  const encrypted = await encryptImage(layout(made.directory), layout(join(directory, 'enc')), {
    recipients: [recipient],
  });
  assert.equal(encrypted.previousDigest, made.digest);
  const [image] = await readImages(join(directory, 'enc'), 'latest');
  assert.equal(image?.digest, encrypted.digest);
  assert.deepEqual(
    image?.layers.map(({ mediaType }) => mediaType.replace(/.*tar/, 'tar')),
    ['tar+gzip+encrypted', 'tar+gzip+encrypted', 'tar+encrypted', 'tar+zstd+encrypted', 'tar+gzip+encrypted'],
  );
  await assertBlobs(join(directory, 'enc'), image);
  const plain = new Set(made.images[0].layers.map(({ digest }) => digest.slice(7)));
  for (const name of await readdir(join(directory, 'enc/blobs/sha256'))) assert.ok(!plain.has(name));
  const decrypted = await decryptImage(layout(join(directory, 'enc')), layout(join(directory, 'dec')), {
    keys: key,
    checkDiffIds: true,
  });
  assert.equal(decrypted.digest, made.digest);
  assert.deepEqual(await readImages(join(directory, 'dec')), made.images);
});

test('every platform of an index is encrypted, a shared layer once, and all else is kept', async (t) => {
  const { directory, recipient, key } = await setUp(t);
  const shared = { seed: 'shared', size: 3 * MIB };
  const made = await writeIndex(join(directory, 'plain'), [
    { platform: { os: 'linux', architecture: 'amd64' }, layers: [{ ...shared }, {}] },
    { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' }, layers: [{ ...shared }, {}] },
  ]);
  const progress: ImageProgress[] = [];
  await encryptImage(layout(made.directory), layout(join(directory, 'enc')), {
    recipients: [recipient],
    onProgress: (event) => progress.push(event),
  });
  const images = await readImages(join(directory, 'enc'), 'latest');
  assert.equal(
    recipient.calls(),
    new Set(made.images.flatMap(({ layers }) => layers.map(({ digest }) => digest))).size,
  );
  assert.ok(images.every(({ layers }) => layers.every(({ mediaType }) => mediaType.endsWith('+encrypted'))));
  assert.deepEqual(images[0]?.layers[0], images[1]?.layers[0]);
  assert.ok(progress.some(({ operation, bytes, size }) => operation === 'encrypt' && bytes === size && size > 2 * MIB));
  const back = await decryptImage(layout(join(directory, 'enc')), layout(join(directory, 'dec')), { keys: key });
  assert.equal(back.digest, made.digest);

  const one = await encryptImage(layout(made.directory), layout(join(directory, 'one')), {
    recipients: [recipient],
    platforms: ['linux/arm64'],
    layers: [-1],
  });
  const [amd, arm] = await readImages(join(directory, 'one'));
  assert.deepEqual(amd, made.images[0]);
  assert.deepEqual(arm?.layers[0], made.images[1]?.layers[0]);
  assert.match(arm?.layers[1]?.mediaType ?? '', /encrypted$/);
  assert.equal(one.images.length, 1);
  await rejects(
    'not-found',
    encryptImage(layout(made.directory), layout(join(directory, 'no')), {
      recipients: [recipient],
      platforms: ['linux/s390x'],
    }),
  );
  await rejects(
    'not-found',
    encryptImage(layout(made.directory), layout(join(directory, 'no')), { recipients: [recipient], layers: [2] }),
  );
});

test('attestations stay byte for byte, and one that holds a layer is no attestation', async (t) => {
  const { directory, recipient } = await setUp(t);
  const path = join(directory, 'image');
  const made = await writeImage(path, { layers: [{}] });
  const put = async (value: object) => {
    const bytes = Buffer.from(JSON.stringify(value));
    await writeFile(blobPath(path, digestOf(bytes)), bytes);
    return { digest: digestOf(bytes), size: bytes.length };
  };
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', ...(await put({})) };
  const statement = { mediaType: 'application/vnd.in-toto+json', ...(await put({ predicate: 1 })) };
  const annotations = { 'vnd.docker.reference.type': 'attestation-manifest' };
  const platform = { os: 'unknown', architecture: 'unknown' };
  const honest = await put({ schemaVersion: 2, mediaType: type, config, layers: [statement] });
  const size = (await readFile(blobPath(path, made.digest))).length;
  const index = async (attestation: object) => {
    const manifests = [
      { mediaType: type, digest: made.digest, size, platform: { os: 'linux', architecture: 'amd64' } },
      { mediaType: type, ...attestation, platform, annotations },
    ];
    const root = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
    const entry = { mediaType: root.mediaType, ...(await put(root)) };
    await writeFile(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  };
  await index(honest);
  const source = openLayout(path, undefined, 'oci:image');
  await encryptImage(source, layout(join(directory, 'enc')), { recipients: [recipient] });
  const report = await inspectImage(layout(join(directory, 'enc')));
  assert.deepEqual(report.attachments, [{ digest: honest.digest, artifactType: statement.mediaType }]);
  assert.equal((await verifyImage(layout(join(directory, 'enc')))).ok, true);

  await index({ digest: made.digest, size });
  await encryptImage(source, layout(join(directory, 'hidden')), { recipients: [recipient] });
  assert.equal((await inspectImage(layout(join(directory, 'hidden')))).platforms.length, 2);
  assert.equal((await verifyImage(source)).reasons.length, 2);
});

test('in place only the tag moves, and other tags stay', async (t) => {
  const { directory, recipient, key } = await setUp(t);
  const path = join(directory, 'image');
  const first = await writeImage(path, { seed: 'a' }, 'a');
  const second = await writeImage(path, { seed: 'b' }, 'b');
  const encrypted = await encryptImage(layout(path, 'a'), layout(path, 'a'), { recipients: [recipient] });
  assert.equal((await readImages(path, 'a'))[0]?.digest, encrypted.digest);
  assert.deepEqual(await readImages(path, 'b'), second.images);
  await rejects('bad-input', encryptImage(layout(path, 'a'), layout(path, 'a'), { recipients: [recipient] }));
  await rejects('not-found', decryptImage(layout(path, 'c'), layout(path, 'c'), { keys: key }));
  await rejects('bad-input', decryptImage(openLayout(path, undefined, 'oci:x'), layout(path, 'c'), { keys: key }));
  await rejects('bad-input', decryptImage(layout(path, 'b'), layout(path, 'b'), { keys: key }));
  assert.equal((await decryptImage(layout(path, 'a'), layout(path, 'a'), { keys: key })).digest, first.digest);
});

test('what cannot be opened in full leaves the destination as it was', async (t) => {
  const { directory, recipient, key, otherKey } = await setUp(t);
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 4 * MIB }] });
  await encryptImage(layout(made.directory), layout(join(directory, 'enc')), { recipients: [recipient] });
  const fails = async (code: ErrorCode, keys: LayerKeyUnwrapper) => {
    const destination = layout(join(directory, 'dec'));
    await rejects(code, decryptImage(layout(join(directory, 'enc')), destination, { keys }));
    await destination.close();
    // Not even the layers that were in order are left.
    assert.ok(!(await readdir(directory)).includes('dec'));
  };
  await fails('integrity', otherKey);
  const [image] = await readImages(join(directory, 'enc'));
  const large = blobPath(join(directory, 'enc'), image?.layers[1]?.digest ?? '');
  const bytes = await readFile(large);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) ^ 1;
  await writeFile(large, bytes);
  await fails('integrity', key);
  await rm(large);
  await fails('not-found', key);
});

test('a place that cannot be written to is one clear error', async (t) => {
  const { directory, recipient } = await setUp(t);
  const made = await writeImage(join(directory, 'plain'));
  const full = openLayout('/dev/full/x', 'latest', 'oci:/dev/full/x');
  await rejects('not-written', encryptImage(layout(made.directory), full, { recipients: [recipient] }));
});

test('skopeo opens what we encrypt, and we open what skopeo encrypts, to the same digests', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { directory, recipient, key, keys } = await setUp(t);
  const made = await writeIndex(join(directory, 'plain'), [
    { platform: { os: 'linux', architecture: 'amd64' }, layers: [{}, { size: 3 * MIB }] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{ compression: 'zstd' }] },
  ]);
  await encryptImage(layout(made.directory), layout(join(directory, 'ours')), { recipients: [recipient] });
  const opened = await copy(`oci:${join(directory, 'ours')}:latest`, `oci:${join(directory, 'opened')}:latest`, {
    decryptionKeys: [keys.privateKey],
    all: true,
  });
  assert.equal(opened.exitCode, 0, opened.stderr);
  const layersOf = (images: readonly Image[]) => images.map(({ layers }) => layers.map(({ digest }) => digest));
  assert.deepEqual(layersOf(await readImages(join(directory, 'opened'), 'latest')), layersOf(made.images));

  const theirs = await copy(made.reference, `oci:${join(directory, 'theirs')}:latest`, {
    encryptionKeys: [`jwe:${keys.publicKey}`],
    all: true,
  });
  assert.equal(theirs.exitCode, 0, theirs.stderr);
  await decryptImage(layout(join(directory, 'theirs')), layout(join(directory, 'back')), {
    keys: key,
    checkDiffIds: true,
  });
  assert.deepEqual(layersOf(await readImages(join(directory, 'back'), 'latest')), layersOf(made.images));
  const inspected = await skopeo(['inspect', '--raw', `oci:${join(directory, 'back')}:latest`]);
  assert.equal(inspected.exitCode, 0, inspected.stderr);
});

function layout(directory: string, tag: string | undefined = 'latest') {
  return openLayout(directory, tag, `oci:${directory}`);
}

async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'ours');
  const others = await writeRsaKey(directory, 'others');
  return {
    directory,
    keys,
    recipient: jweRecipient(keys.publicKey),
    key: jweKey(keys.privateKey),
    otherKey: jweKey(others.privateKey),
  };
}

async function assertBlobs(directory: string, image: Image | undefined): Promise<void> {
  for (const { digest, size } of image?.layers ?? []) {
    const bytes = await readFile(blobPath(directory, digest));
    assert.equal(bytes.length, size);
    assert.equal(digestOf(bytes), digest);
  }
}
