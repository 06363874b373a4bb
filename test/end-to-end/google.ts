// A Google Cloud KMS on loopback for real clients: reached by options, or through a proxy that stands for the internet.

import { writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { GoogleIdentities } from '../fakes/google-identities.ts';
import { type FakeGoogleKms, startFakeGoogleKms } from '../fakes/google-kms.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { startProxy } from '../fixtures/proxy.ts';
import type { Environment } from '../real-clients/process.ts';
import type { Workspace } from './workspace.ts';

const RING = 'projects/acme/locations/global/keyRings/ocikeyring';

export interface Google {
  readonly kms: FakeGoogleKms;
  /** The URI and the resource name of a key that exists. */
  readonly key: string;
  readonly resource: string;
  /** The e-mail address of the service account in `credentials`. */
  readonly email: string;
  /** The service account's key file, which `--adc` takes. */
  readonly credentials: string;
  /** The PEM file of the authority that the service's certificate is from. */
  readonly authority: string;
  /** Options that lead our command to this service. */
  readonly options: readonly string[];
  /** An access token of that service account. */
  accessToken(): string;
  /** Makes another key and answers its URI. */
  createKey(name: string): string;
  /**
   * Variables that lead any program to this service at Google's own address, without an option: a proxy and an
   * authority. What files of the reference provider's users are tested with.
   */
  internet(): Promise<Environment>;
}

/** Starts the service with one key, `ocikeyring/key1` of project `acme`, and one service account that may use it. */
export async function startGoogle(t: Pick<TestContext, 'after'>, { path }: Workspace): Promise<Google> {
  const authorities = path('google-authority');
  const authority = await createCertificateAuthority(authorities);
  const tls = await authority.issue('../google', { names: ['cloudkms.googleapis.com', '127.0.0.1'] });
  const identities = new GoogleIdentities();
  const account = identities.createServiceAccount('builder', 'acme');
  const credentials = path('application_default_credentials.json');
  await writeFile(credentials, JSON.stringify(account), { mode: 0o600 });
  const kms = await startFakeGoogleKms(identities, { tls });
  t.after(() => kms.close());
  const createKey = (name: string) => {
    kms.createKey(`${RING}/cryptoKeys/${name}`);
    return `gcpkms://${RING}/cryptoKeys/${name}`;
  };
  return {
    ...{ kms, credentials, authority: authority.certificate, createKey },
    key: createKey('key1'),
    resource: `${RING}/cryptoKeys/key1`,
    email: account.client_email,
    accessToken: () => identities.issue(account.client_email),
    options: [`--adc=${credentials}`, `--gcp-endpoint=${kms.endpoint}`, `--ca=${authority.certificate}`],
    async internet() {
      const proxy = await startProxy(t, { 'cloudkms.googleapis.com:443': kms.server.port });
      return { HTTPS_PROXY: proxy, SSL_CERT_DIR: authorities };
    },
  };
}
