// Bad input to the image commands: one clear line, the right exit status, and nothing half-written.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runExecutable } from '../fixtures/executable.ts';
import { blobPath, type Descriptor, type Image, writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { startFakeRegistry } from '../image/transports/registry/fake-registry.ts';
import { createImageWorkspace, type ImageWorkspace } from './image-workspace.ts';

const PREFIX = 'org.opencontainers.image.enc.';
const KMSCRYPT = `${PREFIX}keys.provider.kmscrypt`;

test('what is not there is not found: image, tag, platform, layer, blob', async (t) => {
  const { oci, path, key, source, recipient, ours, refused } = await prepare(t);
  await refused('not-found', 'inspect', 'oci:nowhere:latest');
  await refused('not-found', 'inspect', `oci:${path('plain')}:other`);
  await refused('not-found', 'inspect', 'oci-archive:nowhere.tar');
  await refused('not-found', 'encrypt', source, oci('x'), ...recipient, '--platform', 'linux/s390x');
  await refused('not-found', 'encrypt', source, oci('x'), ...recipient, '--layer', '7');
  await refused('not-found', 'encrypt', source, oci('x'), '--recipient', `keyfile://${path('missing.key')}`);
  await refused('not-found', 'encrypt', source, oci('x'), '--recipient', 'jwe:missing.pem');
  await ours('encrypt', source, oci('enc'), ...recipient);
  const [layer] = await layersOf(path('enc'));
  await rm(blobPath(path('enc'), layer?.digest ?? ''));
  await refused('not-found', 'decrypt', oci('enc'), oci('x'), '--key', key.file);
  for (const [name, blob] of [
    ['no-config', (image: Image) => image.config.digest],
    ['no-manifest', (image: Image) => image.digest],
  ] as const) {
    const [image] = (await writeImage(path(name))).images;
    await rm(blobPath(path(name), blob(image)));
    await refused('not-found', 'encrypt', oci(name), oci('x'), ...recipient);
  }
  await refused('unavailable', 'inspect', 'docker://127.0.0.1:1/a');
});

test('words that make no sense are refused before anything is read', async (t) => {
  const { oci, source, key, recipient, refused } = await prepare(t);
  await refused('usage', 'encrypt', source);
  await refused('usage', 'encrypt', source, oci('x'));
  await refused('usage', 'encrypt', 'plain', oci('x'), ...recipient);
  await refused('usage', 'encrypt', source, 'docker-archive:x.tar', ...recipient);
  await refused('usage', 'encrypt', source, `docker://127.0.0.1:1/a@sha256:${'0'.repeat(64)}`, ...recipient);
  await refused('usage', 'encrypt', source, oci('x'), ...recipient, '--layer', 'last');
  await refused('usage', 'encrypt', source, oci('x'), '--recipient', 'pgp:somebody');
  await refused('bad-input', 'encrypt', source, oci('x'), '--recipient', 'gcpkms://nonsense');
  await refused('configuration', 'encrypt', source, oci('x'), '--recipient', 'provider:absent:value');
  await refused('usage', 'rewrap', source);
  await refused('usage', 'rewrap', source, '--add', key.uri, '--remove', key.uri);
  await refused('usage', 'encrypt', source, 'oci:../a:b/../c', ...recipient);
});

test('plain and partly encrypted images, and recipients that nobody here can be', async (t) => {
  const { directory, oci, path, key, keygen, source, recipient, ours, refused } = await prepare(t);
  const rsa = await writeRsaKey(directory, 'rsa');
  const other = await keygen('other.key');
  await refused('bad-input', 'decrypt', source, oci('x'), '--key', key.file);
  await refused('bad-input', 'rewrap', source, '--add', key.uri);
  await ours('encrypt', source, oci('part'), ...recipient, '--layer', '0');
  const twice = await refused('bad-input', 'encrypt', oci('part'), oci('x'), ...recipient);
  assert.ok(twice.stderr.includes('rewrap'));
  await ours('encrypt', oci('part'), oci('rest'), ...recipient, '--layer', '1');
  await ours('decrypt', oci('rest'), oci('first'), '--key', key.file, '--layer', '0');
  await refused('bad-input', 'decrypt', oci('part'), oci('x'), '--key', key.file, '--layer', '1');

  await ours('encrypt', source, oci('jwe'), '--recipient', `jwe:${rsa.publicKey}`);
  await refused('not-allowed', 'decrypt', oci('jwe'), oci('x'), '--key', key.file);
  await refused('not-allowed', 'decrypt', oci('rest'), oci('x'), '--key', other.file);
  await refused('not-allowed', 'decrypt', oci('rest'), oci('x'));
  await refused('configuration', 'encrypt', source, oci('x'), '--recipient', `jwe:${rsa.privateKey}`);

  // Two names of one key are one recipient.
  await copyFile(key.file, path('copy.key'));
  await ours('encrypt', source, oci('x'), ...recipient, '--recipient', `keyfile://${path('copy.key')}`);
  const { platforms } = JSON.parse((await ours('inspect', oci('x'), '--json')).stdout);
  assert.equal(platforms[0].layers[0].keys[0].recipients.length, 1);
  await refused('bad-input', 'rewrap', oci('rest'), '--add', key.uri, '--key', key.file);
});

test('annotations of strangers are refused within bounds, and only described by inspect', async (t) => {
  const { oci, path, key, source, recipient, ours, refused } = await prepare(t);
  await ours('encrypt', source, oci('enc'), ...recipient);
  const packet = (await layersOf(path('enc')))[0]?.annotations?.[KMSCRYPT] ?? '';
  const options = (json: object) => Buffer.from(JSON.stringify(json)).toString('base64');
  const hmac = Buffer.alloc(32).toString('base64');
  const faults: readonly Readonly<Record<string, string | undefined>>[] = [
    { [KMSCRYPT]: Array(10_000).fill(packet).join(',').slice(0, 3_000_000) },
    { [KMSCRYPT]: 'A'.repeat(1024 * 1024) },
    { [KMSCRYPT]: 'not base64' },
    { [KMSCRYPT]: undefined },
    { [`${PREFIX}pubopts`]: undefined },
    { [`${PREFIX}pubopts`]: options({ cipher: 'ROT13', hmac, cipheroptions: {} }) },
    { [`${PREFIX}pubopts`]: options({ cipher: 'AES_256_CTR_HMAC_SHA256', hmac, cipheroptions: { nonce: hmac } }) },
    { [`${PREFIX}pubopts`]: options({ cipher: 'AES_256_CTR_HMAC_SHA256', hmac: 'AAAA', cipheroptions: {} }) },
  ];
  for (const [index, fault] of faults.entries()) {
    const name = `fault-${index}`;
    await changeManifest(path('enc'), path(name), (manifest) => {
      Object.assign(manifest.layers[0]?.annotations ?? {}, fault);
    });
    await refused('bad-input', 'decrypt', oci(name), oci('x'), '--key', key.file);
    await refused('bad-input', 'rewrap', oci(name), '--add', key.uri, '--key', key.file);
    await refused('integrity', 'verify', oci(name));
    await ours('inspect', oci(name));
  }
  // What a stranger wrote does not drive the terminal.
  await changeManifest(path('enc'), path('nasty'), (manifest) => {
    const nasty = `${PREFIX}keys.provider.a\u001b]0;owned\u0007`;
    Object.assign(manifest.layers[0]?.annotations ?? {}, { [nasty]: packet });
  });
  const { stdout } = await ours('inspect', oci('nasty'));
  assert.ok(!stdout.includes('\u001b') && stdout.includes('owned'));
});

test('manifests that are too large or name themselves are refused', async (t) => {
  const { oci, path, source, recipient, ours, refused } = await prepare(t);
  await ours('encrypt', source, oci('enc'), ...recipient);
  await changeManifest(path('enc'), path('large'), (manifest) => {
    Object.assign(manifest, { padding: 'x'.repeat(10 * 1024 * 1024) });
  });
  await refused('bad-input', 'inspect', oci('large'));
  // A digest cannot name itself; that its name is in it makes the content another one.
  const index = 'application/vnd.oci.image.index.v1+json';
  const digest = `sha256:${'1'.repeat(64)}`;
  const self = JSON.stringify({
    schemaVersion: 2,
    mediaType: index,
    manifests: [{ mediaType: index, digest, size: 10 }],
  });
  await writeLayout(path('self'), digest, index, self);
  await refused('integrity', 'inspect', oci('self'));
  const climbing =
    '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../etc/passwd","size":1}';
  await mkdir(path('climb'));
  await writeFile(path('climb/index.json'), `{"schemaVersion":2,"manifests":[${climbing}]}`);
  await refused('bad-input', 'inspect', oci('climb'));
});

test('a full disk ends in one line, and the old image is as it was', async (t) => {
  const { directory, oci, path, key, source, recipient, ours } = await prepare(t);
  await ours('encrypt', source, oci('enc'), ...recipient);
  const before = (await readdir(directory)).toSorted();
  const archive = `oci-archive:${path('full.tar')}`;
  for (const words of [
    ['encrypt', source, oci('full'), '--recipient', key.uri],
    ['encrypt', source, archive, '--recipient', key.uri],
    ['decrypt', oci('enc'), oci('full'), '--key', key.file],
    ['decrypt', oci('enc'), archive, '--key', key.file],
  ]) {
    const { status, stderr } = await runExecutable(words, { shell: 'ulimit -f 100; exec "$@"', cwd: directory });
    assert.equal(status, 74, stderr);
    assert.ok(stderr.startsWith('ocicrypt-kms: not-written: '));
    assert.equal(stderr.trimEnd().split('\n').length, 1);
    assert.deepEqual((await readdir(directory)).toSorted(), before);
  }
  const plain = (await readdir(path('plain/blobs/sha256'))).sort();
  const inPlace = ['encrypt', source, source, '--recipient', key.uri];
  assert.equal((await runExecutable(inPlace, { shell: 'ulimit -f 100; exec "$@"', cwd: directory })).status, 74);
  assert.deepEqual((await readdir(path('plain/blobs/sha256'))).sort(), plain);
});

test('a registry that goes down before the manifest leaves the tag where it was', async (t) => {
  const { directory, oci, key, source, run } = await prepare(t);
  const registry = await startFakeRegistry(t, directory);
  const remote = `docker://${registry.host}/a:1`;
  const access = [`--ca=${registry.authority}`];
  registry.fault = (request, response, requested) => {
    if (request.method !== 'PUT' || !requested.includes('/manifests/')) return false;
    response.destroy();
    return true;
  };
  const failed = await run(['encrypt', source, remote, '--recipient', key.uri, ...access]);
  assert.equal(failed.exitCode, 69, failed.stderr);
  assert.equal(failed.stderr.trim().split('\n').length, 1);
  registry.fault = undefined;
  assert.equal((await run(['inspect', remote, ...access])).exitCode, 66);
  const again = await run(['encrypt', source, remote, '--recipient', key.uri, ...access]);
  assert.equal(again.exitCode, 0, again.stderr);
  assert.equal((await run(['decrypt', remote, oci('opened'), '--key', key.file, ...access])).exitCode, 0);
});

test('a signal ends a command, which tidies up and dies of it', async (t) => {
  const { directory, oci, path, key } = await prepare(t);
  const large = await writeIndex(path('large'), [{ layers: [{ size: 60_000_000, compression: 'none' }] }]);
  const { status, signal } = await runExecutable(['encrypt', large.reference, oci('cut'), '--recipient', key.uri], {
    cwd: directory,
    started: (child) => {
      const timer = setInterval(async () => {
        const names: readonly string[] = await readdir(path('cut/blobs/sha256')).catch(() => []);
        if (names.length > 0) {
          clearInterval(timer);
          child.kill('SIGTERM');
        }
      }, 1);
      child.once('exit', () => clearInterval(timer));
    },
  });
  // Where it was faster than we, there is nothing to see.
  if (status === 0) return t.diagnostic('it had ended before the signal');
  assert.equal(signal, 'SIGTERM');
  assert.ok(!(await readdir(directory)).includes('cut'));
});

type Manifest = { readonly layers: readonly (Descriptor & { readonly annotations?: Record<string, string> })[] };

async function prepare(
  t: TestContext,
): Promise<ImageWorkspace & { readonly source: string; readonly recipient: readonly string[] }> {
  const workspace = await createImageWorkspace(t);
  const { reference } = await writeImage(workspace.path('plain'), { layers: [{ size: 200_000 }, {}] });
  return { ...workspace, source: reference, recipient: ['--recipient', workspace.key.uri] };
}

async function layersOf(directory: string): Promise<Manifest['layers']> {
  const index = JSON.parse(await readFile(join(directory, 'index.json'), 'utf8'));
  const manifest: Manifest = JSON.parse(await readFile(blobPath(directory, index.manifests[0].digest), 'utf8'));
  return manifest.layers;
}

/** Copies a layout of one image with another manifest. */
async function changeManifest(from: string, to: string, change: (manifest: Manifest) => void): Promise<void> {
  const index = JSON.parse(await readFile(join(from, 'index.json'), 'utf8'));
  const [entry] = index.manifests;
  const manifest: Manifest = JSON.parse(await readFile(blobPath(from, entry.digest), 'utf8'));
  change(manifest);
  const text = JSON.stringify(manifest);
  const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
  await writeLayout(to, digest, entry.mediaType, text);
  for (const name of await readdir(join(from, 'blobs/sha256'))) {
    await copyFile(join(from, 'blobs/sha256', name), join(to, 'blobs/sha256', name));
  }
}

async function writeLayout(directory: string, digest: string, mediaType: string, text: string): Promise<void> {
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  await writeFile(blobPath(directory, digest), text);
  const size = Buffer.byteLength(text);
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  await writeFile(
    join(directory, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType, digest, size, annotations }] }),
  );
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}
