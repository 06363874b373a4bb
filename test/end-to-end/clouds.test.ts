// One image for three clouds, through real skopeo: each key alone opens it, with the other two services down.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { writeImage } from '../fixtures/images.ts';
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

test('an image for Google, AWS and Azure is opened by each of them alone, with the other two down', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const workspace = await createWorkspace(t);
  const { path, oci, directory } = workspace;
  const authority = await createCertificateAuthority(directory);
  const tls = await authority.issue('server');
  const google = await startGoogle(t, workspace);
  const aws = await startFakeAwsKms({ tls });
  const azure = await startFakeAzureVault({ tls });
  t.after(() => Promise.all([aws.close(), azure.close()]));
  const arn = aws.createKey();
  aws.createAlias('alias/images', arn);
  azure.createKey('images', { type: 'RSA', bits: 3072 });
  const vaultKey = `azurekms://${azure.host}/images`;

  const options = [
    ...google.options,
    `--ca=${authority.certificate}`,
    `--aws-endpoint=${aws.endpoint}`,
    '--aws-region=eu-west-1',
    `--azure-endpoint=${azure.endpoint}`,
    `--azure-authority=${azure.endpoint}`,
  ];
  const credentials = {
    AWS_ACCESS_KEY_ID: aws.accessKey.id,
    AWS_SECRET_ACCESS_KEY: aws.accessKey.secret,
    AZURE_TENANT_ID: azure.tenant,
    AZURE_CLIENT_ID: azure.client.id,
    AZURE_CLIENT_SECRET: azure.client.secret,
  };
  const environmentOf = async (name: string, ...more: readonly string[]) => ({
    ...(await writeOcicryptConfig(path(`${name}.json`), { kmscrypt: keyprovider(...options, ...more) })),
    ...credentials,
  });
  const env = await environmentOf('all');
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const keys = [google.key, 'awskms:///alias/images', vaultKey];
  const encryptionKeys = keys.map((key) => `provider:kmscrypt:${key}`);
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys }));
  for (const layer of (await readImage(path('encrypted'))).layers) {
    assert.ok(isEncrypted(layer));
    const [packet = ''] = packetsOf(layer);
    for (const part of [google.key, `awskms:///${arn}`, `${vaultKey}/`]) assert.ok(packet.includes(part), part);
  }

  const servers = [google.kms.server, aws.server, azure.server];
  const down = { kind: 'reset-before-headers' } as const;
  const allowAll = [google.key, arn, vaultKey].map((key) => `--allow=${key}`);
  const everyKey = await environmentOf('every', ...allowAll);
  for (const [index, server] of servers.entries()) {
    for (const other of servers) other.setFault(other === server ? undefined : () => down);
    // Named by the user, or found among all that are allowed.
    const named = { env, decryptionKeys: [`provider:kmscrypt:${keys[index]}`] };
    const any = { env: everyKey, decryptionKeys: ['provider:kmscrypt'] };
    for (const [way, opening] of [named, any].entries()) {
      const name = `opened-${index}-${way}`;
      await succeed(copy(oci('encrypted'), oci(name), opening));
      assert.deepEqual(digests((await readImage(path(name))).layers), digests(source.images[0].layers));
    }
  }
  for (const server of servers) server.setFault(() => down);
  const refused = await copy(oci('encrypted'), oci('refused'), {
    env: everyKey,
    decryptionKeys: ['provider:kmscrypt'],
  });
  assertRefusal(refused, 'unavailable');
});

test('an image with packets of Confidential Containers is written for AWS and opened again', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, directory } = await createWorkspace(t);
  const authority = await createCertificateAuthority(directory);
  const aws = await startFakeAwsKms({ tls: await authority.issue('server') });
  t.after(() => aws.close());
  const arn = aws.createKey();
  const options = [`--ca=${authority.certificate}`, `--aws-endpoint=${aws.endpoint}`, '--packet=coco-v2'];
  const config = await writeOcicryptConfig(path('ocicrypt.json'), {
    'attestation-agent': keyprovider('--provider=attestation-agent', ...options),
  });
  const env = { ...config, AWS_ACCESS_KEY_ID: aws.accessKey.id, AWS_SECRET_ACCESS_KEY: aws.accessKey.secret };
  const source = await writeImage(path('plain'), { layers: [{}] });

  const encryptionKeys = [`provider:attestation-agent:${arn}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys }));
  const [layer] = (await readImage(path('encrypted'))).layers;
  const packet = JSON.parse(packetsOf(layer, 'attestation-agent')[0] ?? '');
  assert.deepEqual([packet.version, packet.kid, packet.provider], ['0.1.0', arn, 'aws']);
  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: encryptionKeys }));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
});
