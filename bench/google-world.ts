// Google as the whole world sees it, on this machine: a key service that speaks gRPC beside REST over the same keys, and
// token services, by their own names behind a proxy, so that any program finds them without an option of its own.

import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { GoogleIdentities } from '../test/fakes/google-identities.ts';
import { startFakeGoogleKms } from '../test/fakes/google-kms.ts';
import { GOOGLE_NAMES, startFakeGoogleTokens } from '../test/fakes/google-tokens.ts';
import { createCertificateAuthority } from '../test/fixtures/certificates.ts';

/** What a program needs to use it. */
export type GoogleWorld = {
  /** A key URI. */
  readonly key: string;
  /** Files of application default credentials, by their kind. */
  readonly credentials: Readonly<Record<CredentialKind, string>>;
  /** Variables, by the roots that a program finds: those of the machine, one bundle of them, or one root alone. */
  readonly environments: Readonly<Record<RootStore, Readonly<Record<string, string>>>>;
};

/** What the key service does while it is down: it refuses calls as unavailable, or resets connections. */
export const OUTAGES = ['unavailable', 'reset'] as const;
export type OutageKind = (typeof OUTAGES)[number];

/** The world, and what can be done to it. */
export type StartedWorld = {
  readonly world: GoogleWorld;
  /** The key service is down from now on for so many milliseconds. */
  readonly breakDown: (kind: OutageKind, milliseconds: number) => void;
  readonly close: () => Promise<void>;
};

/** Federation is `external_account` and the impersonation of a service account. */
export const CREDENTIAL_KINDS = ['service account', 'authorized_user', 'federation, file', 'federation, URL'] as const;
export type CredentialKind = (typeof CREDENTIAL_KINDS)[number];

export const ROOT_STORES = ["the machine's roots", 'one bundle', 'one root'] as const;
export type RootStore = (typeof ROOT_STORES)[number];

const KEY = 'projects/acme/locations/global/keyRings/ocikeyring/cryptoKeys/key1';
const ACCOUNT = 'target@acme.iam.gserviceaccount.com';

/** Starts it in a thread of its own, so that it answers while we wait. */
export async function startGoogleWorld(directory: string): Promise<StartedWorld> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { googleWorld: directory } });
  const [world]: GoogleWorld[] = await once(worker, 'message');
  if (world === undefined) throw new Error('the services did not start');
  return {
    world,
    breakDown: (kind, milliseconds) => worker.postMessage({ kind, milliseconds }),
    async close() {
      worker.postMessage('close');
      await once(worker, 'exit');
    },
  };
}

async function start(directory: string): Promise<StartedWorld> {
  const roots = join(directory, 'roots');
  const authority = await createCertificateAuthority(roots);
  const tls = await authority.issue('../google', { names: GOOGLE_NAMES });
  const identities = new GoogleIdentities();
  const account = identities.createServiceAccount('builder', 'acme');
  const kms = await startFakeGoogleKms(identities, { tls, grpc: true });
  kms.createKey(KEY);
  const tokens = await startFakeGoogleTokens(identities, tls);
  tokens.routes.set('cloudkms.googleapis.com:443', kms.server.port);
  const { refreshTokens, subjectTokens, impersonations } = tokens.world;
  refreshTokens.set('refresh', 'user@acme');
  subjectTokens.set('subject-of-file', 'workload').set('subject-of-url', 'workload');
  impersonations.add(`workload ${ACCOUNT}`);

  const subject = join(directory, 'subject');
  writeFileSync(subject, 'subject-of-file', { mode: 0o600 });
  const files = join(directory, 'credentials');
  mkdirSync(files);
  const write = (kind: CredentialKind, content: object) => {
    const path = join(files, `${kind.replaceAll(/\W+/g, '-')}.json`);
    writeFileSync(path, JSON.stringify(content), { mode: 0o600 });
    return path;
  };
  const federated = (source: object) => ({
    type: 'external_account',
    audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    token_url: 'https://sts.googleapis.com/v1/token',
    credential_source: source,
    service_account_impersonation_url: `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${ACCOUNT}:generateAccessToken`,
  });
  const user = { type: 'authorized_user', client_id: 'id', client_secret: 'secret', refresh_token: 'refresh' };
  const format = { type: 'json', subject_token_field_name: 'value' };
  const reached = { HTTPS_PROXY: tokens.proxy };
  return {
    world: {
      key: `gcpkms://${KEY}`,
      credentials: {
        'service account': write('service account', account),
        authorized_user: write('authorized_user', user),
        'federation, file': write('federation, file', federated({ file: subject })),
        'federation, URL': write('federation, URL', federated({ url: `${tokens.metadata.url}/subject-token`, format })),
      },
      environments: {
        "the machine's roots": { ...reached, SSL_CERT_FILE: authority.certificate },
        'one bundle': { ...reached, SSL_CERT_DIR: roots },
        'one root': { ...reached, SSL_CERT_FILE: authority.certificate, SSL_CERT_DIR: roots },
      },
    },
    breakDown(kind, milliseconds) {
      const set = (isDown: boolean) => (kind === 'reset' ? kms.server.setReset(isDown) : kms.setUnavailable(isDown));
      set(true);
      setTimeout(() => set(false), milliseconds);
    },
    async close() {
      await Promise.all([kms.close(), tokens.close()]);
    },
  };
}

if (!isMainThread && parentPort !== null && workerData?.googleWorld !== undefined) {
  const port = parentPort;
  const { world, breakDown, close } = await start(workerData.googleWorld);
  port.postMessage(world);
  port.on('message', (order: 'close' | { readonly kind: OutageKind; readonly milliseconds: number }) => {
    if (order === 'close') void close().then(() => port.close());
    else breakDown(order.kind, order.milliseconds);
  });
}
