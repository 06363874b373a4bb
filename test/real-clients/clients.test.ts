// Proves the real-client harness without our provider: skopeo, ctd-decoder and the registry with plain RSA keys.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { blobPath, type Image, readImages, writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { decodeLayer } from './ctd-decoder.ts';
import { startRegistry } from './registry.ts';
import { copy, skopeo, writeOcicryptConfig } from './skopeo.ts';
import { realClients } from './tools.ts';

const annotation = 'org.opencontainers.image.enc.keys.jwe';

test('skopeo encrypts every layer to an RSA key, and with that key alone the same layers come back', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, right, wrong } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{}, { size: 300_000 }, { compression: 'zstd' }] });

  await succeed(copy(source.reference, path('oci:encrypted:1'), { encryptionKeys: [`jwe:${right.publicKey}`] }));
  const encrypted = await onlyImage(path('encrypted'));
  assert.deepEqual(encrypted.layers.map(isEncrypted), [true, true, true]);
  assert.deepEqual(
    encrypted.layers.map(({ mediaType }) => mediaType),
    source.images[0].layers.map(({ mediaType }) => `${mediaType}+encrypted`),
  );

  await succeed(copy(path('oci:encrypted:1'), path('oci:opened:1'), { decryptionKeys: [right.privateKey] }));
  const opened = await onlyImage(path('opened'));
  assert.deepEqual(opened.layers.map(digest), source.images[0].layers.map(digest));
  assert.equal(opened.config.digest, source.images[0].config.digest);

  const refused = await copy(path('oci:encrypted:1'), path('oci:refused:1'), { decryptionKeys: [wrong.privateKey] });
  assert.notEqual(refused.exitCode, 0);
});

test('skopeo encrypts the last layer alone when told so', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, right } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{}, {}, {}] });
  const keys = { encryptionKeys: [`jwe:${right.publicKey}`], encryptLayers: [-1] };

  await succeed(copy(source.reference, path('oci:encrypted:1'), keys));
  const encrypted = await onlyImage(path('encrypted'));
  assert.deepEqual(encrypted.layers.map(isEncrypted), [false, false, true]);
  assert.deepEqual(encrypted.layers.slice(0, 2).map(digest), source.images[0].layers.slice(0, 2).map(digest));
});

test('skopeo compresses a plain tar layer before it encrypts it, so only the content comes back', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, right } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{ compression: 'none' }] });

  await succeed(copy(source.reference, path('oci:encrypted:1'), { encryptionKeys: [`jwe:${right.publicKey}`] }));
  await succeed(copy(path('oci:encrypted:1'), path('oci:opened:1'), { decryptionKeys: [right.privateKey] }));
  const opened = await onlyImage(path('opened'));
  const layer = await readFile(blobPath(path('opened'), opened.layers[0]?.digest ?? ''));
  assert.deepEqual([sha256(gunzipSync(layer))], source.images[0].diffIds);
});

test('every platform of an index is encrypted and opened when skopeo copies all of it', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, right } = await prepare(t);
  const arm = { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' }, layers: [{}, {}] };
  const source = await writeIndex(path('plain'), [{}, arm]);

  const encryption = { encryptionKeys: [`jwe:${right.publicKey}`], all: true };
  await succeed(copy(source.reference, path('oci:encrypted:1'), encryption));
  const encrypted = await readImages(path('encrypted'));
  assert.deepEqual(encrypted.flatMap(({ layers }) => layers).map(isEncrypted), [true, true, true]);
  assert.deepEqual(
    encrypted.map(({ platform }) => platform),
    source.images.map(({ platform }) => platform),
  );

  const decryption = { decryptionKeys: [right.privateKey], all: true };
  await succeed(copy(path('oci:encrypted:1'), path('oci:opened:1'), decryption));
  const opened = await readImages(path('opened'));
  assert.deepEqual(
    opened.map(({ layers }) => layers.map(digest)),
    source.images.map(({ layers }) => layers.map(digest)),
  );
});

test('an encrypted image goes through a registry over TLS and opens again', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path, right, wrong } = await prepare(t);
  const registry = await startRegistry();
  t.after(registry.stop);
  const source = await writeImage(path('plain'), { layers: [{}, { size: 300_000 }] });
  const remote = registry.reference('team/app:1');

  await succeed(copy(source.reference, remote, { registry, encryptionKeys: [`jwe:${right.publicKey}`] }));
  const manifest = await succeed(skopeo(['inspect', '--raw', '--cert-dir', registry.certificateDirectory, remote]));
  const stored: Image = JSON.parse(manifest.stdout);
  assert.deepEqual(stored.layers.map(isEncrypted), [true, true]);

  const refused = await copy(remote, path('oci:refused:1'), { registry, decryptionKeys: [wrong.privateKey] });
  assert.notEqual(refused.exitCode, 0);
  await succeed(copy(remote, path('oci:opened:1'), { registry, decryptionKeys: [right.privateKey] }));
  const opened = await onlyImage(path('opened'));
  assert.deepEqual(opened.layers.map(digest), source.images[0].layers.map(digest));
});

test('the registry is trusted by its own authority only, and asks for its password', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path } = await prepare(t);
  const registry = await startRegistry({ credentials: { username: 'alice', password: 'correct' } });
  t.after(registry.stop);
  const source = await writeImage(path('plain'));
  const remote = registry.reference('app:1');
  const trust = { SSL_CERT_FILE: registry.authority };

  assert.notEqual((await copy(source.reference, remote)).exitCode, 0);
  assert.notEqual((await copy(source.reference, remote, { env: trust })).exitCode, 0);
  const mistaken = { ...registry, credentials: { username: 'alice', password: 'wrong' } };
  assert.notEqual((await copy(source.reference, remote, { registry: mistaken })).exitCode, 0);
  await succeed(copy(source.reference, remote, { registry }));
  await succeed(copy(remote, path('oci:back:1'), { env: trust, extra: ['--src-creds', 'alice:correct'] }));
});

test('the registry deletes a manifest when asked', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path } = await prepare(t);
  const registry = await startRegistry();
  t.after(registry.stop);
  const source = await writeImage(path('plain'));
  const flags = ['--cert-dir', registry.certificateDirectory];

  await succeed(copy(source.reference, registry.reference('app:1'), { registry }));
  await succeed(skopeo(['delete', ...flags, registry.reference('app:1')]));
  const gone = await skopeo(['inspect', '--raw', ...flags, registry.reference('app:1')]);
  assert.notEqual(gone.exitCode, 0);
});

test('ctd-decoder opens a layer with the right key and with no other', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { path, right, wrong } = await prepare(t);
  const source = await writeImage(path('plain'), { layers: [{ size: 300_000 }] });
  await succeed(copy(source.reference, path('oci:encrypted:1'), { encryptionKeys: [`jwe:${right.publicKey}`] }));
  const [descriptor] = (await onlyImage(path('encrypted'))).layers;
  assert.ok(descriptor);
  const layer = { blob: blobPath(path('encrypted'), descriptor.digest), descriptor };
  const keys = async (file: string) => ({ privkeys: [await readFile(file)], 'privkeys-passwords': [Buffer.alloc(0)] });

  const opened = await decodeLayer({ ...layer, parameters: await keys(right.privateKey) });
  assert.equal(opened.exitCode, 0, opened.stderr);
  assert.equal(sha256(opened.layer), source.images[0].layers[0]?.digest);

  for (const parameters of [await keys(wrong.privateKey), {}, null]) {
    const refused = await decodeLayer({ ...layer, parameters });
    assert.notEqual(refused.exitCode, 0);
    assert.equal(refused.layer.length, 0);
  }
});

test('skopeo and ctd-decoder start the key provider that ocicrypt.json names, and pass on what it says', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { path } = await prepare(t);
  const source = await writeImage(path('plain'));
  const script = 'cat > "$REQUEST"; echo "sorry from the provider" >&2; exit 3';
  const cmd = { path: '/bin/sh', args: ['-c', script] };
  const env = { ...(await writeOcicryptConfig(path('ocicrypt.json'), { stub: { cmd } })), REQUEST: path('request') };

  const wrapped = await copy(source.reference, path('oci:encrypted:1'), { env, encryptionKeys: ['provider:stub:key'] });
  assert.notEqual(wrapped.exitCode, 0);
  assert.match(wrapped.stderr, /sorry from the provider/);
  const wrap: Request = JSON.parse(await readFile(path('request'), 'utf8'));
  assert.equal(wrap.op, 'keywrap');

  const packet = Buffer.from('{}').toString('base64');
  const [plain] = source.images[0].layers;
  assert.ok(plain);
  const unwrapped = await decodeLayer({
    blob: blobPath(source.directory, plain.digest),
    descriptor: {
      ...{ ...plain, mediaType: `${plain.mediaType}+encrypted` },
      annotations: { 'org.opencontainers.image.enc.keys.provider.stub': packet },
    },
    parameters: null,
    env,
  });
  assert.notEqual(unwrapped.exitCode, 0);
  assert.match(unwrapped.stderr, /sorry from the provider/);
  const unwrap: Request = JSON.parse(await readFile(path('request'), 'utf8'));
  assert.equal(unwrap.op, 'keyunwrap');
});

type Request = { readonly op: string };

async function prepare(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'clients-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [right, wrong] = await Promise.all([writeRsaKey(directory, 'right'), writeRsaKey(directory, 'wrong')]);
  /** `name` inside the directory; `oci:NAME:TAG` is a layout there. */
  const path = (name: string) =>
    name.startsWith('oci:') ? `oci:${join(directory, name.slice(4))}` : join(directory, name);
  return { path, right, wrong };
}

async function succeed<Result extends { readonly exitCode: number; readonly stderr: string }>(
  running: Promise<Result>,
): Promise<Result> {
  const result = await running;
  assert.equal(result.exitCode, 0, result.stderr);
  return result;
}

async function onlyImage(directory: string): Promise<Image> {
  const [image, ...others] = await readImages(directory);
  assert.ok(image);
  assert.equal(others.length, 0);
  return image;
}

function isEncrypted(layer: Image['layers'][number]): boolean {
  return layer.mediaType.endsWith('+encrypted') && layer.annotations?.[annotation] !== undefined;
}

function digest(layer: Image['layers'][number]): string {
  return layer.digest;
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
