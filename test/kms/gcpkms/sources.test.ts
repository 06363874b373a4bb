// The credentials of Google: each source survives what passes, and says what is wrong with it; a sovereign machine's
// token stays in its own cloud.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { openGcpKms } from '../../../src/kms/gcpkms/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { GoogleIdentities } from '../../fakes/google-identities.ts';
import { type FakeGoogleKms, startFakeGoogleKms } from '../../fakes/google-kms.ts';
import { type FakeGoogleTokens, GOOGLE_NAMES, startFakeGoogleTokens } from '../../fakes/google-tokens.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../fixtures/certificates.ts';
import {
  type CredentialFault,
  compareFaultTable,
  type FaultRow,
  readFault,
  SLOW_MILLISECONDS,
  trySource,
  trySourceAt,
  untilEmpty,
  useOnce,
} from '../credential-trials.ts';
import { code } from '../expect.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/keys.md', import.meta.url));
const KEY = 'gcpkms://projects/test-project/locations/global/keyRings/ring/cryptoKeys/key';
const SOVEREIGN = 'cloudkms.sovereign.example';
const TARGET = 'target@test-project.iam.gserviceaccount.com';
const IMPERSONATION = `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${TARGET}:generateAccessToken`;
const USER = { type: 'authorized_user', client_id: 'id', client_secret: 'secret', refresh_token: 'refresh-secret' };

let directory: string;
let ca: CertificateAuthority;
let kms: FakeGoogleKms;
let world: FakeGoogleTokens;
let files = 0;
const identities = new GoogleIdentities();
const worlds: FakeGoogleTokens[] = [];
const opened: Kek[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'google-sources-'));
  ca = await createCertificateAuthority(directory);
  await ca.issue('google', { names: [...GOOGLE_NAMES, SOVEREIGN] });
  kms = await startFakeGoogleKms(identities, { tls: tls() });
  kms.createKey(KEY.replace('gcpkms://', ''));
  world = await openWorld();
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await Promise.all([kms.close(), ...worlds.map((one) => one.close())]);
  await rm(directory, { recursive: true, force: true });
});

function tls() {
  return { certificate: join(directory, 'google.crt'), privateKey: join(directory, 'google.key') };
}

async function openWorld(): Promise<FakeGoogleTokens> {
  const own = await startFakeGoogleTokens(identities, tls());
  worlds.push(own);
  for (const host of ['cloudkms.googleapis.com', SOVEREIGN]) own.routes.set(`${host}:443`, kms.server.port);
  own.world.refreshTokens.set('refresh-secret', 'user@test');
  own.world.subjectTokens.set('subject', 'workload');
  own.world.impersonations.add(`user@test ${TARGET}`);
  own.world.machine = 'machine@test';
  return own;
}

async function write(content: unknown, name = `adc-${files++}.json`): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content), { mode: 0o600 });
  return path;
}

type Variables = Readonly<Record<string, string>>;

async function open(json: unknown, variables: Variables = {}, own: FakeGoogleTokens = world): Promise<Kek> {
  const uri = parseKeyUri(KEY);
  assert.ok(uri.scheme === 'gcpkms');
  const environment = { HOME: directory, PATH: process.env.PATH, HTTPS_PROXY: own.proxy, ...variables };
  const credentialsFile = json === undefined ? undefined : await write(json);
  const kek = openGcpKms(uri, { credentialsFile, caFiles: [ca.certificate], environment });
  opened.push(kek);
  return kek;
}

const federated = (source: object) => ({
  type: 'external_account',
  audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider',
  subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
  token_url: 'https://sts.googleapis.com/v1/token',
  credential_source: source,
});
const impersonated = (url = IMPERSONATION) => ({
  type: 'impersonated_service_account',
  service_account_impersonation_url: url,
  delegates: [],
  source_credentials: USER,
});
const machine = (own = world): Variables => ({ GCE_METADATA_HOST: own.metadataHost });
const programs: Variables = { GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES: '1' };
const subject = () => write('subject', 'subject');
const answer = () =>
  JSON.stringify({
    version: 1,
    success: true,
    token_type: 'urn:ietf:params:oauth:token-type:jwt',
    id_token: 'subject',
    expiration_time: Math.floor(Date.now() / 1000) + 3600,
  });
const program = async (script: string) =>
  federated({ executable: { command: `sh ${await write(script, `program-${files++}.sh`)}` } });

describe('Google credentials survive', { concurrency: true }, () => {
  const served = (
    name: string,
    server: 'metadata' | 'services',
    path: RegExp,
    who: RegExp,
    create: (own: FakeGoogleTokens) => Promise<Kek>,
  ) => {
    let own: FakeGoogleTokens | undefined;
    trySourceAt(() => own?.[server], path, {
      name,
      waitingFor: who,
      async open(lifetime) {
        own ??= await openWorld();
        own.world.lifetime = lifetime === 'long' ? 3600 : 120;
        return create(own);
      },
    });
  };
  const service = (host: string) => new RegExp(`waiting for the token service ${host}`);
  served('a user', 'services', /token/, service('oauth2'), (own) => open(USER, {}, own));
  served('an impersonated account', 'services', /generate/, service('iamcredentials'), (own) =>
    open(impersonated(), {}, own),
  );
  served('a subject token in a file', 'services', /v1.token/, service('sts'), async (own) =>
    open(federated({ file: await subject() }), {}, own),
  );
  served('the metadata server', 'metadata', /token/, /waiting for the metadata server 127/, (own) =>
    open(undefined, machine(own), own),
  );
  served('its universe', 'metadata', /universe/, /waiting for the metadata server 127/, (own) =>
    open(undefined, machine(own), own),
  );

  let mood = '';
  trySource({
    name: 'an executable',
    not: ['throttled', 'unavailable'],
    met: () => untilEmpty(mood),
    async open() {
      mood = await write('', `mood-${files++}`);
      return open(await program(`. '${mood}'; echo '${answer()}'`), programs);
    },
    break(trouble, times) {
      const once = times === 'once' ? `: > '${mood}'; ` : '';
      return writeFile(mood, `${once}sleep ${trouble === 'slow' ? SLOW_MILLISECONDS / 1000 : 600}`);
    },
    mend: () => writeFile(mood, ''),
    waitingFor: /waiting for the executable of the Google credentials$/,
  });
});

describe('Google credentials that are set up wrong', () => {
  const rows: FaultRow[] = [];
  const metadataSays = (status: number, body: string) => {
    world.metadata.setFault(({ path }) => (path.endsWith('/token') ? { kind: 'answer', status, body } : undefined));
    return open(undefined, machine());
  };
  const faults: readonly CredentialFault[] = [
    {
      source: 'any',
      fault: 'there are none',
      code: 'unauthenticated',
      open: () => open(undefined, { METADATA_SERVER_DETECTION: 'none' }),
    },
    { source: 'file', fault: 'is something else', code: 'configuration', open: () => open('canary') },
    {
      source: 'user',
      fault: 'the login has ended',
      code: 'unauthenticated',
      open: () => open({ ...USER, refresh_token: 'canary' }),
    },
    {
      source: 'impersonation',
      fault: 'is not permitted',
      code: 'unauthenticated',
      open: () => open(impersonated(IMPERSONATION.replace('target', 'other'))),
    },
    {
      source: 'federation',
      fault: 'subject token file is missing',
      code: 'configuration',
      open: () => open(federated({ file: '/nowhere/token' })),
    },
    {
      source: 'federation',
      fault: 'subject token file is empty',
      code: 'configuration',
      open: async () => open(federated({ file: await write('', 'empty') })),
    },
    {
      source: 'federation',
      fault: 'the pool does not take the token',
      code: 'unauthenticated',
      open: async () => open(federated({ file: await write('canary', 'wrong') })),
    },
    {
      source: 'federation',
      fault: 'a client certificate',
      code: 'configuration',
      open: () => open(federated({ certificate: {} })),
    },
    {
      source: 'executable',
      fault: 'is not permitted',
      code: 'configuration',
      open: async () => open(await program('exit 0')),
    },
    {
      source: 'executable',
      fault: 'is not there',
      code: 'configuration',
      open: () => open(federated({ executable: { command: '/nowhere/at-all' } }), programs),
    },
    {
      source: 'executable',
      fault: 'fails',
      code: 'unauthenticated',
      open: async () => open(await program('echo canary >&2; exit 3'), programs),
    },
    {
      source: 'machine',
      fault: 'has no service account',
      code: 'unauthenticated',
      open() {
        world.world.machine = undefined;
        return open(undefined, machine());
      },
    },
    {
      source: 'machine',
      fault: 'fails in passing',
      code: 'unavailable',
      retryable: true,
      open: () => metadataSays(503, ''),
    },
    {
      source: 'machine',
      fault: 'another server answers',
      code: 'unauthenticated',
      open: () => metadataSays(200, '<html>canary</html>'),
    },
    {
      source: 'machine',
      fault: 'no answer in 1 s, and nothing says that it is Google’s',
      code: 'unauthenticated',
      retryable: true,
      open() {
        world.metadata.setFault(() => ({ kind: 'silent' }));
        return open(undefined, { ...machine(), METADATA_SERVER_DETECTION: 'ping-only' });
      },
    },
    {
      source: 'machine',
      fault: 'is in another universe',
      code: 'configuration',
      open() {
        world.world.universe = 'sovereign.example';
        return open(undefined, { ...machine(), GOOGLE_CLOUD_UNIVERSE_DOMAIN: 'googleapis.com' });
      },
    },
  ];
  for (const fault of faults) {
    test(`${fault.source}: ${fault.fault} is ${fault.code}`, async () => {
      try {
        const error = await readFault(fault);
        rows.push({ source: fault.source, fault: fault.fault, error });
        assert.doesNotMatch(`${error.message} ${error.hint}`, /canary|told|secret/, 'nothing that was not asked for');
      } finally {
        world.metadata.setFault(undefined);
        world.world.machine = 'machine@test';
        world.world.universe = undefined;
      }
    });
  }

  test('each says something of its own', () => {
    const lines = rows.map(({ error }) => error.message);
    assert.deepEqual(
      lines.filter((line, index) => lines.indexOf(line) !== index),
      [],
    );
  });

  test('the document has the table', async () => {
    const names = rows.map(({ error }) => /adc-\d+\.json/.exec(error.message)?.[0] ?? '').filter((name) => name !== '');
    const shown: [string, string][] = [
      [world.metadataHost, 'HOST'],
      [directory, '/PATH'],
    ];
    await compareFaultTable(
      DOCUMENT,
      rows,
      new Map([...shown, ...names.map((name): [string, string] => [name, 'FILE'])]),
    );
  });
});

test('the token of a machine in a sovereign cloud goes to that cloud, and to no other one', async () => {
  const own = await openWorld();
  own.world.universe = 'sovereign.example';
  await useOnce(await open(undefined, machine(own), own));
  assert.deepEqual([...new Set(own.proxied)], [`${SOVEREIGN}:443`]);
  own.metadata.setFault(({ path }) =>
    path.includes('universe') ? { kind: 'answer', status: 200, body: 'a/../b' } : undefined,
  );
  await code(useOnce(await open(undefined, machine(own), own)), 'unauthenticated');
  assert.deepEqual([...new Set(own.proxied)], [`${SOVEREIGN}:443`]);
});
