// podman of Debian 13 with our provider: it runs what we encrypt and what we decrypt, and we open what it encrypts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPodman } from '../clients/podman.ts';
import { realClients, toolArgv } from '../clients/tools.ts';
import { writeImage } from '../fixtures/images.ts';
import { createImageWorkspace } from './image-workspace.ts';
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
