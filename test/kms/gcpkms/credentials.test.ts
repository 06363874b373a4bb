// Every kind of Google credentials, against token services that check what they are sent.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type ErrorCode, OcicryptError } from '../../../src/base/errors.ts';
import { createHttpClient } from '../../../src/base/http/client.ts';
import { type GoogleCredentialsSettings, openGoogleCredentials } from '../../../src/kms/gcpkms/credentials.ts';
import { openGcpKms } from '../../../src/kms/gcpkms/key.ts';
import { GoogleIdentities, type ServiceAccountFile } from '../../fakes/google-identities.ts';
import { type FakeGoogleKms, startFakeGoogleKms } from '../../fakes/google-kms.ts';
import { type FakeGoogleTokens, GOOGLE_NAMES, startFakeGoogleTokens } from '../../fakes/google-tokens.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

const KEY = 'projects/test-project/locations/global/keyRings/ring/cryptoKeys/key';
const TARGET = 'target@test-project.iam.gserviceaccount.com';
const AUDIENCE = '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider';
const IMPERSONATION = `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${TARGET}:generateAccessToken`;

let directory: string;
let ca: string;
let account: ServiceAccountFile;
let kms: FakeGoogleKms;
let tokens: FakeGoogleTokens;
let files = 0;
const identities = new GoogleIdentities();

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'google-'));
  const authority = await createCertificateAuthority(directory);
  ca = authority.certificate;
  account = identities.createServiceAccount('source');
  const tls = await authority.issue('google', { names: [...GOOGLE_NAMES, 'cloudkms.example.cloud'] });
  kms = await startFakeGoogleKms(identities, { tls });
  kms.createKey(KEY);
  tokens = await startFakeGoogleTokens(identities, tls);
  tokens.routes.set('cloudkms.googleapis.com:443', kms.server.port);
  tokens.routes.set('cloudkms.example.cloud:443', kms.server.port);
  tokens.world.refreshTokens.set('refresh-secret', 'user@test');
  for (const name of ['file', 'url', 'executable'])
    tokens.world.subjectTokens.set(`subject-of-${name}`, `${name}-workload`);
  for (const source of ['user@test', account.client_email, 'file-workload', 'aws-role']) {
    tokens.world.impersonations.add(`${source} ${TARGET}`);
  }
});

afterEach(() => {
  tokens.services.setFault(undefined);
  tokens.metadata.setFault(undefined);
  tokens.world.machine = undefined;
  tokens.world.lifetime = 3600;
});

after(async () => {
  await Promise.all([kms.close(), tokens.close()]);
  await rm(directory, { recursive: true, force: true });
});

describe('a token comes', () => {
  test('from the key of a service account, without asking anybody', async () => {
    const before = tokens.services.requests.length;
    assert.equal(await whoami(await write(account)), account.client_email);
    assert.equal(tokens.services.requests.length, before);
  });
  test('from the refresh token of a user', async () => {
    assert.equal(await whoami(await write(USER)), 'user@test');
  });
  test('by impersonation with the credentials of a user, and of a service account', async () => {
    for (const source of [USER, account]) {
      const json = {
        type: 'impersonated_service_account',
        service_account_impersonation_url: IMPERSONATION,
        delegates: [],
        source_credentials: source,
      };
      assert.equal(await whoami(await write(json)), TARGET);
    }
  });
  test('by federation with a subject token in a file, with and without impersonation', async () => {
    const file = join(directory, 'subject');
    await writeFile(file, 'subject-of-file');
    const source = { file };
    assert.equal(await whoami(await write(federated(source))), 'file-workload');
    assert.equal(
      await whoami(await write({ ...federated(source), service_account_impersonation_url: IMPERSONATION })),
      TARGET,
    );
  });
  test('by federation with a subject token from a URL', async () => {
    const url = `${tokens.metadata.url}/subject-token`;
    const source = { url, headers: { 'X-Test': 'yes' }, format: { type: 'json', subject_token_field_name: 'value' } };
    assert.equal(await whoami(await write(federated(source))), 'url-workload');
  });
  test('by federation with a subject token from an executable, where that is permitted', async () => {
    const script = join(directory, 'executable.sh');
    const output = {
      version: 1,
      success: true,
      token_type: 'urn:ietf:params:oauth:token-type:jwt',
      id_token: 'subject-of-executable',
      expiration_time: Math.floor(Date.now() / 1000) + 3600,
    };
    const started = join(directory, 'started');
    const text = `#!/bin/sh\necho "$GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE $1" >> '${started}'\nsleep 0.7\necho '${JSON.stringify(output)}'\n`;
    await writeFile(script, text, { mode: 0o700 });
    const path = await write(federated({ executable: { command: `${script} "a b"`, timeout_millis: 5000 } }));
    await fails(authorize(path), 'configuration', /GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1/);
    const environment = { GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES: '1' };
    assert.equal(await whoami(path, environment), 'executable-workload');
    assert.match(await readFile(started, 'utf8'), /^\S+ a b\n$/, 'started once');
    for (const [words, expected] of [
      ['exit 3', 'unauthenticated'],
      ['echo junk', 'unauthenticated'],
      [`echo '{"version":1,"success":false,"code":"401","message":"canary"}'`, 'unauthenticated'],
    ] as const) {
      await writeFile(script, `#!/bin/sh\n${words}\n`, { mode: 0o700 });
      await fails(authorize(path, environment), expected, /by hand/);
    }
    const absent = await write(federated({ executable: { command: '/nowhere/at-all' } }));
    await fails(authorize(absent, environment), 'configuration', /whole path/);
    const impatient = await write(federated({ executable: { command: script, timeout_millis: 10 } }));
    await fails(authorize(impatient, environment), 'configuration', /timeout_millis/);
  });
  test('by federation and impersonation as a service account, whose lifetime the file says, through delegates', async () => {
    const file = join(directory, 'subject');
    await writeFile(file, JSON.stringify({ inner: 'subject-of-file' }));
    const source = { file, format: { type: 'json', subject_token_field_name: 'inner' } };
    const bodies: string[] = [];
    const seen: string[] = [];
    tokens.services.setFault(({ path, headers, body }) => {
      bodies.push(Buffer.from(body).toString());
      seen.push(`${path} ${headers.authorization?.split(' ')[0] ?? ''}`);
      return undefined;
    });
    const json = {
      ...federated(source),
      ...{ client_id: 'client', client_secret: 'word' },
      service_account_impersonation_url: IMPERSONATION,
      service_account_impersonation: { token_lifetime_seconds: 900 },
    };
    assert.equal(await whoami(await write(json)), TARGET);
    const delegates = ['projects/-/serviceAccounts/between@test'];
    const user = { type: 'impersonated_service_account', service_account_impersonation_url: IMPERSONATION };
    assert.equal(await whoami(await write({ ...user, delegates, source_credentials: USER })), TARGET);
    assert.deepEqual(
      seen.map((line) => line.replace(/^.*[/:]/, '')),
      ['token Basic', 'generateAccessToken Bearer', 'token ', 'generateAccessToken Bearer'],
    );
    const [exchange = '', first = '', , second = ''] = bodies;
    assert.deepEqual(Object.fromEntries(new URLSearchParams(exchange)), {
      audience: AUDIENCE,
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      scope: 'https://www.googleapis.com/auth/cloud-platform',
      subject_token: 'subject-of-file',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    });
    const scope = ['https://www.googleapis.com/auth/cloud-platform'];
    assert.deepEqual(JSON.parse(first), { scope, lifetime: '900s' });
    assert.deepEqual(JSON.parse(second), { delegates, scope, lifetime: '3600s' });
  });
  test('from the file as it is now, when another token is needed', async () => {
    const path = await write({ ...USER, refresh_token: 'refresh-revoked' });
    const credentials = await open(path);
    await fails(credentials.headers(soon()), 'unauthenticated');
    await writeFile(path, JSON.stringify(USER));
    assert.match((await credentials.headers(soon())).authorization ?? '', /^Bearer /);
    credentials.forget();
    await writeFile(path, 'garbage');
    await fails(credentials.headers(soon()), 'configuration');
  });
  test('by federation with the role of an AWS instance', async () => {
    const { url } = tokens.metadata;
    const json = {
      ...federated({
        environment_id: 'aws1',
        region_url: `${url}/latest/meta-data/placement/availability-zone`,
        url: `${url}/latest/meta-data/iam/security-credentials`,
        imdsv2_session_token_url: `${url}/latest/api/token`,
        regional_cred_verification_url:
          'https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15',
      }),
      subject_token_type: 'urn:ietf:params:aws:token-type:aws4_request',
      service_account_impersonation_url: IMPERSONATION,
    };
    assert.equal(await whoami(await write(json)), TARGET);
  });
  test('from the metadata server of the machine', async () => {
    tokens.world.machine = 'machine@test';
    const environment = { GCE_METADATA_HOST: tokens.metadataHost };
    assert.equal(await whoami(undefined, environment), 'machine@test');
    assert.equal(await whoami(undefined, { ...environment, METADATA_SERVER_DETECTION: 'ping-only' }), 'machine@test');
    assert.equal(
      await whoami(undefined, { ...environment, METADATA_SERVER_DETECTION: 'assume-present' }),
      'machine@test',
    );
  });
});

describe('credentials are found', () => {
  test('in --adc before GOOGLE_APPLICATION_CREDENTIALS before the file of gcloud before the metadata server', async () => {
    tokens.world.machine = 'machine@test';
    const config = join(directory, 'gcloud');
    const home = join(directory, 'home');
    for (const place of [config, join(home, '.config', 'gcloud')]) {
      await mkdir(place, { recursive: true });
      const path = join(place, 'application_default_credentials.json');
      await writeFile(path, JSON.stringify(USER), { mode: 0o600 });
    }
    const other = await write(identities.createServiceAccount('other'));
    const own = await write(account);
    const machine = { GCE_METADATA_HOST: tokens.metadataHost };
    const all = { ...machine, GOOGLE_APPLICATION_CREDENTIALS: other, CLOUDSDK_CONFIG: config, HOME: home };
    assert.equal(await whoami(own, all), account.client_email);
    assert.equal(await whoami(undefined, all), 'other@test-project.iam.gserviceaccount.com');
    assert.equal(await whoami(undefined, { ...machine, CLOUDSDK_CONFIG: config }), 'user@test');
    assert.equal(await whoami(undefined, { ...machine, HOME: home }), 'user@test');
    assert.equal(await whoami(undefined, { ...machine, CLOUDSDK_CONFIG: directory, HOME: home }), 'machine@test');
  });
  test('without a change of the environment', async () => {
    const saved = { ...process.env };
    await whoami(await write(account));
    assert.deepEqual({ ...process.env }, saved);
  });
  test('nowhere, and the error says where they could be', async () => {
    const error = await fails(
      authorize(undefined, { METADATA_SERVER_DETECTION: 'none' }),
      'unauthenticated',
      /gcpkms\.credentialsFile FILE/,
    );
    assert.match(error.hint ?? '', /GOOGLE_APPLICATION_CREDENTIALS/);
    tokens.metadata.setFault(() => ({ kind: 'silent' }));
    const host = { GCE_METADATA_HOST: tokens.metadataHost, METADATA_SERVER_DETECTION: 'ping-only' };
    await fails(authorize(undefined, host), 'unauthenticated', /gcpkms\.credentialsFile FILE/);
    tokens.metadata.setFault(undefined);
    await fails(authorize(undefined, { GCE_METADATA_HOST: tokens.metadataHost }), 'unauthenticated', /attach one/);
  });
});

describe('a file of credentials is refused', () => {
  test('where it is missing, open to others, no file, garbage, or of no use', async () => {
    await fails(authorize(join(directory, 'missing')), 'not-found', /gcpkms\.credentialsFile FILE/);
    await fails(authorize(directory), 'configuration');
    for (const content of ['', 'garbage', '[]', '"x"', '{}', '{"type":5}', '{"type":"service_account"}', '\u0000']) {
      const path = join(directory, `garbage-${files++}`);
      await writeFile(path, content, { mode: 0o600 });
      await fails(authorize(path), 'configuration');
    }
    for (const json of [
      { type: 'gdch_service_account' },
      { ...account, private_key: 'no key' },
      { ...account, private_key: account.private_key.slice(0, 300) },
      { ...account, client_email: undefined },
      { type: 'authorized_user' },
      { type: 'external_account' },
      { ...federated({ certificate: { use_default_certificate_config: true } }) },
      { ...federated({}) },
      { type: 'impersonated_service_account', service_account_impersonation_url: IMPERSONATION },
      {
        type: 'impersonated_service_account',
        service_account_impersonation_url: 'https://x/',
        source_credentials: USER,
      },
    ]) {
      await fails(authorize(await write(json)), 'configuration');
    }
  });
  test('where others can read its secret, with the chmod; federation without a secret may be open', async () => {
    for (const json of [account, USER]) {
      const path = await write(json);
      await chmod(path, 0o644);
      await fails(authorize(path), 'configuration', new RegExp(`chmod 600 ${path}`));
    }
    const file = join(directory, 'subject');
    await writeFile(file, 'subject-of-file');
    const path = await write(federated({ file }));
    await chmod(path, 0o644);
    assert.equal(await whoami(path), 'file-workload');
  });
});

describe('a token service', () => {
  const refused: [string, () => Promise<string>][] = [
    ['a refresh token that was revoked', () => write({ ...USER, refresh_token: 'refresh-revoked' })],
    [
      'a subject token of nobody',
      () => write(federated({ url: `${tokens.metadata.url}/latest/meta-data/placement/availability-zone` })),
    ],
    [
      'an impersonation that is not permitted',
      () =>
        write({
          type: 'impersonated_service_account',
          service_account_impersonation_url: IMPERSONATION.replace('target', 'stranger'),
          source_credentials: USER,
        }),
    ],
  ];
  for (const [what, file] of refused) {
    test(`refuses ${what}: unauthenticated, with a hint`, async () => {
      const error = await fails(authorize(await file()), 'unauthenticated');
      assert.equal(error.retryable, false);
      assert.ok(error.hint !== undefined);
    });
  }
  test('that is out of order is worth a retry, and is asked once only', async () => {
    for (const [fault, code] of [
      [{ kind: 'answer', status: 503, body: '{}', headers: { 'Retry-After': '3' } }, 'unavailable'],
      [{ kind: 'answer', status: 429, body: '{}' }, 'unavailable'],
      [{ kind: 'truncated' }, 'unavailable'],
      [{ kind: 'reset-before-headers' }, 'unavailable'],
    ] as const) {
      tokens.services.setFault(() => fault);
      const before = tokens.services.requests.length;
      const error = await fails(authorize(await write(USER)), code);
      assert.equal(error.retryable, true);
      assert.equal(tokens.services.requests.length, before + 1);
    }
  });
  test('that sends nonsense gives no token', async () => {
    for (const body of ['', '{}', '[]', '<html>', '{"access_token":null}', '{"access_token":""}']) {
      tokens.services.setFault(() => ({ kind: 'answer', status: 200, body }));
      await fails(authorize(await write(USER)), 'unauthenticated');
    }
    tokens.metadata.setFault(() => ({ kind: 'answer', status: 200, body: '{"access_token":"a b","expires_in":1}' }));
    await fails(authorize(undefined, { GCE_METADATA_HOST: tokens.metadataHost }), 'unauthenticated');
  });
  test('that redirects is not followed', async () => {
    tokens.services.setFault(() => ({
      kind: 'answer',
      status: 307,
      headers: { Location: 'https://sts.googleapis.com/' },
      body: '',
    }));
    const before = tokens.services.requests.length;
    await fails(authorize(await write(USER)), 'unavailable');
    assert.equal(tokens.services.requests.length, before + 1);
  });
  test('that does not answer ends with the signal, at once, and is forgotten', async () => {
    const credentials = await open(await write(USER));
    tokens.services.setFault(() => ({ kind: 'silent' }));
    const start = performance.now();
    await fails(credentials.headers(AbortSignal.timeout(60)), 'deadline-exceeded');
    assert.ok(performance.now() - start < 1000);
    tokens.services.setFault(undefined);
    await credentials.headers(soon());
  });
  test('is asked once by many callers, and not again while the token lives', async () => {
    const credentials = await open(await write(USER));
    const before = tokens.services.requests.length;
    await Promise.all(Array.from({ length: 20 }, () => credentials.headers(soon())));
    await credentials.headers(soon());
    assert.equal(tokens.services.requests.length, before + 1);
    credentials.forget();
    await credentials.headers(soon());
    assert.equal(tokens.services.requests.length, before + 2);
  });
  test('goes on for those who still wait when one caller gives up', async () => {
    const credentials = await open(await write(USER));
    tokens.services.faults.push({ kind: 'latency', milliseconds: 150 });
    const patient = credentials.headers(soon());
    await fails(credentials.headers(AbortSignal.timeout(20)), 'deadline-exceeded');
    assert.match((await patient).authorization ?? '', /^Bearer /);
  });
  test('is asked again when a token is about to end', async () => {
    tokens.world.lifetime = 60;
    tokens.world.machine = 'machine@test';
    for (const credentials of [
      await open(await write(USER)),
      await open(undefined, { GCE_METADATA_HOST: tokens.metadataHost }),
    ]) {
      const [one, two] = [await credentials.headers(soon()), await credentials.headers(soon())];
      assert.notEqual(one.authorization, two.authorization);
    }
  });
});

describe('with Google KMS, everything together', () => {
  test('goes through the proxy to the default endpoint, with a token for each kind of file', async () => {
    for (const json of [account, USER]) {
      const kek = openGcpKms(
        { scheme: 'gcpkms', key: KEY },
        {
          credentialsFile: await write(json),
          caFiles: [ca],
          environment: { HTTPS_PROXY: tokens.proxy },
        },
      );
      const plaintext = randomBytes(32);
      const wrapped = await kek.wrap(plaintext, { a: 'b' }, soon());
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, { a: 'b' }, soon())), plaintext);
      kek.close?.();
    }
    assert.ok(tokens.proxied.includes('cloudkms.googleapis.com:443'));
    assert.ok(tokens.proxied.includes('oauth2.googleapis.com:443'));
  });
  test('takes a new token when the service no longer takes the old one', async () => {
    const kek = openGcpKms(
      { scheme: 'gcpkms', key: KEY },
      {
        credentialsFile: await write(USER),
        caFiles: [ca],
        environment: { HTTPS_PROXY: tokens.proxy },
      },
    );
    await kek.wrap(randomBytes(32), {}, soon());
    identities.revokeTokens();
    await kek.wrap(randomBytes(32), {}, soon());
    kek.close?.();
  });
  test('uses the universe of the credentials, and never the credentials of another', async () => {
    const json = { ...account, universe_domain: 'example.cloud' };
    const settings = { credentialsFile: await write(json), caFiles: [ca], environment: { HTTPS_PROXY: tokens.proxy } };
    const kek = openGcpKms({ scheme: 'gcpkms', key: KEY }, settings);
    await kek.wrap(randomBytes(32), {}, soon());
    assert.ok(tokens.proxied.includes('cloudkms.example.cloud:443'));
    const other = openGcpKms({ scheme: 'gcpkms', key: KEY }, { ...settings, universeDomain: 'other.cloud' });
    await fails(other.wrap(randomBytes(32), {}, soon()), 'configuration');
  });
  test('names the quota project: of the operator, else of the environment, else of the file', async () => {
    const path = await write({ ...account, quota_project_id: 'of-file' });
    const quota = async (more: Partial<GoogleCredentialsSettings>) =>
      (await (await open(path, more.environment, more)).headers(soon()))['x-goog-user-project'];
    const environment = { GOOGLE_CLOUD_QUOTA_PROJECT: 'of-environment' };
    assert.equal(await quota({ quotaProject: 'of-operator', environment }), 'of-operator');
    assert.equal(await quota({ environment }), 'of-environment');
    assert.equal(await quota({}), 'of-file');
    assert.equal((await (await open(await write(account))).headers(soon()))['x-goog-user-project'], undefined);
  });
});

const USER = {
  type: 'authorized_user',
  client_id: 'client-id',
  client_secret: 'client-secret',
  refresh_token: 'refresh-secret',
};

function federated(source: object) {
  return {
    type: 'external_account',
    audience: AUDIENCE,
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    token_url: 'https://sts.googleapis.com/v1/token',
    credential_source: source,
  };
}

async function write(json: object): Promise<string> {
  const path = join(directory, `credentials-${files++}.json`);
  await writeFile(path, JSON.stringify(json), { mode: 0o600 });
  return path;
}

function open(
  credentialsFile: string | undefined,
  environment: NodeJS.ProcessEnv = {},
  more: Partial<GoogleCredentialsSettings> = {},
) {
  const settings = { HTTPS_PROXY: tokens.proxy, ...environment };
  const http = createHttpClient({ caFiles: [ca], environment: settings });
  return openGoogleCredentials({ ...more, credentialsFile, environment: settings, http });
}

async function authorize(path: string | undefined, environment?: NodeJS.ProcessEnv): Promise<string> {
  return (await (await open(path, environment)).headers(soon())).authorization ?? '';
}

async function whoami(path: string | undefined, environment?: NodeJS.ProcessEnv): Promise<string | undefined> {
  return identities.identify(await authorize(path, environment));
}

async function fails(work: Promise<unknown>, code: ErrorCode, hint?: RegExp): Promise<OcicryptError> {
  const error = await work.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OcicryptError, inspect(error));
  assert.equal(error.code, code, `${error.message} (${error.hint})`);
  if (hint !== undefined) assert.match(error.hint ?? '', hint);
  const shown = [error.message, error.hint, inspect(error, { depth: 12, showHidden: true })].join('\n');
  for (const secret of [
    'refresh-secret',
    'client-secret',
    'A secret told',
    'PRIVATE KEY',
    account.private_key.slice(60, 120),
    'ya29.',
    'subject-of-',
  ]) {
    assert.ok(!shown.includes(secret), `an error holds ${secret}: ${shown}`);
  }
  return error;
}

function soon(): AbortSignal {
  return AbortSignal.timeout(20_000);
}
