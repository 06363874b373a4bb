// Vault and OpenBao: the conformance suite, the ways to a token, and every way in which an answer can be wrong.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ErrorCode } from '../../../src/base/errors.ts';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { openHashiVault, type VaultSettings } from '../../../src/kms/hashivault/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeVault, type Policy, startFakeVault } from '../../fakes/vault.ts';
import type { Fault } from '../../fakes/wire.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../fixtures/certificates.ts';
import { isCode } from '../../fixtures/codes.ts';
import { code, soon } from '../expect.ts';
import { describeKek } from '../kek-conformance.ts';
import { describeWrongAnswers, type WrongAnswer } from '../wrong-answers.ts';

const USE: Policy = { 'transit/*': ['update'], 'engines/transit-2/*': ['update'] };
const USE_AND_CREATE: Policy = { 'transit/*': ['create', 'update'] };

type World = {
  readonly directory: string;
  readonly authority: CertificateAuthority;
  readonly vault: FakeVault;
  readonly token: string;
  /** Opens a key with a token in the environment that may use every key. */
  readonly open: (key: string, more?: Partial<VaultSettings>, now?: () => number) => Kek;
  readonly write: (name: string, text: string) => Promise<string>;
  readonly close: () => Promise<void>;
};

async function startWorld(options: { readonly clientAuthority?: boolean } = {}): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'vault-'));
  const authority = await createCertificateAuthority(directory);
  const vault = await startFakeVault({
    tls: await authority.issue('server'),
    ...(options.clientAuthority ? { clientAuthority: authority.certificate } : {}),
  });
  for (const name of ['first', 'second']) vault.createKey(`transit/${name}`);
  const token = vault.createToken(USE);
  const opened: Kek[] = [];
  return {
    directory,
    authority,
    vault,
    token,
    open(key, more = {}, now) {
      const uri = parseKeyUri(key);
      assert.ok(uri.scheme === 'hashivault');
      const environment = { VAULT_ADDR: vault.address, VAULT_TOKEN: token, VAULT_CACERT: authority.certificate };
      const kek = openHashiVault(uri, { environment, ...more }, now);
      opened.push(kek);
      return kek;
    },
    async write(name, text) {
      const path = join(directory, name);
      await writeFile(path, text, { mode: 0o600 });
      return path;
    },
    async close() {
      for (const kek of opened) kek.close?.();
      await vault.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function errors(status: number, ...texts: readonly string[]): Fault {
  return { kind: 'answer', status, body: JSON.stringify({ errors: texts }) };
}

describeKek('Vault', async () => {
  const { vault, open, token, close } = await startWorld();
  const always = (fault: Fault) => () => vault.server.setFault(() => fault);
  return {
    close,
    harness: {
      bindsContext: true,
      versions: 'enforced',
      openFirst: () => open('hashivault://first'),
      openSecond: () => open('openbao://second'),
      secrets: () => [token],
      restore() {
        vault.server.setFault(undefined);
        vault.setDenied(undefined);
        vault.setDeleted('transit/first', false);
      },
      rotate: () => void vault.rotate('transit/first'),
      disable: () => vault.setDeleted('transit/first', true),
      remove: always(errors(400, 'encryption key not found')),
      deny: (method) => vault.setDenied(`transit/${method === 'wrap' ? 'encrypt' : 'decrypt'}/first`),
      throttle: always({
        kind: 'answer',
        status: 429,
        headers: { 'Retry-After': '7' },
        body: '{"errors":["request path \\"transit\\": rate limit quota exceeded"]}',
      }),
      breakDown: always(errors(503, 'Vault is sealed')),
      hang: always({ kind: 'silent' }),
      cutOff: always({ kind: 'truncated' }),
    },
  };
}, ['rotate', 'disable', 'remove', 'deny', 'throttle', 'breakDown', 'hang', 'cutOff']);

describeKek('Vault (RSA)', async () => {
  const { vault, open, token, close } = await startWorld();
  for (const name of ['rsa-1', 'rsa-2']) vault.createKey(`transit/${name}`, 'rsa-2048');
  return {
    close,
    harness: {
      bindsContext: false,
      versions: 'enforced',
      maximumBytes: 190,
      openFirst: () => open('hashivault://rsa-1'),
      openSecond: () => open('hashivault://rsa-2'),
      secrets: () => [token],
      rotate: () => void vault.rotate('transit/rsa-1'),
    },
  };
}, ['rotate']);

describe('Vault', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  test('never makes a key that is missing, whatever the token may do', async () => {
    const VAULT_TOKEN = world.vault.createToken(USE_AND_CREATE);
    const kek = world.open('hashivault://missing', { environment: { ...environmentOf(world), VAULT_TOKEN } });
    await code(kek.wrap(randomBytes(32), {}, soon()), 'not-found');
    assert.ok(!world.vault.hasKey('transit/missing'));
    await code(world.open('hashivault://missing').wrap(randomBytes(32), {}, soon()), 'refused');
    await roundTrip(world.open('hashivault://first', { environment: { ...environmentOf(world), VAULT_TOKEN } }));
  });

  test('names the version that wrapped, and refuses one that does not fit the bytes', async () => {
    const kek = world.open('hashivault://second');
    const one = await kek.wrap(randomBytes(32), {}, soon());
    world.vault.rotate('transit/second');
    const two = await kek.wrap(randomBytes(32), {}, soon());
    assert.deepEqual([one.version, two.version, one.key], ['1', '2', 'hashivault://second']);
    assert.match(Buffer.from(two.wrapped).toString(), /^vault:v2:/);
    await code(kek.unwrap({ ...one, version: '2' }, {}, soon()), 'integrity');
    world.vault.setMinimum('transit/second', 2);
    await code(kek.unwrap(one, {}, soon()), 'key-disabled');
    await kek.unwrap(two, {}, soon());
  });

  test('takes another mount and namespace from the URI, and the namespace of the environment', async () => {
    world.vault.createKey('engines/transit-2/k');
    world.vault.createKey('team-a/transit/k');
    await roundTrip(world.open('hashivault://k?engine=engines/transit-2'));
    await roundTrip(world.open('hashivault://k?namespace=team-a'));
    const environment = { ...environmentOf(world), VAULT_NAMESPACE: 'team-a' };
    await roundTrip(world.open('hashivault://k', { environment }));
    const kek = world.open('hashivault://k?engine=engines/transit-2&namespace=team-a');
    await code(kek.wrap(randomBytes(32), {}, soon()), 'refused');
  });

  test('wraps with an RSA key without a context, once its first answer has said so', async () => {
    world.vault.createKey('transit/rsa', 'rsa-2048');
    const kek = world.open('hashivault://rsa');
    const before = world.vault.server.requests.length;
    const plaintext = randomBytes(32);
    const wrapped = await kek.wrap(plaintext, { a: '1' }, soon());
    assert.equal(wrapped.algorithm, 'transit-rsa-oaep');
    assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, { a: '1' }, soon())), plaintext);
    assert.equal(world.vault.server.requests.length - before, 3);
    await code(kek.wrap(randomBytes(300), { a: '1' }, soon()), 'bad-input');
    const changed = wrapped.wrapped.map((byte, index) => (index === 40 ? (byte === 65 ? 66 : 65) : byte));
    await code(kek.unwrap({ ...wrapped, wrapped: changed }, { a: '1' }, soon()), 'integrity');
  });

  test('says what is wrong with a key that cannot encrypt', async () => {
    world.vault.createKey('transit/signer', 'ecdsa-p256');
    await code(world.open('hashivault://signer').wrap(randomBytes(32), {}, soon()), 'configuration');
  });

  test('works with a server that knows no associated data, whose context the packet alone binds', async () => {
    world.vault.isOld = true;
    try {
      await roundTrip(world.open('hashivault://first'));
    } finally {
      world.vault.isOld = false;
    }
  });

  describe('reads the environment of its own tools', () => {
    const refuses = (change: Record<string, string>, expected: ErrorCode = 'configuration') =>
      assert.throws(
        () => world.open('hashivault://first', { environment: { ...environmentOf(world), ...change } }),
        isCode(expected),
      );

    test('BAO_ before VAULT_, also where it is empty', async () => {
      const environment = { ...environmentOf(world), VAULT_ADDR: 'https://127.0.0.1:1', BAO_ADDR: world.vault.address };
      await roundTrip(world.open('hashivault://first', { environment }));
      refuses({ BAO_ADDR: '' });
    });

    test('and an error names the variable that counts, and shows no password of an address', () => {
      for (const [name, value] of [
        ['BAO_ADDR', 'https://user:swordfish@vault.test'],
        ['VAULT_ADDR', 'https://user:swordfish@vault.test'],
        ['BAO_AGENT_ADDR', 'nowhere'],
        ['VAULT_PROXY_ADDR', 'nowhere'],
        ['BAO_SKIP_VERIFY', '1'],
        ['BAO_CACERT_BYTES', 'x'],
      ] as const) {
        assert.throws(
          () => world.open('hashivault://first', { environment: { ...environmentOf(world), [name]: value } }),
          ({ message }: Error) => message.includes(name) && !message.includes('swordfish'),
          name,
        );
      }
    });

    test('an agent, which needs no token here', async () => {
      const environment = { VAULT_AGENT_ADDR: world.vault.address, VAULT_CACERT: world.authority.certificate };
      const kek = world.open('hashivault://first', { environment });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      assert.equal(world.vault.server.requests.at(-1), 'POST /v1/transit/encrypt/first');
    });

    test('VAULT_CAPATH and VAULT_TLS_SERVER_NAME', async () => {
      const { VAULT_CACERT: _, ...rest } = environmentOf(world);
      const environment = { ...rest, VAULT_CAPATH: world.directory, VAULT_TLS_SERVER_NAME: 'localhost' };
      await roundTrip(world.open('hashivault://first', { environment }));
      const kek = world.open('hashivault://first', {
        environment: { ...environment, VAULT_TLS_SERVER_NAME: 'vault.test' },
      });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unavailable');
    });

    test('and refuses what would make it unsafe or cannot be', () => {
      for (const value of ['1', 'true', 'yes', 'T', 'TRUE']) refuses({ VAULT_SKIP_VERIFY: value });
      for (const value of ['0', 'false', 'F']) {
        world.open('hashivault://first', { environment: { ...environmentOf(world), VAULT_SKIP_VERIFY: value } });
      }
      refuses({ VAULT_CACERT_BYTES: 'x' });
      refuses({ VAULT_CLIENT_CERT: '/x' });
      refuses({ VAULT_ADDR: '' });
      for (const address of ['vault', 'https://', 'https:///v1', 'https://u:p@vault.test', 'unix:///run/vault.sock']) {
        refuses({ VAULT_ADDR: address });
      }
    });

    test('and reads VAULT_CAPATH as its own clients: every file, in the directories below it too', async () => {
      const { VAULT_CACERT: authority, ...environment } = environmentOf(world);
      const below = join(world.directory, 'authorities', 'below');
      mkdirSync(below, { recursive: true });
      const kek = (directory: string) =>
        world.open('hashivault://first', { environment: { ...environment, VAULT_CAPATH: directory } });
      for (const [directory, problem] of [
        ['/nowhere', /does not exist/],
        [authority ?? '', /is not a directory/],
        [below, /no CA certificate is in/],
      ] as const) {
        await assert.rejects(kek(directory).wrap(randomBytes(32), {}, soon()), {
          code: 'configuration',
          message: problem,
        });
      }
      writeFileSync(join(below, 'without-a-suffix'), readFileSync(authority ?? ''));
      await roundTrip(kek(join(world.directory, 'authorities')));
    });

    test('and speaks to no other machine without TLS', async () => {
      const environment = { ...environmentOf(world), VAULT_ADDR: 'http://192.0.2.1:8200' };
      const kek = world.open('hashivault://first', { environment });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
    });
  });

  describe('gets a token', () => {
    const withoutToken = () => ({ VAULT_ADDR: world.vault.address, VAULT_CACERT: world.authority.certificate });

    test('from a named file, from BAO_TOKEN_PATH, from ~/.vault-token, and says where there is none', async () => {
      const file = await world.write('.vault-token', `${world.token}\n`);
      for (const more of [
        { credentialsFile: file, environment: withoutToken() },
        { environment: { ...withoutToken(), BAO_TOKEN_PATH: file } },
        { environment: { ...withoutToken(), HOME: world.directory } },
      ]) {
        await roundTrip(world.open('hashivault://first', more));
      }
      for (const environment of [withoutToken(), { ...withoutToken(), HOME: '/nowhere' }]) {
        await code(
          world.open('hashivault://first', { environment }).wrap(randomBytes(32), {}, soon()),
          'unauthenticated',
        );
      }
    });

    test('and reads its file again where the token was refused', async () => {
      const file = await world.write('renewed-token', 'hvs.old');
      const kek = world.open('hashivault://first', { credentialsFile: file, environment: withoutToken() });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      await world.write('renewed-token', world.token);
      await roundTrip(kek);
    });

    test('but none that is no token, and none that others can read', async () => {
      const two = await world.write('two-lines', `${world.token}\nx`);
      const kek = world.open('hashivault://first', { credentialsFile: two, environment: withoutToken() });
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.ok(!error.message.includes(world.token));
    });

    for (const [login, credentials, mount] of [
      ['kubernetes', { role: 'r', jwt: 'ey.service.account' }, 'kubernetes'],
      ['jwt', { role: 'r', jwt: 'ey.job' }, 'ci/jwt'],
      ['approle', { role_id: 'r', secret_id: 's-e-c-r-e-t' }, 'approle'],
    ] as const) {
      test(`by the ${login} login, once for many calls, and again when the token has ended`, async () => {
        const { vault } = world;
        vault.permitLogin(mount, credentials, USE, 600);
        const text = String(Object.values(credentials)[1]);
        const credentialsFile = await world.write(`${login}-credential`, `${text}\n`);
        let time = 0;
        const settings = { login, role: 'r', credentialsFile, environment: withoutToken() };
        const kek = world.open('hashivault://first', { ...settings, loginPath: mount }, () => time);
        const before = vault.logins;
        await Promise.all(Array.from({ length: 5 }, () => roundTrip(kek)));
        assert.equal(vault.logins - before, 1);
        time = 580_000;
        await roundTrip(kek);
        assert.equal(vault.logins - before, 2);
        vault.revokeLogins();
        time += 60_000;
        await roundTrip(kek);
        assert.equal(vault.logins - before, 3);
        const other = await world.write(`${login}-wrong`, 'wrong');
        const wrong = world.open('hashivault://first', { ...settings, loginPath: mount, credentialsFile: other });
        const error = await code(wrong.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
        assert.ok(!JSON.stringify([error.message, error.hint]).includes(text));
      });
    }

    test('and does not log in over and over where rights are missing', async () => {
      world.vault.permitLogin('kubernetes', { role: 'poor', jwt: 'ey.poor' }, {});
      const credentialsFile = await world.write('poor', 'ey.poor');
      const settings = { login: 'kubernetes', role: 'poor', credentialsFile, environment: withoutToken() } as const;
      const kek = world.open('hashivault://first', settings);
      const before = world.vault.logins;
      for (let call = 0; call < 3; call++) await code(kek.wrap(randomBytes(32), {}, soon()), 'refused');
      assert.equal(world.vault.logins - before, 1);
    });

    test('only where the login has all that it needs', () => {
      for (const more of [
        { login: 'kubernetes' },
        { login: 'jwt', role: 'r' },
        { login: 'approle', role: 'r' },
        { login: 'jwt', role: 'r', credentialsFile: '/x', loginPath: '../sys' },
      ] as const) {
        assert.throws(
          () => world.open('hashivault://first', { ...more, environment: withoutToken() }),
          isCode('configuration'),
        );
      }
    });

    test('retryable where the service takes no login now', async () => {
      const credentialsFile = await world.write('later', 'ey.later');
      const settings = { login: 'jwt', role: 'r', credentialsFile, environment: withoutToken() } as const;
      const kek = world.open('hashivault://first', settings);
      world.vault.server.faults.push(errors(503, 'Vault is sealed'));
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'unavailable');
      assert.equal(error.retryable, true);
    });
  });

  describe('and answers', () => {
    const data = (members: Readonly<Record<string, unknown>>): Fault => ({
      kind: 'body',
      change: (body) => JSON.stringify({ ...JSON.parse(body), data: members }),
    });
    const good = `vault:v1:${randomBytes(60).toString('base64')}`;
    const own: WrongAnswer[] = [
      ['no data', 'wrap', 'integrity', true, { kind: 'body', change: () => '{}' }],
      ['no JSON', 'wrap', 'unavailable', false, { kind: 'body', change: () => '<html>' }],
      ['no ciphertext', 'wrap', 'integrity', true, data({ key_version: 1 })],
      ['a ciphertext of another shape', 'wrap', 'integrity', true, data({ ciphertext: 'bao:v1:AAAA', key_version: 1 })],
      [
        'a ciphertext that is not base64',
        'wrap',
        'integrity',
        true,
        data({ ciphertext: 'vault:v1:A', key_version: 1 }),
      ],
      ['another version', 'wrap', 'integrity', true, data({ ciphertext: good, key_version: 2 })],
      ['no plaintext', 'unwrap', 'integrity', true, data({})],
      ['an empty plaintext', 'unwrap', 'integrity', true, data({ plaintext: '' })],
      ['a plaintext that is not base64', 'unwrap', 'integrity', true, data({ plaintext: 'A' })],
      ['a plaintext that is a number', 'unwrap', 'integrity', true, data({ plaintext: 7 })],
      ['a bad request of somebody else', 'wrap', 'unavailable', false, { kind: 'answer', status: 400, body: '<html>' }],
      ['no such mount', 'wrap', 'not-found', false, errors(404, 'no handler for route')],
      ['a server that lags behind', 'wrap', 'unavailable', true, errors(412, 'required index state not present')],
      ['a request that is too large', 'wrap', 'bad-input', false, errors(413)],
      ['a secondary of disaster recovery', 'unwrap', 'unavailable', true, errors(472)],
      ['a performance standby', 'unwrap', 'unavailable', true, errors(473)],
      ['a failure inside', 'unwrap', 'unavailable', true, errors(500, 'internal error')],
      ['a server that is not initialised', 'wrap', 'unavailable', false, errors(501)],
      ['a gateway without its server', 'wrap', 'unavailable', true, { kind: 'answer', status: 502, body: '' }],
      ['a standby that sends elsewhere', 'wrap', 'unavailable', false, { kind: 'answer', status: 307, body: '' }],
      ['a teapot', 'wrap', 'unavailable', false, { kind: 'answer', status: 418, body: '' }],
      ['a derived key', 'wrap', 'configuration', false, errors(400, "missing 'context' for key derivation")],
      ['a derived key in a packet', 'unwrap', 'refused', false, errors(400, "missing 'context' for key derivation")],
      ['a key of another type in a packet', 'unwrap', 'refused', false, errors(400, 'unsupported key type')],
    ];
    describeWrongAnswers(() => ({ kek: world.open('hashivault://first'), server: world.vault.server }), own);

    test('a sealed service works again once it is opened', async () => {
      const kek = world.open('hashivault://first');
      world.vault.sealed = true;
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'unavailable');
      assert.equal(error.retryable, true);
      world.vault.sealed = false;
      await roundTrip(kek);
    });
  });
});

describe('Vault with client certificates', () => {
  test('shows ours, logs in with it, and is not reached without', async () => {
    const world = await startWorld({ clientAuthority: true });
    try {
      const own = await world.authority.issue('client', { usage: 'client' });
      const environment = {
        ...environmentOf(world),
        VAULT_CLIENT_CERT: own.certificate,
        VAULT_CLIENT_KEY: own.privateKey,
      };
      await roundTrip(world.open('hashivault://first', { environment }));
      world.vault.permitLogin('cert', { name: 'node' }, USE);
      await roundTrip(world.open('hashivault://first', { environment, login: 'cert', role: 'node' }));
      await code(world.open('hashivault://first').wrap(randomBytes(32), {}, soon()), 'unavailable');
      const swapped = { ...environment, VAULT_CLIENT_KEY: own.certificate };
      const kek = world.open('hashivault://first', { environment: swapped });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
    } finally {
      await world.close();
    }
  });
});

function environmentOf(world: World): Record<string, string> {
  return { VAULT_ADDR: world.vault.address, VAULT_TOKEN: world.token, VAULT_CACERT: world.authority.certificate };
}

/** With a context of its own. */
async function roundTrip(kek: Kek): Promise<void> {
  const plaintext = randomBytes(32);
  const wrapped = await kek.wrap(plaintext, { 'ocicrypt-kms': 'v2' }, soon());
  assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, { 'ocicrypt-kms': 'v2' }, soon())), plaintext);
}
