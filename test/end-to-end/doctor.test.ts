// The doctor on images: who can open which layer here, and what is in the way.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import type { Environment } from '../real-clients/process.ts';
import { createImageWorkspace } from './image-workspace.ts';
import { keyprovider } from './workspace.ts';

test('the doctor opens one layer key for each set of recipients, and says who did and who did not', async (t) => {
  const { directory, path, oci, key, keygen, ours, run, providers } = await createImageWorkspace(t);
  const other = await keygen('other.key');
  const rsa = await writeRsaKey(directory, 'rsa');
  const source = await writeIndex(path('plain'), [
    { layers: [{}, {}, {}] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{}] },
  ]);
  const [first, both, image] = [oci('first'), oci('both'), oci('image')];
  await ours('encrypt', source.reference, first, '--recipient', key.uri, '--layer', '0');
  await ours(
    'encrypt',
    first,
    both,
    '--recipient',
    `jwe:${rsa.publicKey}`,
    '--layer',
    '1',
    '--platform',
    'linux/amd64',
  );
  await ours('encrypt', both, image, '--recipient', other.uri, '--layer', '2', '--platform', 'linux/amd64');
  const doctor = async (words: readonly string[], env: Environment = {}) => {
    const result = await run(['doctor', '--json', ...words], env);
    const [probe] = JSON.parse(result.stdout).images;
    const groups: readonly Group[] = probe.groups;
    return { ...result, probe, groups };
  };

  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  const all = await doctor([image, '--key', other.file, '--key', rsa.privateKey], env);
  assert.equal(all.exitCode, 0, all.stderr);
  assert.deepEqual(
    all.groups.map(({ layers, openedBy }) => [
      layers.map(({ platform, index }) => `${platform} ${index}`).join(),
      openedBy.map((by) => by.split(' ')[0]).join(),
    ]),
    [
      ['linux/amd64 0,linux/arm64 0', 'provider'],
      ['linux/amd64 1', '--key'],
      ['linux/amd64 2', '--key'],
    ],
  );
  assert.equal(all.groups[0]?.recipients[0]?.recipients[0]?.key, key.thumbprint);

  // Each thing that can be in the way, by its code; the exit status is that of the first.
  const codes = ({ groups }: { readonly groups: readonly Group[] }) =>
    groups.map(({ refusals }) => refusals.map(({ code }) => code).join());
  const none = await doctor([image]);
  assert.equal(none.exitCode, 77);
  assert.deepEqual(codes(none), ['not-allowed,configuration', 'not-allowed', 'not-allowed,configuration']);
  const wrong = await doctor([image], await providers({ kmscrypt: keyprovider(`--key=${rsa.privateKey}`) }));
  assert.equal(wrong.groups[0]?.refusals[0]?.code, 'configuration');
  const broken = await doctor([first], await providers({ kmscrypt: { cmd: { path: '/bin/false' } } }));
  assert.deepEqual([broken.exitCode, codes(broken)[0]], [69, 'unavailable']);
  const absent = await doctor([first, '--key', key.file], await providers({ other: keyprovider() }));
  assert.deepEqual([absent.exitCode, codes(absent)[0]], [0, 'configuration']);
});

test('the doctor warns of what is not encrypted, and fails for what cannot be read', async (t) => {
  const { path, oci, run } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'));
  const plain = await run(['doctor', source.reference]);
  assert.equal(plain.exitCode, 0, plain.stderr);
  assert.match(plain.stdout, /^warn {2}oci:.*\n {6}layers {4}linux\/amd64 0\n {6}found {5}not encrypted\n/);
  const missing = await run(['doctor', oci('nowhere'), '--json']);
  assert.deepEqual([missing.exitCode, JSON.parse(missing.stdout).images[0].error.code], [66, 'not-found']);
  await writeFile(path('plain/index.json'), '{');
  assert.equal((await run(['doctor', source.reference])).exitCode, 65);
});

type Group = {
  readonly layers: readonly { readonly platform: string; readonly index: number }[];
  readonly recipients: readonly { readonly recipients: readonly { readonly key?: string }[] }[];
  readonly openedBy: readonly string[];
  readonly refusals: readonly { readonly by: string; readonly code: string }[];
};
