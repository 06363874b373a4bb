// Every cloud of the README on this machine, under its own names, behind a proxy that stands for the internet.

import { copyFile, mkdir } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { startGoogle } from '../end-to-end/google.ts';
import { createWorkspace } from '../end-to-end/workspace.ts';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { startFakeVault } from '../fakes/vault.ts';
import type { WireServer } from '../fakes/wire.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { startProxy } from '../fixtures/proxy.ts';
import type { Environment } from '../real-clients/process.ts';

export type Clouds = {
  /** Variables as a user has them who has logged in everywhere. */
  readonly environment: Environment;
  readonly servers: Readonly<Record<'google' | 'aws' | 'azure' | 'vault', WireServer>>;
};

/** Starts them all, each with one key. @param home the home directory in which Google's credentials are put */
export async function startClouds(t: TestContext, home: string): Promise<Clouds> {
  const workspace = await createWorkspace(t);
  const google = await startGoogle(t, workspace);
  const credentials = join(home, '.config/gcloud/application_default_credentials.json');
  await mkdir(dirname(credentials), { recursive: true });
  await copyFile(google.credentials, credentials);

  const authority = await createCertificateAuthority(workspace.path('authority'));
  const hosts = {
    aws: 'kms.eu-west-1.amazonaws.com',
    azure: 'testvault.vault.azure.net',
    login: 'login.microsoftonline.com',
    vault: 'vault.example.com',
  };
  const tls = await authority.issue('server', { names: ['127.0.0.1', ...Object.values(hosts)] });
  const aws = await startFakeAwsKms({ tls });
  const azure = await startFakeAzureVault({ tls, host: hosts.azure });
  const vault = await startFakeVault({ tls });
  t.after(() => Promise.all([aws.close(), azure.close(), vault.close()]));
  azure.createKey('images', { type: 'RSA', bits: 3072 });
  vault.createKey('transit/images');
  const proxy = await startProxy(t, {
    'cloudkms.googleapis.com:443': google.kms.server.port,
    [`${hosts.aws}:443`]: aws.server.port,
    [`${hosts.azure}:443`]: azure.server.port,
    [`${hosts.login}:443`]: azure.server.port,
    [`${hosts.vault}:8200`]: vault.server.port,
  });
  return {
    environment: {
      HTTPS_PROXY: proxy,
      SSL_CERT_DIR: [dirname(google.authority), dirname(authority.certificate)].join(delimiter),
      PROJECT_ID: 'acme',
      ARN: aws.createKey(),
      AWS_ACCESS_KEY_ID: aws.accessKey.id,
      AWS_SECRET_ACCESS_KEY: aws.accessKey.secret,
      VAULT_NAME: 'testvault',
      AZURE_TENANT_ID: azure.tenant,
      AZURE_CLIENT_ID: azure.client.id,
      AZURE_CLIENT_SECRET: azure.client.secret,
      VAULT_ADDR: `https://${hosts.vault}:8200`,
      VAULT_TOKEN: vault.createToken({ 'transit/*': ['update'] }),
    },
    servers: { google: google.kms.server, aws: aws.server, azure: azure.server, vault: vault.server },
  };
}
