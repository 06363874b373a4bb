// The image commands against real clients, both ways: what we encrypt they decrypt, what they encrypt we decrypt.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { blobPath, readImages, writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { decodeLayer } from '../real-clients/ctd-decoder.ts';
import { copy } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { createImageWorkspace } from './image-workspace.ts';
import { annotationOf, digests, keyprovider, packetsOf, readImage, succeed } from './workspace.ts';

const LAYERS = [
  { size: 3_000_000 },
  { compression: 'zstd', size: 10_000 },
  { compression: 'none' },
  { size: 0 },
] as const;
const ARM = { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' }, layers: [{}, { size: 100_000 }] };

test('skopeo and ctd-decoder open with the provider what we encrypt: gzip, zstd and plain layers', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { path, oci, key, ours, providers } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'), { layers: LAYERS });
  const { digest } = await ours('encrypt', source.reference, oci('encrypted'), '--recipient', key.uri);
  const encrypted = await readImage(path('encrypted'));
  assert.equal(encrypted.digest, digest);

  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: ['provider:kmscrypt'] }));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
  for (const [index, descriptor] of encrypted.layers.entries()) {
    const blob = blobPath(path('encrypted'), descriptor.digest);
    const decoded = await succeed(decodeLayer({ blob, descriptor, parameters: null, env }));
    assert.equal(digestOf(decoded.layer), source.images[0].layers[index]?.digest);
  }
});

test('we open what skopeo encrypts with the provider, every platform of it', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, ours, providers } = await createImageWorkspace(t);
  const env = await providers({ kmscrypt: keyprovider() });
  const source = await writeIndex(path('plain'), [{ layers: [{ compression: 'zstd' }, {}] }, ARM]);
  const keys = [`provider:kmscrypt:${key.uri}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys: keys, all: true }));
  await ours('verify', oci('encrypted'), '--require', key.uri, '--only', key.uri, '--unwrap', '--key', key.file);
  await ours('decrypt', oci('encrypted'), oci('opened'), '--key', key.uri, '--check-diff-ids');
  assert.deepEqual(
    (await readImages(path('opened'))).map(({ layers, config }) => [config.digest, ...digests(layers)]),
    source.images.map(({ layers, config }) => [config.digest, ...digests(layers)]),
  );
});

test('an index that we encrypt keeps its platforms, and skopeo opens all of them', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, ours, providers } = await createImageWorkspace(t);
  const source = await writeIndex(path('plain'), [{ layers: LAYERS }, ARM]);
  await ours('encrypt', source.reference, oci('encrypted'), '--recipient', key.uri);
  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: ['provider:kmscrypt'], all: true }));
  assert.deepEqual(
    (await readImages(path('opened'))).map(({ layers, platform }) => [platform, digests(layers)]),
    source.images.map(({ layers, platform }) => [platform, digests(layers)]),
  );

  await ours('encrypt', source.reference, oci('arm'), '--recipient', key.uri, '--platform', 'linux/arm64');
  const states = (await readImages(path('arm'))).map(({ layers }) =>
    layers.map(({ mediaType }) => /encrypted$/.test(mediaType)),
  );
  assert.deepEqual(states, [LAYERS.map(() => false), [true, true]]);
  await ours('encrypt', source.reference, oci('last'), '--recipient', key.uri, '--layer', '-1');
  const last = (await readImages(path('last'))).map(({ layers }) =>
    layers.map(({ mediaType }) => /encrypted$/.test(mediaType)),
  );
  assert.deepEqual(last, [LAYERS.map((_, index) => index === LAYERS.length - 1), [false, true]]);
});

test('plain RSA and EC keys: skopeo and ctd-decoder open what we encrypt, we open what skopeo encrypts', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { directory, path, oci, ours, refused } = await createImageWorkspace(t);
  const rsa = await writeRsaKey(directory, 'rsa');
  const ec = await writeEcKey(path('ec'));
  const stranger = await writeRsaKey(directory, 'stranger');
  const source = await writeImage(path('plain'), { layers: LAYERS });
  for (const [name, recipients] of Object.entries({ rsa: [rsa], ec: [ec], both: [rsa, ec] })) {
    const words = recipients.flatMap(({ publicKey }) => ['--recipient', `jwe:${publicKey}`]);
    await ours('encrypt', source.reference, oci(`ours-${name}`), ...words);
    await succeed(
      copy(source.reference, oci(`theirs-${name}`), {
        encryptionKeys: recipients.map(({ publicKey }) => `jwe:${publicKey}`),
      }),
    );
    for (const { privateKey } of recipients) {
      await succeed(copy(oci(`ours-${name}`), oci(`a-${name}`), { decryptionKeys: [privateKey] }));
      assert.deepEqual(digests((await readImage(path(`a-${name}`))).layers), digests(source.images[0].layers));
      await ours('decrypt', oci(`theirs-${name}`), oci(`b-${name}`), '--key', privateKey);
      // skopeo compresses a plain layer first.
      const opened = digests((await readImage(path(`b-${name}`))).layers);
      assert.deepEqual(opened.toSpliced(2, 1), digests(source.images[0].layers).toSpliced(2, 1));
      const { layers } = await readImage(path(`ours-${name}`));
      const [descriptor] = layers;
      assert.ok(descriptor);
      const parameters = { privkeys: [await readFile(privateKey)], 'privkeys-passwords': [new Uint8Array()] };
      const blob = blobPath(path(`ours-${name}`), descriptor.digest);
      const decoded = await succeed(decodeLayer({ blob, descriptor, parameters }));
      assert.equal(digestOf(decoded.layer), source.images[0].layers[0]?.digest);
    }
    await refused('integrity', 'decrypt', oci(`ours-${name}`), oci('never'), '--key', stranger.privateKey);
  }
});

test('one image for a provider key, a plain key and a configured provider: each opens it alone', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { directory, path, oci, key, keygen, run, ours, providers } = await createImageWorkspace(t);
  const rsa = await writeRsaKey(directory, 'rsa');
  const other = await keygen('other.key');
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const env = await providers({ other: keyprovider(`--key=${other.file}`) });
  const recipients = [key.uri, `jwe:${rsa.publicKey}`, `provider:other:${other.uri}`];
  const encrypted = await run(
    ['encrypt', source.reference, oci('encrypted'), ...recipients.flatMap((text) => ['--recipient', text])],
    env,
  );
  assert.equal(encrypted.exitCode, 0, encrypted.stderr);
  const [layer] = (await readImage(path('encrypted'))).layers;
  assert.ok(packetsOf(layer, 'kmscrypt')[0]?.includes(key.thumbprint));
  assert.ok(packetsOf(layer, 'other')[0]?.includes(other.thumbprint));
  assert.notEqual(layer?.annotations?.[annotationOf('other')], layer?.annotations?.[annotationOf('kmscrypt')]);

  await ours('decrypt', oci('encrypted'), oci('by-key'), '--key', key.file);
  await ours('decrypt', oci('encrypted'), oci('by-rsa'), '--key', rsa.privateKey);
  assert.equal((await run(['decrypt', oci('encrypted'), oci('by-other')], env)).exitCode, 0);
  for (const name of ['by-key', 'by-rsa', 'by-other']) {
    assert.equal((await readImage(path(name))).digest, source.digest);
  }
});

async function writeEcKey(name: string) {
  const files = { publicKey: `${name}.pub.pem`, privateKey: `${name}.pem` };
  const script =
    'umask 077; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; openssl pkey -in "$1" -pubout -out "$2"';
  await promisify(execFile)('sh', ['-c', script, 'sh', files.privateKey, files.publicKey]);
  return files;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
