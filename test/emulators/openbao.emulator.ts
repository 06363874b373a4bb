// OpenBao itself: the conformance suite, its policies, namespaces, quotas, seal and logins. Needs Python, for its package.
import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SignJWT } from 'jose';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openHashiVault, type VaultSettings } from '../../src/kms/hashivault/key.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { startWireServer, type WireServer } from '../fakes/wire.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../fixtures/certificates.ts';
import { code, soon } from '../kms/expect.ts';
import { describeKek } from '../kms/kek-conformance.ts';
import { type OpenBao, startOpenBao } from './openbao.ts';
import { describeTransitEngine } from './transit-engine.ts';

let directory = '';
let bao: OpenBao;
let token = '';
const opened: Kek[] = [];
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'openbao-'));
  bao = await startOpenBao(directory);
  await bao.ask('POST', 'sys/mounts/transit', { type: 'transit' });
  token = await bao.createToken('all', { '*': ['create', 'read', 'update'] });
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await bao.close();
  await rm(directory, { recursive: true, force: true });
});

function open(key: string, { environment, ...more }: Partial<VaultSettings> = { environment: {} }): Kek {
  const uri = parseKeyUri(key);
  assert.ok(uri.scheme === 'hashivault');
  const kek = openHashiVault(uri, {
    environment: { BAO_ADDR: bao.address, BAO_CACERT: bao.caFile, BAO_TOKEN: token, ...environment },
    ...more,
  });
  opened.push(kek);
  return kek;
}

for (const [type, bindsContext, maximumBytes] of [
  ['aes256-gcm96', true, 4096],
  ['xchacha20-poly1305', true, 4096],
  ['rsa-2048', false, 190],
] as const) {
  const [first, second] = [`${type}-first`, `${type}-second`];
  const use = (...operations: readonly string[]) =>
    Object.fromEntries(operations.map((operation) => [`transit/${operation}/${type}-*`, ['update']]));
  describeKek(`OpenBao (${type})`, async () => {
    for (const name of [first, second]) await bao.ask('POST', `transit/keys/${name}`, { type });
    const BAO_TOKEN = await bao.createToken(type, use('encrypt', 'decrypt'));
    let restore: () => Promise<unknown> = async () => {};
    return {
      close() {},
      harness: {
        bindsContext,
        versions: 'enforced',
        maximumBytes,
        openFirst: () => open(`hashivault://${first}`, { environment: { BAO_TOKEN } }),
        openSecond: () => open(`openbao://${second}`, { environment: { BAO_TOKEN } }),
        secrets: () => [BAO_TOKEN],
        restore: async () => void (await restore()),
        rotate: async () => void (await bao.ask('POST', `transit/keys/${first}/rotate`)),
        async disable() {
          restore = () => bao.ask('POST', `transit/keys/${first}/soft-delete-restore`);
          await bao.ask('DELETE', `transit/keys/${first}/soft-delete`);
        },
        async remove() {
          restore = () => bao.ask('POST', `transit/keys/${first}`, { type });
          await bao.ask('POST', `transit/keys/${first}/config`, { deletion_allowed: true });
          await bao.ask('DELETE', `transit/keys/${first}`);
        },
        async deny(method) {
          restore = () => bao.setPolicy(type, use('encrypt', 'decrypt'));
          await bao.setPolicy(type, use(method === 'wrap' ? 'decrypt' : 'encrypt'));
        },
        async throttle() {
          restore = () => bao.ask('DELETE', 'sys/quotas/rate-limit/narrow');
          const quota = { path: 'transit', rate: 1, interval: '60s', block_interval: '60s' };
          await bao.ask('POST', 'sys/quotas/rate-limit/narrow', quota);
          while ((await bao.statusOf('GET', `transit/keys/${second}`)) !== 429);
        },
        async breakDown() {
          restore = () => bao.unseal();
          await bao.seal();
        },
        async hang() {
          restore = async () => bao.thaw();
          await bao.freeze();
        },
        // With "update" alone it answers alike for a key that is not there and one that may not be used.
        codes: { remove: ['not-found', 'refused'] },
      },
    };
  }, ['rotate', 'disable', 'remove', 'deny', 'throttle', 'breakDown', 'hang']);
}

describeTransitEngine("OpenBao's transit engine", {
  open: (key) => open(`openbao://${key}`),
  post: (path, body = {}) => bao.ask('POST', `transit/${path}`, body),
  keyStatus: (key) => bao.statusOf('GET', `transit/keys/${key}`),
});

describe('OpenBao', () => {
  test('has keys in other mounts and namespaces', async () => {
    await bao.ask('POST', 'sys/mounts/engines/images', { type: 'transit' });
    await bao.ask('POST', 'engines/images/keys/k');
    await roundTrip(open('hashivault://k?engine=engines/images'));
    await bao.ask('POST', 'sys/namespaces/team');
    await bao.ask('POST', 'team/sys/mounts/transit', { type: 'transit' });
    await bao.ask('POST', 'team/transit/keys/k');
    const wrapped = await open('hashivault://k?namespace=team').wrap(randomBytes(32), {}, soon());
    assert.equal(wrapped.key, 'hashivault://k?namespace=team');
    await roundTrip(open('hashivault://k', { environment: { BAO_NAMESPACE: 'team' } }));
    await code(open('hashivault://k').wrap(randomBytes(32), {}, soon()), 'not-found');
  });

  test('ends a token, and a certificate of another authority is not trusted', async () => {
    await bao.ask('POST', 'transit/keys/tokens');
    const BAO_TOKEN = await bao.createToken('tokens', { 'transit/encrypt/tokens': ['update'] });
    const kek = open('hashivault://tokens', { environment: { BAO_TOKEN } });
    await kek.wrap(randomBytes(32), {}, soon());
    await bao.ask('POST', 'auth/token/revoke', { token: BAO_TOKEN });
    await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    const stranger = open('hashivault://tokens', { environment: { BAO_CACERT: '' } });
    await code(stranger.wrap(randomBytes(32), {}, soon()), 'unavailable');
  });

  describe('takes a login', () => {
    const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const publicKey = pair.publicKey.export({ type: 'spki', format: 'pem' });
    const withoutToken = { BAO_TOKEN: '' };
    let authority: CertificateAuthority;
    let kubernetes: WireServer;
    before(async () => {
      authority = await createCertificateAuthority(directory, 'clients');
      await bao.ask('POST', 'transit/keys/images');
      await bao.setPolicy('images', {
        'transit/encrypt/images': ['update'],
        'transit/decrypt/images': ['update'],
      });
      // The cluster's part of the kubernetes login: it is asked whether it knows a service account's token.
      kubernetes = await startWireServer(reviewToken, { tls: await authority.issue('kubernetes') });
    });
    after(() => kubernetes.close());

    async function write(name: string, text: string): Promise<string> {
      const path = join(directory, name);
      await writeFile(path, `${text}\n`, { mode: 0o600 });
      return path;
    }
    const sign = (claims: Record<string, unknown>) =>
      new SignJWT(claims)
        .setProtectedHeader({ alg: 'RS256' })
        .setIssuedAt()
        .setExpirationTime('10m')
        .sign(pair.privateKey);
    async function logsIn(settings: Partial<VaultSettings>): Promise<void> {
      await roundTrip(open('hashivault://images', { environment: withoutToken, ...settings }));
    }
    async function isRefused(settings: Partial<VaultSettings>): Promise<void> {
      const kek = open('hashivault://images', { environment: withoutToken, ...settings });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    }

    test('by approle', async () => {
      await bao.ask('POST', 'sys/auth/approle', { type: 'approle' });
      await bao.ask('POST', 'auth/approle/role/nodes', { token_policies: 'images' });
      const { role_id: role } = await bao.ask('GET', 'auth/approle/role/nodes/role-id');
      const { secret_id: secret = '' } = await bao.ask('POST', 'auth/approle/role/nodes/secret-id');
      await logsIn({ login: 'approle', role, credentialsFile: await write('secret-id', secret) });
      await isRefused({ login: 'approle', role, credentialsFile: await write('no-secret-id', 'x') });
    });

    test('by jwt, mounted elsewhere', async () => {
      await bao.ask('POST', 'sys/auth/ci', { type: 'jwt' });
      await bao.ask('POST', 'auth/ci/config', { jwt_validation_pubkeys: [publicKey] });
      const role = { role_type: 'jwt', user_claim: 'sub', bound_audiences: ['images'], token_policies: ['images'] };
      await bao.ask('POST', 'auth/ci/role/builder', role);
      const login = { login: 'jwt', role: 'builder', loginPath: 'ci' } as const;
      const jwt = await sign({ sub: 'job', aud: 'images' });
      await logsIn({ ...login, credentialsFile: await write('job.jwt', jwt) });
      const other = await sign({ sub: 'job', aud: 'others' });
      await isRefused({ ...login, credentialsFile: await write('other.jwt', other) });
      await isRefused({ ...login, loginPath: 'jwt', credentialsFile: await write('job.jwt', jwt) });
    });

    test('by kubernetes', async () => {
      await bao.ask('POST', 'sys/auth/kubernetes', { type: 'kubernetes' });
      await bao.ask('POST', 'auth/kubernetes/config', {
        kubernetes_host: kubernetes.url,
        kubernetes_ca_cert: await readFile(authority.certificate, 'utf8'),
        disable_local_ca_jwt: true,
      });
      await bao.ask('POST', 'auth/kubernetes/role/node', {
        bound_service_account_names: ['decrypter'],
        bound_service_account_namespaces: ['images'],
        token_policies: ['images'],
      });
      for (const [name, isBound] of [
        ['decrypter', true],
        ['stranger', false],
      ] as const) {
        const serviceaccount = { name, uid: `uid-of-${name}` };
        const jwt = await sign({ 'kubernetes.io': { namespace: 'images', serviceaccount } });
        const settings = { login: 'kubernetes', role: 'node', credentialsFile: await write(name, jwt) } as const;
        await (isBound ? logsIn(settings) : isRefused(settings));
      }
    });

    test('by a certificate', async () => {
      await bao.ask('POST', 'sys/auth/cert', { type: 'cert' });
      await bao.ask('POST', 'auth/cert/certs/node', {
        certificate: await readFile(authority.certificate, 'utf8'),
        token_policies: ['images'],
      });
      for (const [issuer, isTrusted] of [
        [authority, true],
        [await createCertificateAuthority(directory, 'strangers'), false],
      ] as const) {
        const { certificate, privateKey } = await issuer.issue('node', { usage: 'client' });
        const environment = { ...withoutToken, BAO_CLIENT_CERT: certificate, BAO_CLIENT_KEY: privateKey };
        await (isTrusted ? logsIn : isRefused)({ login: 'cert', environment });
      }
    });
  });
});

/** Knows every service account whose token says so: who may log in is the server's business. */
function reviewToken({ body }: { readonly body: Uint8Array }) {
  const { spec } = JSON.parse(new TextDecoder().decode(body));
  const claims = JSON.parse(Buffer.from(String(spec.token).split('.')[1] ?? '', 'base64url').toString());
  const { namespace, serviceaccount } = claims['kubernetes.io'];
  const user = { username: `system:serviceaccount:${namespace}:${serviceaccount.name}`, uid: serviceaccount.uid };
  const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview' };
  return { status: 201, body: JSON.stringify({ ...review, status: { authenticated: true, user } }) };
}

async function roundTrip(kek: Kek): Promise<void> {
  const plaintext = randomBytes(32);
  const wrapped = await kek.wrap(plaintext, { a: '1' }, soon());
  assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, { a: '1' }, soon())), plaintext);
}
