// hvac, Vault's client for Python, at the fake Vault and at OpenBao itself, beside ours: both servers say the same. Needs Python.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openHashiVault } from '../../src/kms/hashivault/key.ts';
import { contextBytes, type Kek } from '../../src/kms/kek.ts';
import { startFakeVault } from '../fakes/vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { soon } from '../kms/expect.ts';
import { startVendorClient, textOf, type VendorClient } from '../peers/vendors.ts';
import { startOpenBao } from './openbao.ts';

const CONTEXT = { 'ocicrypt-kms': 'v2', 'label.naïve': 'ü"' };
const POLICY = Object.fromEntries(
  ['encrypt', 'decrypt', 'rewrap'].map((method) => [`transit/${method}/*`, ['update']] as const),
);
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

/** What an administrator does at either server. */
type Server = {
  readonly address: string;
  readonly ca: string;
  readonly token: string;
  readonly stranger: string;
  readonly createKey: (name: string, type: 'aes256-gcm96' | 'rsa-2048') => unknown;
  readonly rotate: (name: string) => unknown;
  readonly setMinimum: (name: string, version: number) => unknown;
  readonly softDelete: (name: string) => unknown;
  readonly role: { readonly role_id: string; readonly secret_id: string };
  readonly close: () => Promise<void>;
};

async function startFake(directory: string): Promise<Server> {
  const authority = await createCertificateAuthority(directory);
  const vault = await startFakeVault({ tls: await authority.issue('vault') });
  const role = { role_id: 'role', secret_id: 'secret' };
  vault.permitLogin('approle', role, POLICY);
  return {
    address: vault.address,
    ca: authority.certificate,
    token: vault.createToken(POLICY),
    stranger: vault.createToken({ 'transit/encrypt/none': ['update'] }),
    createKey: (name, type) => vault.createKey(`transit/${name}`, type),
    rotate: (name) => vault.rotate(`transit/${name}`),
    setMinimum: (name, version) => vault.setMinimum(`transit/${name}`, version),
    softDelete: (name) => vault.setDeleted(`transit/${name}`, true),
    role,
    close: () => vault.close(),
  };
}

async function startReal(directory: string): Promise<Server> {
  const bao = await startOpenBao(directory);
  await bao.ask('POST', 'sys/mounts/transit', { type: 'transit' });
  await bao.ask('POST', 'sys/auth/approle', { type: 'approle' });
  const token = await bao.createToken('images', POLICY);
  await bao.ask('POST', 'auth/approle/role/nodes', { token_policies: 'images' });
  const { role_id = '' } = await bao.ask('GET', 'auth/approle/role/nodes/role-id');
  const { secret_id = '' } = await bao.ask('POST', 'auth/approle/role/nodes/secret-id');
  return {
    address: bao.address,
    ca: bao.caFile,
    token,
    stranger: await bao.createToken('stranger', { 'transit/encrypt/none': ['update'] }),
    createKey: (name, type) => bao.ask('POST', `transit/keys/${name}`, { type }),
    rotate: (name) => bao.ask('POST', `transit/keys/${name}/rotate`),
    setMinimum: (name, min_decryption_version) =>
      bao.ask('POST', `transit/keys/${name}/config`, { min_decryption_version }),
    softDelete: (name) => bao.ask('DELETE', `transit/keys/${name}/soft-delete`),
    role: { role_id, secret_id },
    close: () => bao.close(),
  };
}

let directory: string;
let hvac: VendorClient;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hvac-'));
  hvac = await startVendorClient('vault', {});
});
after(async () => {
  await hvac.close();
  await rm(directory, { recursive: true, force: true });
});

const call = (method: string, parameters: object) => hvac.ask('call', { method, parameters });

/** By server: what hvac raised, in words, by what was wrong. */
const refusals: Record<string, unknown>[] = [];

for (const [where, start] of [
  ['the fake', startFake],
  ['OpenBao', startReal],
] as const) {
  describe(`hvac and ours, at ${where}`, () => {
    let server: Server;
    const opened: Kek[] = [];
    const connect = (token: string) => hvac.ask('open', { address: server.address, ca: server.ca, token });
    before(async () => {
      server = await start(directory);
      await connect(server.token);
    });
    after(async () => {
      for (const kek of opened) kek.close?.();
      await server.close();
    });
    function open(name: string): Kek {
      const uri = parseKeyUri(`hashivault://${name}`);
      assert.ok(uri.scheme === 'hashivault');
      const environment = { VAULT_ADDR: server.address, VAULT_CACERT: server.ca, VAULT_TOKEN: server.token };
      const kek = openHashiVault(uri, { environment });
      opened.push(kek);
      return kek;
    }

    for (const [type, associated] of [
      ['aes256-gcm96', { associated_data: base64(contextBytes(CONTEXT)) }],
      ['rsa-2048', {}],
    ] as const) {
      test(`unwrap what the other has wrapped with ${type}, also with a version before the newest`, async () => {
        const name = `images-${type}`;
        await server.createKey(name, type);
        const kek = open(name);
        const plaintext = randomBytes(32);
        for (const version of [1, 2]) {
          const ours = await kek.wrap(plaintext, CONTEXT, soon());
          const theirs = await call('encrypt_data', { name, plaintext: base64(plaintext), ...associated });
          const ciphertext = textOf(theirs, 'ciphertext');
          assert.match(ciphertext, new RegExp(`^vault:v${version}:`));
          if (version === 1) await server.rotate(name);
          const answer = await call('decrypt_data', {
            name,
            ciphertext: Buffer.from(ours.wrapped).toString(),
            ...associated,
          });
          assert.equal(textOf(answer, 'plaintext'), base64(plaintext));
          const wrapped = Buffer.from(ciphertext);
          assert.deepEqual(Buffer.from(await kek.unwrap({ ...ours, wrapped }, CONTEXT, soon())), plaintext);
        }
      });
    }

    test('log in', async () => {
      await server.createKey('login', 'aes256-gcm96');
      await hvac.ask('login', { kind: 'approle', parameters: server.role });
      await call('encrypt_data', { name: 'login', plaintext: 'AA==' });
    });

    test('are refused alike', async () => {
      const said: Record<string, unknown> = {};
      const note = async (what: string, work: Promise<unknown>) => {
        const error = await work.then(
          () => assert.fail(`${what} is not refused`),
          (reason: unknown) => reason,
        );
        assert.ok(error instanceof Error);
        said[what] = `${error.name}: ${error.message.replace(/, on post https:.*$/s, '')}`;
      };
      await connect(server.token);
      for (const name of ['first', 'second', 'deleted']) await server.createKey(name, 'aes256-gcm96');
      await server.createKey('pair', 'rsa-2048');
      const bound = { name: 'first', plaintext: 'AA==', associated_data: 'QQ==' };
      const ciphertext = textOf(await call('encrypt_data', bound), 'ciphertext');
      const opening = (parameters: object) =>
        call('decrypt_data', { ...bound, plaintext: undefined, ciphertext, ...parameters });
      await note('another key', opening({ name: 'second' }));
      await note('other associated data', opening({ associated_data: 'Qg==' }));
      await note('no associated data', opening({ associated_data: undefined }));
      await note('no ciphertext', opening({ ciphertext: 'x' }));
      await note('a version that is not there', opening({ ciphertext: ciphertext.replace(':v1:', ':v9:') }));
      await note('no key', opening({ name: 'missing' }));
      await note('associated data for RSA', call('encrypt_data', { ...bound, name: 'pair' }));
      await server.rotate('first');
      await server.setMinimum('first', 2);
      await note('a version below the minimum', opening({}));
      await server.softDelete('deleted');
      await note('a deleted key', call('encrypt_data', { ...bound, name: 'deleted' }));
      await note('no engine', opening({ mount_point: 'missing' }));
      await note(
        'no secret id',
        hvac.ask('login', { kind: 'approle', parameters: { ...server.role, secret_id: 'x' } }),
      );
      await connect(server.stranger);
      await note('a policy without the key', opening({}));
      await connect('hvs.unknown');
      await note('an unknown token', opening({}));
      refusals.push(said);
      await connect(server.token);
    });

    if (where === 'OpenBao') {
      test('unwrap what hvac has wrapped in a batch, or wrapped again for the newest version', async () => {
        const name = 'batch';
        await server.createKey(name, 'aes256-gcm96');
        const kek = open(name);
        const { key, algorithm, wrapped: ours } = await kek.wrap(Buffer.from('ours'), {}, soon());
        const batch_input = ['one', 'two'].map((text) => ({ plaintext: base64(Buffer.from(text)) }));
        const { batch_results } = Object(await call('encrypt_data', { name, batch_input }));
        assert.ok(Array.isArray(batch_results));
        await server.rotate(name);
        const again = await call('rewrap_data', { name, ciphertext: Buffer.from(ours).toString() });
        assert.match(textOf(again, 'ciphertext'), /^vault:v2:/);
        for (const [text, result] of [
          ['one', batch_results[0]],
          ['two', batch_results[1]],
          ['ours', again],
        ] as const) {
          const wrapped = Buffer.from(textOf(result, 'ciphertext'));
          assert.equal(Buffer.from(await kek.unwrap({ key, algorithm, wrapped }, {}, soon())).toString(), text);
        }
      });
    }
  });
}

test('the fake refuses in the words of OpenBao', () => {
  const [fake, real] = refusals;

  assert.deepEqual(fake, real);
});
