// Every token is kept in the one cache: renewed ahead, once for all callers, used to its end if no other can be had, and
// aged by a clock that is never set.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { OcicryptError } from '../../src/base/errors.ts';
import type { HttpClient, HttpResponse } from '../../src/base/http/contract.ts';
import { openAwsCredentials } from '../../src/kms/awskms/credentials.ts';
import { openAzureCredentials } from '../../src/kms/azurekms/credentials.ts';
import { openLibraryCredentials } from '../../src/kms/gcpkms/library-tokens.ts';
import { openMetadataServer } from '../../src/kms/gcpkms/metadata.ts';
import { openServiceAccount } from '../../src/kms/gcpkms/service-account.ts';
import { openTokens } from '../../src/kms/gcpkms/tokens.ts';
import { openVaultTokens } from '../../src/kms/hashivault/tokens.ts';
import { TokenCache } from '../../src/kms/token-cache.ts';

const KMS = fileURLToPath(new URL('../../src/kms', import.meta.url));
const LIFETIME_SECONDS = 3600;
const DAY = 24 * 3600 * 1000;
const MINUTE = 60 * 1000;

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'token-cache-'));
});
after(() => rm(directory, { recursive: true, force: true }));

/** Where tokens come from: each answer has another one. */
class Source {
  asked = 0;
  isBroken = false;

  readonly #message: Service['message'];

  constructor(message: Service['message']) {
    this.#message = message;
  }

  answer = async (): Promise<HttpResponse> => {
    this.asked++;
    if (this.isBroken) throw new OcicryptError('unavailable', 'no answer', { retryable: true });
    const end = new Date(Date.now() + LIFETIME_SECONDS * 1000);
    const body = new TextEncoder().encode(JSON.stringify(this.#message(`token-${this.asked}`, end)));
    return { status: 200, headers: { 'content-type': 'application/json' }, body };
  };

  get http(): HttpClient {
    return { request: this.answer, close() {} };
  }
}

type Service = {
  readonly file: string;
  readonly message: (token: string, end: Date) => unknown;
  readonly open: (source: Source, now: () => number) => Promise<(signal: AbortSignal) => Promise<unknown>>;
  /** Of one that makes its tokens itself. */
  readonly asksNobody?: true;
};

const bearer = (token: string) => ({ access_token: token, expires_in: LIFETIME_SECONDS, token_type: 'Bearer' });
const none = () => assert.fail('nobody is asked');

async function writeUser() {
  const json = { type: 'authorized_user', client_id: 'id', client_secret: 'secret', refresh_token: 'refresh' };
  const path = join(directory, 'adc.json');
  await writeFile(path, JSON.stringify(json), { mode: 0o600 });
  return { path, json };
}

const SERVICES: readonly Service[] = [
  {
    file: 'gcpkms/metadata.ts',
    message: bearer,
    async open({ http }, now) {
      const { tokens } = openMetadataServer(http, { GCE_METADATA_HOST: 'metadata' }, now);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'gcpkms/service-account.ts',
    message: none,
    asksNobody: true,
    async open(_, now) {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
      const tokens = openServiceAccount({ type: 'service_account', client_email: 'a@b', private_key: pem }, now);
      assert.ok(tokens !== undefined);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'gcpkms/tokens.ts',
    message: bearer,
    async open({ http }, now) {
      const { path, json } = await writeUser();
      const tokens = await openTokens(path, json, http, {}, now);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'gcpkms/library-tokens.ts',
    message: bearer,
    async open({ http }, now) {
      const { path, json } = await writeUser();
      const tokens = openLibraryCredentials(path, json, http, {}, now);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'awskms/credentials.ts',
    message: (token, end) => ({
      AccessKeyId: 'AKID',
      SecretAccessKey: 's',
      Token: token,
      Expiration: end.toISOString(),
    }),
    async open({ http }, now) {
      const environment = { HOME: directory, AWS_CONTAINER_CREDENTIALS_FULL_URI: 'http://127.0.0.1/role' };
      const tokens = openAwsCredentials(environment, http, 'eu-west-1', now);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'azurekms/credentials.ts',
    message: bearer,
    async open({ http }, now) {
      const environment = { AZURE_TENANT_ID: 't', AZURE_CLIENT_ID: 'c', AZURE_CLIENT_SECRET: 's' };
      const host = 'vault.vault.azure.net';
      const place = {
        isManagedHsm: false,
        host,
        endpoint: `https://${host}`,
        audience: 'https://vault.azure.net',
        authority: 'https://login',
      };
      const tokens = openAzureCredentials(place, environment, http, now);
      return (signal) => tokens.read(signal);
    },
  },
  {
    file: 'hashivault/tokens.ts',
    message: (token) => ({ auth: { client_token: token, lease_duration: LIFETIME_SECONDS } }),
    async open({ answer }, now) {
      const connection = { namespace: undefined, viaAgent: false, send: answer, close() {} };
      const credentialsFile = join(directory, 'jwt');
      await writeFile(credentialsFile, 'jwt', { mode: 0o600 });
      const settings = { login: 'jwt' as const, role: 'role', credentialsFile, environment: {} };
      const tokens = openVaultTokens(connection, settings, now);
      return (signal) => tokens.current(signal);
    },
  },
];

describe('tokens', () => {
  for (const { file, message, open, asksNobody = false } of SERVICES) {
    test(`of ${file} live and end whatever the time of day does`, async (t) => {
      const today = Date.now();
      t.mock.timers.enable({ apis: ['Date'], now: today });
      let clock = 0;
      const source = new Source(message);
      const readNow = await open(source, () => clock);
      const read = () => readNow(AbortSignal.timeout(10_000));

      const first = await read();
      const together = await Promise.all([read(), read(), read()]);
      assert.deepEqual(together, [first, first, first]);
      for (const jump of [DAY, -DAY]) {
        t.mock.timers.setTime(today + jump);
        assert.deepEqual(await read(), first, 'a live one is kept');
      }
      assert.equal(source.asked, asksNobody ? 0 : 1);

      clock = LIFETIME_SECONDS * 1000 - MINUTE;
      source.isBroken = true;
      if (!asksNobody) assert.deepEqual(await read(), first, 'what cannot be renewed is used to its end');
      source.isBroken = false;
      const before = source.asked;
      const renewed = await Promise.all([read(), read(), read()]);
      assert.notDeepEqual(renewed[0], first, 'it is renewed ahead of its end');
      assert.deepEqual(renewed, [renewed[0], renewed[0], renewed[0]]);
      assert.equal(source.asked - before, asksNobody ? 0 : 1, 'once for all callers');

      source.isBroken = true;
      clock += LIFETIME_SECONDS * 1000 + 1;
      t.mock.timers.setTime(today - 2 * DAY);
      if (asksNobody) assert.notDeepEqual(await read(), renewed[0], 'one that has ended is never used');
      else await assert.rejects(read(), { code: 'unavailable' });
    });
  }

  test('are renewed at the moment of renewal, and not used at that of their end', async () => {
    let [now, asked, isBroken] = [0, 0, false];
    const cache = new TokenCache(
      async () => {
        if (isBroken) throw new OcicryptError('unavailable', 'no answer');
        return { token: ++asked, lifetime: 1000, reserve: 100 };
      },
      () => now,
    );
    const read = () => cache.read(new AbortController().signal);
    const at = async (time: number) => {
      now = time;
      return read();
    };
    assert.deepEqual([await at(0), await at(899), await at(900), await at(1799)], [1, 1, 2, 2]);
    isBroken = true;
    assert.equal(await at(1899), 2);
    await assert.rejects(at(1900), { code: 'unavailable' });
  });

  test('are kept in no other way', () => {
    const text = (file: string) => readFileSync(join(KMS, file), 'utf8');
    const files = globSync('**/*.ts', { cwd: KMS }).sort();
    const caches = files.filter((file) => text(file).includes('new TokenCache('));
    assert.deepEqual(caches, SERVICES.map(({ file }) => file).sort(), 'each cache is tried here');
    const shared = files.filter((file) => /import \{[^}]*\bshare\b[^}]*\} from/.test(text(file)));
    assert.deepEqual(shared, ['token-cache.ts']);
  });
});
