// Whole images through the executable with a local key: skopeo encrypts and decrypts them, in layouts and in a registry.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { blobPath, type Image, readImages, writeImage, writeIndex } from '../fixtures/images.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy, skopeo, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import {
  createWorkspace,
  DIST,
  digests,
  isEncrypted,
  keyprovider,
  packetsOf,
  readImage,
  succeed,
} from './workspace.ts';

test('every layer of an image is encrypted to a local key, and the same layers come back', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, env } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{}, { size: 3_000_000 }, { size: 0 }] });

  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys: [`provider:kmscrypt:${key.uri}`] }));
  const encrypted = await readImage(path('encrypted'));
  assert.ok(encrypted.layers.every((layer) => isEncrypted(layer)));
  for (const layer of encrypted.layers) {
    const [packet = '', ...others] = packetsOf(layer);
    assert.equal(others.length, 0);
    assert.ok(packet.includes(key.thumbprint) && !packet.includes(path('')));
  }

  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] }));
  const opened = await readImage(path('opened'));
  assert.deepEqual(digests(opened.layers), digests(source.images[0].layers));
  assert.equal(opened.config.digest, source.images[0].config.digest);
});

test('the last layer alone is encrypted where skopeo is told so', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, env } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{}, {}, {}] });
  const encryption = { env, encryptionKeys: [`provider:kmscrypt:${key.uri}`], encryptLayers: [-1] };

  await succeed(copy(source.reference, oci('encrypted'), encryption));
  const encrypted = await readImage(path('encrypted'));
  assert.deepEqual(
    encrypted.layers.map((layer) => isEncrypted(layer)),
    [false, false, true],
  );
  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] }));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
});

test('gzip, zstd and uncompressed layers come back with their content', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, env } = await prepare(t);
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    const plain = await writeImage(path(`${compression}-plain`), { layers: [{ compression }, { compression }] });
    const [source] = plain.images;
    const [encrypted, opened] = [`${compression}-encrypted`, `${compression}-opened`];
    await succeed(copy(plain.reference, oci(encrypted), { env, encryptionKeys: [`provider:kmscrypt:${key.uri}`] }));
    await succeed(copy(oci(encrypted), oci(opened), { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] }));
    const { layers } = await readImage(path(opened));
    if (compression !== 'none') assert.deepEqual(digests(layers), digests(source.layers));
    else assert.deepEqual(await uncompressedDigests(path(opened), layers), source.diffIds);
  }
});

test('every platform of an index is encrypted and opened where skopeo copies all of it', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, env } = await prepare(t);
  const arm = { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' }, layers: [{}, {}] };
  const source = await writeIndex(path('plain'), [{}, arm]);

  const encryption = { env, encryptionKeys: [`provider:kmscrypt:${key.uri}`], all: true };
  await succeed(copy(source.reference, oci('encrypted'), encryption));
  const encrypted = await readImages(path('encrypted'));
  assert.deepEqual(
    encrypted.map(({ platform, layers }) => [platform, layers.map((layer) => isEncrypted(layer))]),
    source.images.map(({ platform, layers }) => [platform, layers.map(() => true)]),
  );

  const decryption = { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`], all: true };
  await succeed(copy(oci('encrypted'), oci('opened'), decryption));
  const opened = await readImages(path('opened'));
  assert.deepEqual(
    opened.map(({ layers }) => digests(layers)),
    source.images.map(({ layers }) => digests(layers)),
  );
});

test('an image is encrypted into a registry over TLS and opened from it, six layers at a time', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path, oci, key, env, keygen } = await prepare(t);
  const registry = await startRegistry();
  t.after(registry.stop);
  const layers = Array.from({ length: 8 }, () => ({ size: 100_000 }));
  const source = await writeImage(path('plain'), { layers });
  const remote = registry.reference('team/app:encrypted');

  const encryption = { registry, env, encryptionKeys: [`provider:kmscrypt:${key.uri}`] };
  await succeed(copy(source.reference, remote, encryption));
  const raw = await succeed(skopeo(['inspect', '--raw', '--cert-dir', registry.certificateDirectory, remote]));
  const stored: Image = JSON.parse(raw.stdout);
  assert.ok(stored.layers.length === 8 && stored.layers.every((layer) => isEncrypted(layer)));

  const wrong = await keygen('wrong.key');
  const refused = await copy(remote, oci('refused'), {
    ...{ registry, env, decryptionKeys: [`provider:kmscrypt:${wrong.uri}`] },
  });
  assert.notEqual(refused.exitCode, 0);
  const decryption = { registry, env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] };
  await succeed(copy(remote, oci('opened'), decryption));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));

  // From one place in the registry to another, as users of the reference provider do it.
  const decrypted = registry.reference('team/app:decrypted');
  await succeed(copy(remote, decrypted, decryption));
  await succeed(copy(decrypted, oci('back'), { registry }));
  assert.deepEqual(digests((await readImage(path('back'))).layers), digests(source.images[0].layers));
});

test('the npm package does under Node what the executable does', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const cmd = { path: process.execPath, args: [join(DIST, 'lib/main.js'), 'keyprovider'] };
  const node = await writeOcicryptConfig(path('node.json'), { kmscrypt: { cmd } });
  const native = await writeOcicryptConfig(path('native.json'), { kmscrypt: keyprovider() });
  for (const [wraps, unwraps] of [
    [node, native],
    [native, node],
  ] as const) {
    const keys = [`provider:kmscrypt:${key.uri}`];
    await succeed(copy(source.reference, oci('encrypted'), { env: wraps, encryptionKeys: keys }));
    await succeed(copy(oci('encrypted'), oci('opened'), { env: unwraps, decryptionKeys: keys }));
    assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
  }
});

async function prepare(t: TestContext) {
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('app.key');
  const env = await writeOcicryptConfig(workspace.path('ocicrypt.json'), { kmscrypt: keyprovider() });
  return { ...workspace, key, env };
}

/** skopeo compresses a plain layer before it encrypts it, so only the content can be compared. */
function uncompressedDigests(directory: string, layers: Image['layers']): Promise<readonly string[]> {
  const digestOf = async ({ digest }: { readonly digest: string }) =>
    createHash('sha256')
      .update(gunzipSync(await readFile(blobPath(directory, digest))))
      .digest('hex');
  return Promise.all(layers.map(async (layer) => `sha256:${await digestOf(layer)}`));
}
