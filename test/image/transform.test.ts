// What a change does to what is beside the changed layers: attestations, entries of unknown types, foreign layers.

import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { LayerKeyWrapper } from '../../src/client/layer-keys.ts';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { inspectImage } from '../../src/image/inspect.ts';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { addKeys, rewrapImage } from '../../src/image/rewrap.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { verifyImage } from '../../src/image/verify.ts';
import { blobPath, readImages, writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { digestOf, rejects, scratch } from './harness.ts';
import { jweKey, jweRecipient } from './jwe-recipient.ts';
import { setUpRegistry } from './transports/registry/harness.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const REFERENCE = 'vnd.docker.reference.digest';

test('an attestation names the digest that its image has now, after encrypt and after rewrap', async (t) => {
  const { path, put, index, made, recipient, key } = await setUp(t);
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', ...(await put('{}')) };
  const layers = [{ mediaType: 'application/vnd.in-toto+json', ...(await put('{"predicate":1}')) }];
  const attestation = await put(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers }));
  const platform = { os: 'unknown', architecture: 'unknown' };
  const kind = 'vnd.docker.reference.type';
  const annotations = { [REFERENCE]: made.digest, [kind]: 'attestation-manifest', other: 'kept' };
  await index([{ mediaType: MANIFEST, ...attestation, platform, annotations }]);
  const image = () => openLayout(path, undefined, `oci:${path}`);
  await encryptImage(image(), image(), { recipients: [recipient] });
  const check = async () => {
    const { manifests } = await readRoot(path);
    assert.notEqual(manifests[0].digest, made.digest);
    assert.deepEqual(manifests[1].annotations, { ...annotations, [REFERENCE]: manifests[0].digest });
    assert.equal(manifests[1].digest, attestation.digest);
  };
  await check();
  const [before] = (await readRoot(path)).manifests;
  const other = await writeRsaKey(join(path, '..'), 'other');
  await rewrapImage(image(), { keys: addKeys(key, [jweRecipient(other.publicKey)]) });
  assert.notEqual((await readRoot(path)).manifests[0].digest, before.digest);
  await check();
});

test('entries of unknown types go to a registry as manifests, and what nobody has stays as it is named', async (t) => {
  const { path, put, index, recipient } = await setUp(t);
  const mediaType = 'application/vnd.example.other.v1+json';
  const body = JSON.stringify({ schemaVersion: 2, mediaType, blobs: [] });
  const absent = { mediaType, digest: `sha256:${'a'.repeat(64)}`, size: 12 };
  const platform = { os: 'unknown', architecture: 'unknown' };
  await index([
    { mediaType, ...(await put(body)), platform },
    { ...absent, platform },
  ]);
  const { fake, open } = await setUpRegistry(t);
  const destination = open('a:1');
  await encryptImage(openLayout(path, undefined, 'oci:x'), destination, { recipients: [recipient] });
  const sent = fake.requests.filter(({ method }) => method === 'PUT').map(({ path: to }) => to);
  assert.ok(sent.includes(`/v2/a/manifests/${digestOf(Buffer.from(body))}`), sent.join());
  assert.ok(!fake.blobs.has(digestOf(Buffer.from(body))));
});

test('foreign layers stay plain and are named, and are encrypted if they are asked for', async (t) => {
  const { path, made, recipient } = await setUp(t);
  const manifest = JSON.parse(await readFile(blobPath(path, made.digest), 'utf8'));
  const foreign = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
  Object.assign(manifest.layers[0], { mediaType: foreign, urls: ['https://example.com/layer'] });
  const text = JSON.stringify(manifest);
  const digest = digestOf(Buffer.from(text));
  await writeFile(blobPath(path, digest), text);
  const entry = { mediaType: MANIFEST, digest, size: text.length };
  await writeFile(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  const to = join(path, '..', 'enc');
  const result = await encryptImage(openLayout(path, undefined, 'oci:x'), openLayout(to, 'a', 'oci:y'), {
    recipients: [recipient],
  });
  assert.deepEqual(result.foreign, [manifest.layers[0].digest]);
  const [image] = await readImages(to, 'a');
  assert.deepEqual(
    image?.layers.map(({ mediaType }) => mediaType.endsWith('+encrypted')),
    [false, true],
  );
  assert.deepEqual(image?.layers[0], manifest.layers[0]);
  const named = await encryptImage(openLayout(path, undefined, 'oci:x'), openLayout(to, 'b', 'oci:y'), {
    recipients: [recipient],
    layers: [0],
  });
  assert.deepEqual(named.foreign, []);
  assert.equal((await readImages(to, 'b'))[0]?.layers[0]?.mediaType, `${foreign}+encrypted`);
});

test('a layer may be missing only if an address says where it is', async (t) => {
  const { path, made, recipient } = await setUp(t);
  const manifest = JSON.parse(await readFile(blobPath(path, made.digest), 'utf8'));
  await rm(blobPath(path, manifest.layers[0].digest));
  for (const urls of [[], null, ['https://example.com/layer']]) {
    const text = JSON.stringify({ ...manifest, layers: [{ ...manifest.layers[0], urls }, manifest.layers[1]] });
    const digest = digestOf(Buffer.from(text));
    await writeFile(blobPath(path, digest), text);
    const entry = { mediaType: MANIFEST, digest, size: text.length };
    await writeFile(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
    const destination = openLayout(join(path, '..', 'enc'), 'a', 'oci:y');
    const encrypted = encryptImage(openLayout(path, undefined, 'oci:x'), destination, {
      recipients: [recipient],
      layers: [1],
    });
    if (urls?.length) await encrypted;
    else await rejects('not-found', encrypted);
    await destination.close();
  }
});

test('a manifest that nobody could read is refused before anything is written', async (t) => {
  const { path, recipient, key } = await setUp(t);
  const image = () => openLayout(path, undefined, `oci:${path}`);
  await encryptImage(image(), image(), { recipients: [recipient] });
  const before = await readFile(join(path, 'index.json'), 'utf8');
  const bulky = (number: number): LayerKeyWrapper => ({
    scheme: `provider.p${number}`,
    wrap: async () => [Buffer.alloc(32 * 1024, number)],
  });
  const many = Array.from({ length: 60 }, (_, number) => bulky(number));
  await rejects('bad-input', rewrapImage(image(), { keys: addKeys(key, many) }));
  const fresh = join(path, '..', 'fresh');
  const made = await writeImage(join(path, '..', 'source'), { layers: [{}, {}] });
  const destination = openLayout(fresh, 'a', 'oci:fresh');
  await rejects(
    'bad-input',
    encryptImage(openLayout(made.directory, undefined, 'oci:x'), destination, { recipients: many }),
  );
  await destination.close();
  await assert.rejects(readFile(join(fresh, 'index.json')));
  assert.equal(await readFile(join(path, 'index.json'), 'utf8'), before);
  assert.equal((await inspectImage(image())).platforms.length, 1);
});

test('a sparse index can be used: what is not here stays as it is named, and verify fails for it', async (t) => {
  const { path, index, recipient, key } = await setUp(t);
  const absent = { mediaType: MANIFEST, digest: `sha256:${'b'.repeat(64)}`, size: 500 };
  const attestation = { mediaType: MANIFEST, digest: `sha256:${'c'.repeat(64)}`, size: 500 };
  const entries = [
    { ...absent, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
    { ...attestation, platform: { os: 'unknown', architecture: 'unknown' } },
  ];
  await index(entries);
  const image = () => openLayout(path, undefined, `oci:${path}`);
  const encrypt = (platforms?: readonly string[]) =>
    encryptImage(image(), image(), { recipients: [recipient], ...(platforms === undefined ? {} : { platforms }) });
  for (const platforms of [undefined, ['linux/arm64'], ['linux/arm64/v8']]) {
    await assert.rejects(encrypt(platforms), { code: 'not-found', message: /b{64}/ });
  }
  await encrypt(['linux/amd64']);
  assert.deepEqual((await readRoot(path)).manifests.slice(1), entries);
  assert.deepEqual((await inspectImage(image())).absent, [
    { digest: absent.digest, platform: 'linux/arm64/v8' },
    { digest: attestation.digest, platform: 'unknown/unknown' },
  ]);
  assert.equal((await verifyImage(image())).reasons.length, 2);
  assert.equal((await verifyImage(image(), { allowAbsent: true })).ok, true);
  const rewrap = (platforms?: readonly string[]) =>
    rewrapImage(image(), { keys: addKeys(key, [recipient]), ...(platforms === undefined ? {} : { platforms }) });
  for (const platforms of [undefined, ['linux/arm64']])
    await assert.rejects(rewrap(platforms), { code: 'not-found', message: /b{64}/ });
  const { layers } = await rewrap(['linux/amd64']);
  assert.deepEqual(
    layers.map(({ before, after }) => [before.length, after.length]),
    layers.map(() => [1, 2]),
  );
  assert.deepEqual((await readRoot(path)).manifests.slice(1), entries);
  await decryptImage(image(), image(), { keys: key, platforms: ['linux/amd64/v1'] });
});

test('what an index names by another digest than SHA-256 stays as it is, fails verify, and is not left plain unsaid', async (t) => {
  const directory = await scratch(t);
  const { path, index, recipient, key } = await setUp(t);
  const entry = (letter: string, type: string, architecture: string) => ({
    mediaType: type,
    digest: `sha512:${letter.repeat(128)}`,
    size: 500,
    platform: { os: 'linux', architecture },
  });
  const others = [entry('a', MANIFEST, 'arm64'), entry('b', 'application/x', 'amd64')];
  await index(others);
  const image = () => openLayout(path, undefined, `oci:${path}`);
  const encrypt = (platforms?: readonly string[]) =>
    encryptImage(image(), image(), { recipients: [recipient], ...(platforms === undefined ? {} : { platforms }) });
  for (const platforms of [undefined, ['linux/arm64']])
    await assert.rejects(encrypt(platforms), { code: 'not-found', message: /a{128}.*SHA-256/ });
  const encrypted = await encrypt(['linux/amd64']);
  // What a manifest that is not read names may be any of them.
  assert.equal(encrypted.leftPlain.length, 2);
  assert.deepEqual((await readRoot(path)).manifests.slice(1), others);
  const report = await inspectImage(image());
  assert.deepEqual(
    report.unknown,
    others.map(({ digest, mediaType }) => ({ digest, mediaType })),
  );
  assert.deepEqual(report.absent, []);
  const { ok, reasons } = await verifyImage(image(), { allowAbsent: true });
  assert.equal(ok, false);
  assert.equal(reasons.length, 2);
  await assert.rejects(rewrapImage(image(), { keys: addKeys(key, [recipient]) }), { code: 'not-found' });
  await rewrapImage(image(), { keys: addKeys(key, [recipient]), platforms: ['linux/amd64'] });
  assert.deepEqual((await readRoot(path)).manifests.slice(1), others);
  const copy = openLayout(join(directory, 'copy'), undefined, 'oci:copy');
  await decryptImage(image(), copy, { keys: key, platforms: ['linux/amd64'] });
  assert.deepEqual((await readRoot(join(directory, 'copy'))).manifests.slice(1), others);
  for (const digest of ['sha512:../x', 'sha512:', `sha256:${'A'.repeat(64)}`, 'x']) {
    const { path: bad, index: put } = await setUp(t);
    await put([{ ...entry('a', MANIFEST, 'arm64'), digest }]);
    await rejects('bad-input', inspectImage(openLayout(bad, undefined, 'oci:bad')));
  }
});

test('a variant that is the usual one need not be named', async (t) => {
  const directory = await scratch(t);
  const { recipient } = await setUp(t);
  const images = [
    { os: 'linux', architecture: 'arm64' },
    { os: 'linux', architecture: 'arm', variant: 'v7' },
    { os: 'linux', architecture: 'arm', variant: 'v6' },
  ];
  const [first, ...others] = images.map((platform) => ({ platform }));
  assert.ok(first !== undefined);
  const made = await writeIndex(join(directory, 'index'), [first, ...others]);
  const selected = async (platform: string) => {
    const to = openLayout(join(directory, 'enc'), 'a', 'oci:enc');
    const from = openLayout(made.directory, undefined, 'oci:x');
    return (await encryptImage(from, to, { recipients: [recipient], platforms: [platform] })).images.length;
  };
  assert.equal(await selected('linux/arm64/v8'), 1);
  assert.equal(await selected('linux/arm/v7'), 1);
  assert.equal(await selected('linux/arm'), 2);
  await rejects('not-found', selected('linux/arm64/v9'));
});

test('a path that is not UTF-8 is refused for what it is', () => {
  for (const name of ['oci:a\ufffd', 'oci-archive:\ufffd.tar', 'dir:\ufffd', 'docker-archive:\ufffd']) {
    assert.throws(
      () => parseImageReference(name),
      (error: Error & { code?: string; hint?: string }) => error.code === 'usage' && /UTF-8/.test(error.hint ?? ''),
      name,
    );
  }
});

async function readRoot(path: string) {
  const index = JSON.parse(await readFile(join(path, 'index.json'), 'utf8'));
  return JSON.parse(await readFile(blobPath(path, index.manifests[0].digest), 'utf8'));
}

/** A layout of one image of two layers, and a way to put an index over it and more. */
async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const path = join(directory, 'image');
  const keys = await writeRsaKey(directory, 'ours');
  const made = await writeImage(path, { layers: [{}, { size: 10_000 }] });
  await writeFile(
    join(path, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        { mediaType: MANIFEST, digest: made.digest, size: (await readFile(blobPath(path, made.digest))).length },
      ],
    }),
  );
  const put = async (text: string) => {
    const digest = digestOf(Buffer.from(text));
    await writeFile(blobPath(path, digest), text);
    return { digest, size: Buffer.byteLength(text) };
  };
  const index = async (others: readonly object[]) => {
    const size = (await readFile(blobPath(path, made.digest))).length;
    const first = { mediaType: MANIFEST, digest: made.digest, size, platform: { os: 'linux', architecture: 'amd64' } };
    const root = await put(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [first, ...others] }));
    await writeFile(
      join(path, 'index.json'),
      JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: INDEX, ...root }] }),
    );
  };
  return { path, made, put, index, recipient: jweRecipient(keys.publicKey), key: jweKey(keys.privateKey) };
}
