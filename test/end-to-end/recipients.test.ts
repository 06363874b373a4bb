// Several recipients of one image: two keys of one provider, two providers, and a provider beside plain RSA.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { writeImage } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { copy, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { startGoogle } from './google.ts';
import {
  assertRefusal,
  createWorkspace,
  digests,
  isEncrypted,
  keyprovider,
  packetsOf,
  readImage,
  succeed,
} from './workspace.ts';

test('an image encrypted to two keys of one provider is opened by either key alone', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, keygen, opens } = await prepare(t);
  const [first, second, third] = [await keygen('first.key'), await keygen('second.key'), await keygen('third.key')];
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: keyprovider() });
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const encryptionKeys = [`provider:kmscrypt:${first.uri}`, `provider:kmscrypt:${second.uri}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys }));
  for (const layer of (await readImage(path('encrypted'))).layers) {
    const [packet = '', ...others] = packetsOf(layer);
    assert.equal(others.length, 0, 'both recipients are in one packet');
    assert.ok(packet.includes(first.thumbprint) && packet.includes(second.thumbprint));
  }
  for (const key of [first, second]) await opens(source, { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] });
  const refused = await copy(oci('encrypted'), oci('refused'), {
    ...{ env, decryptionKeys: [`provider:kmscrypt:${third.uri}`] },
  });
  assertRefusal(refused, 'not-allowed', first.thumbprint, second.thumbprint);
});

test('an image encrypted to a Google key and a local key is opened by either alone', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, keygen, opens, workspace } = await prepare(t);
  const google = await startGoogle(t, workspace);
  const local = await keygen('local.key');
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: keyprovider(...google.options) });
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const encryptionKeys = [`provider:kmscrypt:${google.key}`, `provider:kmscrypt:${local.uri}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys }));
  const encrypted = google.kms.server.requests.length;
  assert.equal(encrypted, 2, 'one call of the service for each layer');
  await opens(source, { env, decryptionKeys: [`provider:kmscrypt:${local.uri}`] });
  assert.equal(google.kms.server.requests.length, encrypted, 'the local key needs no service');
  await opens(source, { env, decryptionKeys: [`provider:kmscrypt:${google.key}`] });
  assert.equal(google.kms.server.requests.length, encrypted + 2);
});

test('an image encrypted to two providers is opened by either of them', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, keygen, opens } = await prepare(t);
  const [ours, theirs] = [await keygen('ours.key'), await keygen('theirs.key')];
  const kmscrypt = keyprovider();
  const team = keyprovider('--provider=team');
  const both = await writeOcicryptConfig(path('both.json'), { kmscrypt, team });
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const encryptionKeys = [`provider:kmscrypt:${ours.uri}`, `provider:team:${theirs.uri}`];
  await succeed(copy(source.reference, oci('encrypted'), { env: both, encryptionKeys }));
  for (const layer of (await readImage(path('encrypted'))).layers) {
    assert.ok(packetsOf(layer, 'kmscrypt')[0]?.includes(ours.thumbprint));
    assert.ok(packetsOf(layer, 'team')[0]?.includes(theirs.thumbprint));
  }
  const onlyOurs = await writeOcicryptConfig(path('ours.json'), { kmscrypt });
  await opens(source, { env: onlyOurs, decryptionKeys: [`provider:kmscrypt:${ours.uri}`] });
  const onlyTheirs = await writeOcicryptConfig(path('theirs.json'), { team });
  await opens(source, { env: onlyTheirs, decryptionKeys: [`provider:team:${theirs.uri}`] });
  // ocicrypt asks every provider that it knows and the image names, whichever one the user named.
  await opens(source, { env: both, decryptionKeys: [`provider:team:${theirs.uri}`] });
});

test('an image encrypted to a provider and to an RSA key is opened by either', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, keygen, opens, workspace } = await prepare(t);
  const [key, wrong] = [await keygen('app.key'), await keygen('wrong.key')];
  const rsa = await writeRsaKey(workspace.directory, 'rsa');
  const wrongRsa = await writeRsaKey(workspace.directory, 'wrong-rsa');
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: keyprovider() });
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const encryptionKeys = [`provider:kmscrypt:${key.uri}`, `jwe:${rsa.publicKey}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys }));
  const { layers } = await readImage(path('encrypted'));
  assert.ok(layers.every((layer) => isEncrypted(layer)));
  assert.ok(layers.every(({ annotations }) => annotations?.['org.opencontainers.image.enc.keys.jwe'] !== undefined));

  await opens(source, { env, decryptionKeys: [`provider:kmscrypt:${key.uri}`] });
  await opens(source, { decryptionKeys: [rsa.privateKey] });
  // With both configured, the key that cannot is no obstacle to the one that can.
  await opens(source, { env, decryptionKeys: [wrongRsa.privateKey, `provider:kmscrypt:${key.uri}`] });
  await opens(source, { env, decryptionKeys: [rsa.privateKey, `provider:kmscrypt:${wrong.uri}`] });
  for (const decryptionKeys of [[wrongRsa.privateKey], [`provider:kmscrypt:${wrong.uri}`]]) {
    assert.notEqual((await copy(oci('encrypted'), oci('refused'), { env, decryptionKeys })).exitCode, 0);
  }
});

async function prepare(t: TestContext) {
  const workspace = await createWorkspace(t);
  const { path, oci } = workspace;
  let count = 0;
  /** Demands that the layout `encrypted` is opened and has the layers of `source`. */
  const opens = async (source: Awaited<ReturnType<typeof writeImage>>, options: Parameters<typeof copy>[2]) => {
    const name = `opened-${count++}`;
    await succeed(copy(oci('encrypted'), oci(name), options));
    assert.deepEqual(digests((await readImage(path(name))).layers), digests(source.images[0].layers));
  };
  return { ...workspace, workspace, opens };
}
