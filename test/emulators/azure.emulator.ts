// Microsoft's client, credentials and models of messages at the fake Azure Key Vault, beside ours. Needs Python.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAzureKms } from '../../src/kms/azurekms/key.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { type FakeAzureAgents, startFakeAzureAgents } from '../fakes/azure-agents.ts';
import { type FakeAzureVault, startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { startProxy } from '../fixtures/proxy.ts';
import { soon } from '../kms/expect.ts';
import { bytesOf, startVendorClient, textOf, type VendorClient } from '../peers/vendors.ts';

const HOST = 'testvault.vault.azure.net';
const AUTHORITY = 'login.microsoftonline.com';
const VERSION = '7.4';
const RSA = 'RSA-OAEP-256';

let directory: string;
let ca: string;
let proxy: string;
let vault: FakeAzureVault;
let agents: FakeAzureAgents;
let microsoft: VendorClient;
const opened: Kek[] = [];
const exchanges: object[] = [];
const ours = new Set<string>();
const ends: (() => void)[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'azure-'));
  const authority = await createCertificateAuthority(directory);
  ca = authority.certificate;
  vault = await startFakeAzureVault({ tls: await authority.issue('azure', { names: [HOST, AUTHORITY] }), host: HOST });
  vault.server.setFault(({ method, path, headers, body }) => ({
    kind: 'body',
    change(answer) {
      if (!path.startsWith('/keys/') || headers.authorization === undefined) return answer;
      const request = Buffer.from(body).toString();
      const message = request === '' ? null : JSON.parse(request);
      exchanges.push({ verb: method, target: path, body: message, answer: JSON.parse(answer) });
      if (headers['user-agent']?.includes('azsdk-python') !== true) ours.add(method);
      return answer;
    },
  }));
  const { port } = vault.server;
  proxy = await startProxy(
    { after: (end) => void ends.push(end) },
    { [`${HOST}:443`]: port, [`${AUTHORITY}:443`]: port },
  );
  agents = await startFakeAzureAgents(directory, vault.issue);
  const { imds } = agents.environments;
  microsoft = await startVendorClient('azure', { HTTPS_PROXY: proxy, REQUESTS_CA_BUNDLE: ca, ...imds });
  await connect('secret', { ...named(), client_secret: vault.client.secret });
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await Promise.all([microsoft.close(), vault.close(), agents.close()]);
  for (const end of ends) end();
  await rm(directory, { recursive: true, force: true });
});

const named = () => ({ tenant_id: vault.tenant, client_id: vault.client.id });
const connect = (kind: 'machine' | 'secret' | 'workload', parameters: object) =>
  microsoft.ask('open', { kind, parameters, version: VERSION });
const read = (name: string) => microsoft.ask('read', { vault: `https://${HOST}`, name });
const operate = (operation: string, id: string, value: Uint8Array) =>
  microsoft.ask('operate', { operation, id, algorithm: RSA, value: Buffer.from(value).toString('base64') });
/** The id by which Microsoft knows what wrapped. */
const idOf = (key: string) => key.replace(/^azurekms:\/\/([^/]+)\//, 'https://$1/keys/');

function open(name: string): Kek {
  const uri = parseKeyUri(`azurekms://${HOST}/${name}`);
  assert.ok(uri.scheme === 'azurekms');
  const kek = openAzureKms(uri, {
    caFiles: [ca],
    environment: {
      HTTPS_PROXY: proxy,
      AZURE_TENANT_ID: vault.tenant,
      AZURE_CLIENT_ID: vault.client.id,
      AZURE_CLIENT_SECRET: vault.client.secret,
    },
  });
  opened.push(kek);
  return kek;
}

describe("Microsoft's client and ours, at one fake", () => {
  test('unwrap what the other has wrapped, also with a version before the newest', async () => {
    vault.createKey('images', { type: 'RSA', bits: 3072 });
    const kek = open('images');
    const plaintext = randomBytes(32);
    const first = await kek.wrap(plaintext, {}, soon());
    assert.equal(await read('images'), idOf(first.key));
    vault.rotate('images');
    const newest = await read('images');
    assert.ok(typeof newest === 'string' && newest !== idOf(first.key));
    assert.deepEqual(bytesOf(await operate('unwrap_key', idOf(first.key), first.wrapped), 'bytes'), plaintext);
    const answer = await operate('wrap_key', newest, plaintext);
    assert.equal(textOf(answer, 'id'), newest);
    const packet = {
      ...first,
      key: newest.replace(/^https:(.*)\/keys\//, 'azurekms:$1/'),
      wrapped: bytesOf(answer, 'bytes'),
    };
    assert.deepEqual(Buffer.from(await kek.unwrap(packet, {}, soon())), plaintext);
    await assert.rejects(operate('unwrap_key', newest, first.wrapped), { name: 'HttpResponseError', status_code: 400 });
    await assert.rejects(kek.unwrap({ ...packet, wrapped: first.wrapped }, {}, soon()), { code: 'integrity' });
  });

  test('are refused alike', async () => {
    vault.createKey('off', { type: 'RSA' });
    const packet = await open('off').wrap(randomBytes(32), {}, soon());
    const both = async (code: string, theirs: object) => {
      await assert.rejects(open('off').unwrap(packet, {}, soon()), { code });
      await assert.rejects(operate('unwrap_key', idOf(packet.key), packet.wrapped), theirs);
    };
    vault.setEnabled('off', false);
    await both('key-disabled', { status_code: 403, message: /KeyDisabled/ });
    vault.setEnabled('off', true);
    vault.deny('unwrapKey');
    await both('refused', { status_code: 403, message: /ForbiddenByRbac/ });
    vault.permit();
    vault.deleteKey('off');
    await both('not-found', { name: 'ResourceNotFoundError', status_code: 404 });
    await assert.rejects(read('off'), { name: 'ResourceNotFoundError' });
  });

  test('speak by the same models: whatever either has sent and got is read strictly', async () => {
    const seen = new Set<unknown>();
    for (const exchange of exchanges) seen.add(await microsoft.ask('parse', exchange));
    assert.deepEqual([...seen].sort(), ['get', 'unwrapkey', 'wrapkey']);
    assert.deepEqual([...ours].sort(), ['GET', 'POST']);
    const exchange = {
      verb: 'POST',
      target: `/keys/k//unwrapkey?api-version=${VERSION}`,
      body: { alg: RSA, value: 'AA' },
      answer: { kid: 'k', value: 'AA' },
    };
    await microsoft.ask('parse', exchange);
    for (const wrong of [{ body: { more: '' } }, { body: { alg: 'RSA-OAEP-257' } }, { answer: { plaintext: '' } }]) {
      await assert.rejects(microsoft.ask('parse', { ...exchange, ...wrong }), { name: 'ValueError' });
    }
  });
});

describe("Microsoft's library of credentials takes a token from the fake", () => {
  before(() => vault.createKey('mine', { type: 'RSA' }));

  test('for the secret of an application, and not for another', async () => {
    await connect('secret', { ...named(), client_secret: vault.client.secret });
    await read('mine');
    await connect('secret', { ...named(), client_secret: 'another' });
    await assert.rejects(read('mine'), { name: 'ClientAuthenticationError' });
  });

  test('for the projected token of a workload', async () => {
    const token_file_path = join(directory, 'assertion');
    await writeFile(token_file_path, vault.assertion);
    await connect('workload', { ...named(), token_file_path });
    await read('mine');
    vault.revokeTokens();
    await assert.rejects(read('mine'), { status_code: 401 });
  });

  test('for the machine, from its metadata service', async () => {
    agents.identities = [vault.client.id];
    await connect('machine', {});
    await read('mine');
    await connect('machine', { client_id: vault.tenant });
    await assert.rejects(read('mine'), { message: /Identity not found/ });
  });
});
