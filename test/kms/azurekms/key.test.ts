// Azure Key Vault and Managed HSM: the conformance suite for each kind of key, identities, and every wrong answer.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { openAzureKms } from '../../../src/kms/azurekms/key.ts';
import type { AzureKmsSettings } from '../../../src/kms/azurekms/vault.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeAzureVault, type KeyOptions, startFakeAzureVault } from '../../fakes/azure-key-vault.ts';
import type { Fault } from '../../fakes/wire.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { code, soon } from '../expect.ts';
import { assertForgery } from '../forgery.ts';
import { describeKek, type KekHarness } from '../kek-conformance.ts';
import { describeWrongAnswers, type WrongAnswer } from '../wrong-answers.ts';

type World = {
  readonly directory: string;
  readonly vault: FakeAzureVault;
  readonly environment: NodeJS.ProcessEnv;
  readonly open: (key: string, more?: Partial<AzureKmsSettings>, now?: () => number) => Kek;
  readonly close: () => Promise<void>;
};

async function startWorld(host = 'testvault.vault.azure.net'): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'azurekms-'));
  const authority = await createCertificateAuthority(directory);
  const vault = await startFakeAzureVault({ tls: await authority.issue('server'), host });
  const environment = {
    AZURE_TENANT_ID: vault.tenant,
    AZURE_CLIENT_ID: vault.client.id,
    AZURE_CLIENT_SECRET: vault.client.secret,
    AZURE_AUTHORITY_HOST: vault.endpoint,
  };
  const opened: Kek[] = [];
  return {
    directory,
    vault,
    environment,
    open(key, more = {}, now) {
      const uri = parseKeyUri(key.includes(':') ? key : `azurekms://${host}/${key}`);
      assert.ok(uri.scheme === 'azurekms');
      const caFiles = [authority.certificate];
      const kek = openAzureKms(uri, { endpoint: vault.endpoint, caFiles, environment, ...more }, now);
      opened.push(kek);
      return kek;
    },
    async close() {
      for (const kek of opened) kek.close?.();
      await vault.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function harnessOf({ vault, open }: World, options: KeyOptions): KekHarness {
  vault.createKey('first', options);
  vault.createKey('second', options);
  const always = (fault: Fault) => () => vault.server.setFault(() => fault);
  const wraps = options.type === 'RSA' ? 'wrapKey' : 'encrypt';
  return {
    bindsContext: false,
    versions: 'enforced in the key',
    openFirst: () => open('first'),
    openSecond: () => open('second'),
    secrets: () => [vault.client.secret, 'eyJ0.', 'Bearer'],
    restore() {
      vault.server.setFault(undefined);
      vault.permit();
      vault.setEnabled('first', true);
    },
    rotate: () => vault.rotate('first'),
    disable: () => vault.setEnabled('first', false),
    remove: always(refusal(404, 'KeyNotFound')),
    deny: (method) => (method === 'wrap' ? vault.deny('get', 'wrapKey', wraps) : vault.deny('unwrapKey', 'decrypt')),
    throttle: always({ ...refusal(429, 'Throttled'), headers: { 'Retry-After': '7' } }),
    breakDown: always(refusal(503, 'ServiceUnavailable')),
    hang: always({ kind: 'silent' }),
    cutOff: always({ kind: 'truncated' }),
    answerOfOther: always({ kind: 'body', change: (body) => body.replace('keys/first', 'keys/second') }),
  };
}

const TROUBLES = [
  'rotate',
  'disable',
  'remove',
  'deny',
  'throttle',
  'breakDown',
  'hang',
  'cutOff',
  'answerOfOther',
] as const;

describeKek(
  'Azure Key Vault',
  async () => {
    const world = await startWorld();
    return { close: world.close, harness: { ...harnessOf(world, { type: 'RSA' }), maximumBytes: 190 } };
  },
  TROUBLES,
);

describeKek(
  'Azure Managed HSM, AES-GCM',
  async () => {
    const world = await startWorld('testhsm.managedhsm.azure.net');
    return { close: world.close, harness: { ...harnessOf(world, { type: 'oct-HSM' }), bindsContext: true } };
  },
  TROUBLES,
);

describe('Azure Key Vault', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
    world.vault.createKey('image', { type: 'RSA' });
  });
  after(() => world.close());

  test('wraps here, after one request for the public half, and once for an entry with a version', async () => {
    const kek = world.open('image');
    const before = world.vault.server.requests.length;
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    assert.match(wrapped.key, /^azurekms:\/\/testvault\.vault\.azure\.net\/image\/[0-9a-f]{32}$/);
    assert.deepEqual([wrapped.algorithm, wrapped.wrapped.length, wrapped.version], ['RSA-OAEP-256', 256, undefined]);
    assert.equal(world.vault.server.requests.length, before + 2, 'a token and the key');
    const exact = world.open(wrapped.key.toUpperCase().replace('AZUREKMS', 'azurekms'));
    for (let call = 0; call < 3; call++) assert.equal((await exact.wrap(randomBytes(32), {}, soon())).key, wrapped.key);
    assert.equal(world.vault.server.requests.length, before + 4);
    await exact.unwrap(wrapped, {}, soon());
  });

  test('asks the service to wrap where it may not read the key', async () => {
    world.vault.deny('get');
    const plaintext = randomBytes(32);
    const kek = world.open('image');
    const wrapped = await kek.wrap(plaintext, {}, soon());
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
    world.vault.permit();
  });

  test('unwraps with the version that wrapped, and an entry with a version with that only', async () => {
    world.vault.createKey('turning', { type: 'RSA' });
    const kek = world.open('turning');
    const old = await kek.wrap(randomBytes(32), {}, soon());
    world.vault.rotate('turning');
    const now = await kek.wrap(randomBytes(32), {}, soon());
    const pinned = world.open(now.key);
    await pinned.unwrap(now, {}, soon());
    await code(pinned.unwrap(old, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...old, key: now.key }, {}, soon()), 'integrity');
    const unknown = { ...old, key: old.key.replace(/[0-9a-f]{32}$/, '0'.repeat(32)) };
    await code(kek.unwrap(unknown, {}, soon()), 'not-found');
    await code(kek.unwrap({ ...old, key: old.key.replace('testvault', 'other') }, {}, soon()), 'integrity');
  });

  test('wraps multiples of eight bytes with an AES key that may only wrap keys', async () => {
    world.vault.createKey('wrapping', { type: 'oct-HSM', operations: ['wrapKey', 'unwrapKey'] });
    const kek = world.open('wrapping');
    const plaintext = randomBytes(32);
    const wrapped = await kek.wrap(plaintext, {}, soon());
    assert.deepEqual([wrapped.algorithm, wrapped.wrapped.length], ['A256KW', 40]);
    await assertForgery(kek, false);
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
    await code(kek.wrap(randomBytes(33), {}, soon()), 'bad-input');
    const changed = wrapped.wrapped.map((byte, index) => (index === 9 ? byte ^ 1 : byte));
    await code(kek.unwrap({ ...wrapped, wrapped: changed }, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...wrapped, algorithm: 'A256GCM' }, {}, soon()), 'refused');
  });

  describe('looks, before each wrap, at what the vault would look at', () => {
    const day = 86_400_000;
    const key = async (options: KeyOptions, name: string, more: Partial<AzureKmsSettings> = {}) => {
      world.vault.createKey(name, options);
      const kek = world.open(name, more);
      return { kek, wrapped: await kek.wrap(randomBytes(32), {}, soon()) };
    };

    for (const type of ['RSA', 'oct-HSM'] as const) {
      test(`the dates of a key of type ${type}, which do not matter when unwrapping`, async () => {
        const { kek, wrapped } = await key({ type }, `dates-${type.toLowerCase()}`);
        for (const [dates, hint] of [
          [{ until: Date.now() - day }, /--expires/],
          [{ from: Date.now() + day }, /--not-before/],
        ] as const) {
          world.vault.setDates(`dates-${type.toLowerCase()}`, dates);
          const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'key-disabled');
          assert.match(error.hint ?? '', hint);
          assert.match(error.message, /\(20\d\d-/);
          await kek.unwrap(wrapped, {}, soon());
        }
        world.vault.setDates(`dates-${type.toLowerCase()}`, { from: Date.now() - day, until: Date.now() + day });
        await kek.wrap(randomBytes(32), {}, soon());
      });
    }

    test('those of an entry with a version, also while it is not fetched again', async () => {
      world.vault.createKey('pinned', { type: 'RSA' });
      world.vault.setDates('pinned', { until: Date.now() + 1000 * day });
      const { key: name } = await world.open('pinned').wrap(randomBytes(32), {}, soon());
      let time = Date.now();
      const kek = world.open(name, {}, () => time);
      await kek.wrap(randomBytes(32), {}, soon());
      const before = world.vault.server.requests.length;
      await kek.wrap(randomBytes(32), {}, soon());
      assert.equal(world.vault.server.requests.length, before);
      world.vault.setEnabled('pinned', false);
      time += 301_000;
      await code(kek.wrap(randomBytes(32), {}, soon()), 'key-disabled');
      world.vault.setEnabled('pinned', true);
      await kek.wrap(randomBytes(32), {}, soon());
      time += 1001 * day;
      await code(kek.wrap(randomBytes(32), {}, soon()), 'key-disabled');
    });

    test('whether the key permits it; that it permits no unwrapping is said once', async () => {
      const warnings: string[] = [];
      world.vault.createKey('signs', { type: 'RSA', operations: ['unwrapKey'] });
      const error = await code(world.open('signs').wrap(randomBytes(32), {}, soon()), 'refused');
      assert.match(error.hint ?? '', /set-attributes .*--ops wrapKey/);
      const warn = (line: string) => warnings.push(line);
      const { kek, wrapped } = await key({ type: 'RSA', operations: ['wrapKey'] }, 'one-way', { warn });
      await kek.wrap(randomBytes(32), {}, soon());
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? '', /one-way permits wrapKey and not unwrapKey/);
      await code(kek.unwrap(wrapped, {}, soon()), 'refused');
    });

    test('whether it was deleted, and can be recovered', async () => {
      const { kek, wrapped } = await key({ type: 'RSA' }, 'lost');
      world.vault.deleteKey('lost');
      for (const call of [kek.wrap(randomBytes(32), {}, soon()), kek.unwrap(wrapped, {}, soon())]) {
        assert.match((await code(call, 'not-found')).hint ?? '', /az keyvault key recover/);
      }
      world.vault.recoverKey('lost');
      await kek.unwrap(wrapped, {}, soon());
    });
  });

  test('is told by a service that knows no such version of its API', async () => {
    const kek = world.open('image');
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    world.vault.apiVersions = ['7.0', '7.1'];
    for (const call of [kek.wrap(randomBytes(32), {}, soon()), kek.unwrap(wrapped, {}, soon())]) {
      assert.match((await code(call, 'configuration')).message, /version of its API/);
    }
    world.vault.apiVersions = ['7.4', '7.5'];
  });

  test('sends tokens to no host but those of Azure', async () => {
    const before = world.vault.server.requests.length;
    for (const host of [
      'vault.azure.net.evil.test',
      'evilvault.azure.net',
      'a.b.vault.azure.net',
      'vault.azure.net',
      'vault.evil.test',
    ]) {
      assert.throws(() => world.open(`azurekms://${host}/image`), { code: 'configuration' });
    }
    for (const host of ['a.vault.azure.cn', 'a.vault.usgovcloudapi.net', 'a.managedhsm.azure.net', 'short']) {
      world.open(`azurekms://${host}/image`);
    }
    world.open('azurekms://a.vault.private.test/image', { domain: 'vault.private.test' });
    assert.throws(() => world.open('azurekms://a.b.vault.private.test/image', { domain: 'vault.private.test' }));
    assert.equal(world.vault.server.requests.length, before);
  });

  test('asks for a token of the audience of its host', async () => {
    await code(
      world.open('azurekms://a.managedhsm.azure.net/image').wrap(randomBytes(32), {}, soon()),
      'unauthenticated',
    );
  });

  describe('is asked as', () => {
    test('a workload of Kubernetes, whose token is read anew', async () => {
      const file = join(world.directory, 'token');
      const { AZURE_CLIENT_SECRET: _, ...rest } = world.environment;
      const environment = { ...rest, AZURE_FEDERATED_TOKEN_FILE: file };
      await code(world.open('image', { environment }).wrap(randomBytes(32), {}, soon()), 'configuration');
      await writeFile(file, 'not a token');
      await code(world.open('image', { environment }).wrap(randomBytes(32), {}, soon()), 'configuration');
      await writeFile(file, 'a.b.c');
      const error = await code(
        world.open('image', { environment }).wrap(randomBytes(32), {}, soon()),
        'unauthenticated',
      );
      assert.match(error.message, /AADSTS700213/);
      await writeFile(file, `${world.vault.assertion}\n`);
      await world.open('image', { environment }).wrap(randomBytes(32), {}, soon());
    });

    test('nobody, where a secret is wrong or a variable is missing, and never as somebody else', async () => {
      for (const [change, expected] of [
        [{ AZURE_CLIENT_SECRET: 'wrong' }, 'unauthenticated'],
        [{ AZURE_TENANT_ID: '' }, 'configuration'],
        [{ AZURE_TENANT_ID: '../evil' }, 'configuration'],
        [{ AZURE_CLIENT_ID: '' }, 'configuration'],
        [{ AZURE_TOKEN_CREDENTIALS: 'everything' }, 'configuration'],
        [{ AZURE_TOKEN_CREDENTIALS: 'WorkloadIdentityCredential' }, 'configuration'],
        [{ AZURE_TOKEN_CREDENTIALS: 'EnvironmentCredential', AZURE_CLIENT_SECRET: '' }, 'configuration'],
      ] as const) {
        const environment = { ...world.environment, ...change };
        await code(world.open('image', { environment }).wrap(randomBytes(32), {}, soon()), expected);
      }
    });

    test('an identity with a new token, once, where the service does not take the old one', async () => {
      const kek = world.open('image');
      await kek.wrap(randomBytes(32), {}, soon());
      const before = world.vault.server.requests.length;
      world.vault.revokeTokens();
      await kek.wrap(randomBytes(32), {}, soon());
      assert.equal(world.vault.server.requests.length, before + 3);
      const unauthenticated = refusal(401, 'Unauthorized');
      const token = { kind: 'latency', milliseconds: 0 } as const;
      world.vault.server.faults.push(unauthenticated, token, unauthenticated);
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    });
  });

  describe('checks the challenge of a refusal', () => {
    const challenge = (text: string): Fault[] => {
      const fault = { ...refusal(401, 'Unauthorized'), headers: { 'WWW-Authenticate': `Bearer ${text}` } };
      return [{ kind: 'latency', milliseconds: 0 }, fault, { kind: 'latency', milliseconds: 0 }, fault];
    };
    test('that names the tenant', async () => {
      world.vault.server.faults.push(
        ...challenge(
          'authorization="https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555", resource="https://vault.azure.net"',
        ),
      );
      const error = await code(world.open('image').wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      assert.match(error.hint ?? '', /tenant 99999999-2222-3333-4444-555555555555/);
    });
    test('that asks for a token of something else', async () => {
      world.vault.server.faults.push(
        ...challenge('authorization="https://evil.test/x", resource="https://management.azure.com"'),
      );
      const error = await code(world.open('image').wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      assert.ok(!`${error.message}${error.hint}`.includes('evil'));
    });
  });

  describe('and answers', () => {
    const replace = (from: string | RegExp, to: string): Fault => ({
      kind: 'body',
      change: (b) => b.replace(from, to),
    });
    const own: WrongAnswer[] = [
      ['no modulus', 'wrap', 'integrity', true, replace('"n":', '"m":')],
      ['a short modulus', 'wrap', 'integrity', true, replace(/"n":"[^"]*"/, '"n":"AQAB"')],
      ['a curve', 'wrap', 'configuration', false, replace('"kty":"RSA"', '"kty":"EC"')],
      ['a disabled key', 'wrap', 'key-disabled', false, replace('"enabled":true', '"enabled":false')],
      ['no plaintext', 'unwrap', 'integrity', true, replace('"value"', '"other"')],
      ['a plaintext that is not base64url', 'unwrap', 'integrity', true, replace(/"value":"./, '"value":"+')],
      ['a padded plaintext', 'unwrap', 'integrity', true, replace(/"value":"([^"]*)"/, '"value":"$1="')],
    ];
    for (const method of ['wrap', 'unwrap'] as const) {
      own.push(
        ['no id', method, 'integrity', true, replace('"kid"', '"id"')],
        ['an id without version', method, 'integrity', true, replace(/image\/[0-9a-f]{32}/, 'image')],
        ['an id of another vault', method, 'integrity', true, replace('testvault', 'other')],
        ['an id of another key', method, 'integrity', true, replace('keys/image', 'keys/image2')],
        ['an id in clear', method, 'integrity', true, replace('"kid":"https', '"kid":"http')],
      );
    }
    const start = () => ({ kek: world.open('image'), server: world.vault.server });
    describeWrongAnswers(start, own, { wrapsByGet: true });
  });

  describe('explains a refusal', () => {
    for (const [status, inner, expected, hint] of [
      [403, 'ForbiddenByRbac', 'refused', /az role assignment create .*Crypto Service Encryption User/],
      [403, 'ForbiddenByPolicy', 'refused', /az keyvault set-policy --vault-name testvault/],
      [403, 'ForbiddenByFirewall', 'refused', /network-rule/],
      [403, 'KeyDisabled', 'key-disabled', /az keyvault key show --vault-name testvault --name image/],
      [403, 'KeyOperationForbidden', 'refused', /set-attributes/],
      [403, 'KeyExpired', 'key-disabled', /--expires/],
      [403, 'KeyNotYetValid', 'key-disabled', /--not-before/],
      [404, 'KeyNotFound', 'not-found', /list-versions.*az keyvault key recover --vault-name testvault --name image/],
      [409, 'ObjectIsDeletedButRecoverable', 'key-disabled', /recover/],
      [400, 'BadParameter', 'integrity', /^$/],
    ] as const) {
      test(`${status} ${inner}`, async () => {
        const kek = world.open('image');
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        world.vault.server.faults.push(refusal(status, 'Forbidden', inner));
        const error = await code(kek.unwrap(wrapped, {}, soon()), expected);
        assert.match(error.hint ?? '', hint);
        assert.ok(!`${error.message}${error.hint}`.includes('told'));
        assert.equal(error.retryable, false);
      });
    }
    test('of a managed HSM, which has roles of its own', async () => {
      const hsm = await startWorld('testhsm.managedhsm.azure.net');
      hsm.vault.createKey('image', { type: 'oct-HSM' });
      hsm.vault.deny('encrypt');
      const error = await code(hsm.open('image').wrap(randomBytes(32), {}, soon()), 'refused');
      assert.match(
        error.hint ?? '',
        /az keyvault role assignment create --hsm-name testhsm --role "Managed HSM Crypto User"/,
      );
      await hsm.close();
    });
  });
});

function refusal(status: number, code: string, inner?: string) {
  const error = { code, message: 'told', ...(inner === undefined ? {} : { innererror: { code: inner } }) };
  return { kind: 'answer', status, body: JSON.stringify({ error }) } as const;
}
