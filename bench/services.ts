// Key services to measure against: the fakes of the tests, in a thread of their own so that they answer while we wait.

import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { startGoogle } from '../test/end-to-end/google.ts';
import { createWorkspace } from '../test/end-to-end/workspace.ts';
import { startFakeAwsKms } from '../test/fakes/aws-kms.ts';
import { startFakeAzureVault } from '../test/fakes/azure-key-vault.ts';
import { startFakeVault } from '../test/fakes/vault.ts';
import { createCertificateAuthority } from '../test/fixtures/certificates.ts';

/** How a command finds a service. */
export type Service = {
  readonly key: string;
  /** Our own options. */
  readonly options: readonly string[];
  /** Credentials, where they are variables. */
  readonly environment: Readonly<Record<string, string>>;
};

/** Services that run. */
export type Services = {
  /** Google Cloud KMS with a service account. */
  readonly google: Service;
  /** The variables that lead any program to it by its own name: a proxy, an authority, credentials. */
  readonly internet: Readonly<Record<string, string>>;
  /** AWS KMS with an access key, and a symmetric key. */
  readonly aws: Service;
  /** Azure Key Vault with a client secret, and an RSA key. */
  readonly azure: Service;
  /** Vault with a token, and a symmetric key. */
  readonly vault: Service;
};

type Cleanup = () => void | Promise<void>;

/** Starts all of them. */
export async function startServices(): Promise<Services & { readonly close: () => Promise<void> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: 'services' });
  const [services]: Services[] = await once(worker, 'message');
  if (services === undefined) throw new Error('the services did not start');
  return {
    ...services,
    async close() {
      worker.postMessage('close');
      await once(worker, 'exit');
    },
  };
}

async function start(after: (cleanup: Cleanup) => void): Promise<Services> {
  const workspace = await createWorkspace({ after });
  const authority = await createCertificateAuthority(workspace.directory);
  const tls = await authority.issue('server');
  const ca = `--ca=${authority.certificate}`;
  const google = await startGoogle({ after }, workspace);
  const [aws, azure, vault] = [
    await startFakeAwsKms({ tls }),
    await startFakeAzureVault({ tls }),
    await startFakeVault({ tls }),
  ];
  for (const service of [aws, azure, vault]) after(() => service.close());
  azure.createKey('images', { type: 'RSA', bits: 3072 });
  vault.createKey('transit/images');
  return {
    google: { key: google.key, options: google.options, environment: {} },
    internet: { ...(await google.internet()), GOOGLE_APPLICATION_CREDENTIALS: google.credentials },
    aws: {
      key: aws.createKey(),
      options: [`--aws-endpoint=${aws.endpoint}`, ca],
      environment: { AWS_ACCESS_KEY_ID: aws.accessKey.id, AWS_SECRET_ACCESS_KEY: aws.accessKey.secret },
    },
    azure: {
      key: `azurekms://${azure.host}/images`,
      options: [`--azure-endpoint=${azure.endpoint}`, `--azure-authority=${azure.endpoint}`, ca],
      environment: {
        AZURE_TENANT_ID: azure.tenant,
        AZURE_CLIENT_ID: azure.client.id,
        AZURE_CLIENT_SECRET: azure.client.secret,
      },
    },
    vault: {
      key: 'hashivault://images',
      options: [`--vault-addr=${vault.address}`, ca],
      environment: { VAULT_TOKEN: vault.createToken({ 'transit/*': ['update'] }) },
    },
  };
}

if (!isMainThread && parentPort !== null && workerData === 'services') {
  const cleanups: Cleanup[] = [];
  parentPort.postMessage(await start((cleanup) => void cleanups.push(cleanup)));
  await once(parentPort, 'message');
  for (const cleanup of cleanups.toReversed()) await cleanup();
  parentPort.close();
}
