// podman of Debian 13 with our provider: it runs what we encrypt and what we decrypt, and we open what it encrypts.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { blobPath, readImages, writeImage } from '../fixtures/images.ts';
import { createPodman } from '../real-clients/podman.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy } from '../real-clients/skopeo.ts';
import { realClients, toolArgv } from '../real-clients/tools.ts';
import { assertRefused, createImageWorkspace } from './image-workspace.ts';
import { keyprovider, succeed } from './workspace.ts';

const RUN = ['run', '--rm', '--quiet', '--network=none', '--cgroups=disabled'];

test('podman runs an image that we encrypted or decrypted, and pushes one that we open', async (t) => {
  if (!(await realClients(t, ['podman', 'busybox']))) return;
  const { path, oci, key, ours, providers } = await createImageWorkspace(t);
  const podman = await createPodman(path('podman'));
  const [shell] = await toolArgv('busybox');
  const source = await writeImage(path('plain'), { layers: [{ shell }, { compression: 'zstd' }] });
  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  const hello = async (...words: readonly string[]) => {
    const { stdout } = await succeed(podman([...RUN, ...words], env));
    assert.equal(new TextDecoder().decode(stdout), 'hello\n');
  };

  await ours('encrypt', source.reference, oci('encrypted'), '--recipient', key.uri);
  assert.notEqual((await podman([...RUN, oci('encrypted')], env)).exitCode, 0);
  await hello('--decryption-key=provider:kmscrypt', oci('encrypted'));
  await ours('decrypt', oci('encrypted'), oci('decrypted'), '--key', key.file);
  await succeed(podman(['rmi', '--all', '--force']));
  await hello(oci('decrypted'));

  const { stdout } = await succeed(podman(['images', '--quiet']));
  const image = new TextDecoder().decode(stdout).trim();
  await succeed(podman(['push', `--encryption-key=provider:kmscrypt:${key.uri}`, image, oci('pushed')], env));
  await ours('verify', oci('pushed'), '--only', key.uri, '--unwrap', '--key', key.file);
  await ours('decrypt', oci('pushed'), oci('opened'), '--key', key.file, '--check-diff-ids');
  await succeed(podman(['rmi', '--all', '--force']));
  await hello(oci('opened'));
});

test('podman decrypts by tag and by digest tag, and refuses a digest, as verify says', async (t) => {
  if (!(await realClients(t, ['podman', 'docker-registry', 'skopeo']))) return;
  const { path, oci, key, ours, run, refused, providers } = await createImageWorkspace(t);
  const registry = await startRegistry();
  t.after(registry.stop);
  const podman = await createPodman(path('podman'));
  const source = await writeImage(path('plain'), { layers: [{}] });
  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  const image = registry.reference('team/app:1');
  const trust = `--ca=${registry.authority}`;
  const pull = (name: string) =>
    podman(
      ['pull', '--quiet', `--cert-dir=${registry.certificateDirectory}`, '--decryption-key=provider:kmscrypt', name],
      env,
    );

  const { digest, stderr } = await ours(
    ...['encrypt', source.reference, image, '--recipient', key.uri, '--digest-tag', trust],
  );
  const byTag = `${registry.host}/team/app:digest-${digest.slice('sha256:'.length)}`;
  assert.ok(stderr.includes(`deploy ${byTag}: `), stderr);
  const { stdout } = await ours('verify', image, '--digest-tag', '--json', trust);
  const { deploy }: { readonly deploy: readonly Deployable[] } = JSON.parse(stdout);
  assert.deepEqual(
    deploy.map(({ name }) => name),
    [byTag, `${registry.host}/team/app@${digest}`],
  );
  for (const { name, runtimes } of deploy) {
    const { exitCode, stderr: said } = await pull(name);
    assert.equal(exitCode === 0, runtimes.includes('podman'), said);
    if (exitCode !== 0) assert.match(said, /should be decrypted.*Destination specifies a digest/);
  }
  await succeed(pull(`${registry.host}/team/app:1`));
  for (const { name, runtimes } of deploy) {
    const told = await ours('doctor', `docker://${name}`, '--key', key.file, '--json', trust);
    assert.deepEqual(JSON.parse(told.stdout).images[0].named.runtimes, runtimes);
  }

  await ours('encrypt', source.reference, image, '--recipient', key.uri, trust);
  const missing = await run(['verify', image, '--digest-tag', trust]);
  assertRefused(missing, 'integrity');
  // The hint is a command that works.
  const [from = '', to = ''] = /skopeo copy --all --preserve-digests (\S+) (\S+)/.exec(missing.stderr)?.slice(1) ?? [];
  await succeed(copy(from, to, { registry, all: true, extra: ['--preserve-digests'] }));
  await ours('verify', image, '--digest-tag', trust);
  const change = ['rewrap', image, '--recipient', key.uri, '--key', key.file, '--digest-tag', '--json', trust];
  assert.equal(JSON.parse((await ours(...change, '--dry-run')).stdout).digestTag, undefined);
  const rewrapped: { readonly digest: string; readonly digestTag: string } = JSON.parse((await ours(...change)).stdout);
  assert.ok(rewrapped.digestTag.endsWith(`:digest-${rewrapped.digest.slice('sha256:'.length)}`));
  await ours('verify', `docker://${rewrapped.digestTag}`, '--digest-tag', trust);
  await refused('usage', 'rewrap', `docker://${rewrapped.digestTag}`, '--recipient', key.uri, '--key', key.file, trust);
  await refused('usage', 'encrypt', source.reference, `docker://${byTag}`, '--recipient', key.uri, trust);
  await refused('usage', 'encrypt', source.reference, oci('tagged'), '--recipient', key.uri, '--digest-tag');
});

type Deployable = { readonly name: string; readonly runtimes: readonly string[] };

test('podman runs without a key what is only called encrypted, and only verify --content notices', async (t) => {
  if (!(await realClients(t, ['podman', 'busybox']))) return;
  const { path, oci, key, ours, refused } = await createImageWorkspace(t);
  const podman = await createPodman(path('podman'));
  const [shell] = await toolArgv('busybox');
  const source = await writeImage(path('plain'), { layers: [{ shell }] });
  await ours('encrypt', source.reference, oci('encrypted'), '--recipient', key.uri);
  const [encrypted] = await readImages(path('encrypted'));
  const [layer] = source.images[0].layers;
  const annotations = encrypted?.layers[0]?.annotations;
  assert.ok(encrypted !== undefined && layer !== undefined && annotations !== undefined);

  // The type, the keys and the HMAC of an encrypted layer, and the blob of the plain one.
  const forged = { ...layer, mediaType: `${layer.mediaType}+encrypted`, annotations };
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config: encrypted.config, layers: [forged] }));
  const digest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`;
  await writeFile(blobPath(path('plain'), digest), manifest);
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const entry = { mediaType, digest, size: manifest.length };
  await writeFile(join(path('plain'), 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));

  const { stdout } = await succeed(podman([...RUN, `oci:${path('plain')}`]));
  assert.equal(new TextDecoder().decode(stdout), 'hello\n', 'no key is configured');
  const words = [
    'verify',
    `oci:${path('plain')}`,
    '--require',
    key.thumbprint,
    '--only',
    key.thumbprint,
    '--key',
    key.file,
  ];
  const unwrapped = await ours(...words, '--unwrap');
  assert.match(unwrapped.stdout, /not proved: that the layers are encrypted at all/);
  await refused('integrity', ...words, '--content');
  const honest = await ours('verify', oci('encrypted'), ...words.slice(2), '--content');
  assert.doesNotMatch(honest.stdout, /not proved/);
  assert.notEqual((await podman([...RUN, oci('encrypted')])).exitCode, 0);
});
