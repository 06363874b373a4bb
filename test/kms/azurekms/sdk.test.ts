// Microsoft's own client beside ours, at one vault: each unwraps what the other has wrapped. That client is strict about
// the challenge, the key's id and every answer, so the fake vault speaks as Azure does.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { PipelinePolicy } from '@azure/core-rest-pipeline';
import { CryptographyClient, KeyClient } from '@azure/keyvault-keys';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { openAzureKms } from '../../../src/kms/azurekms/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeAzureVault, startFakeAzureVault } from '../../fakes/azure-key-vault.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { soon } from '../expect.ts';

type World = {
  readonly vault: FakeAzureVault;
  readonly kek: (name: string) => Kek;
  readonly keys: KeyClient;
  /** A client of theirs for the key in a version, as its id has it. */
  readonly client: (id: string) => CryptographyClient;
  readonly close: () => Promise<void>;
};

async function startWorld(host: string): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'azure-sdk-'));
  const authority = await createCertificateAuthority(directory);
  const vault = await startFakeAzureVault({
    tls: await authority.issue('server', { names: [host, '127.0.0.1'] }),
    host,
  });
  const credential = {
    getToken: async (scopes: string | string[]) => ({
      token: vault.issue(String(scopes).replace(/\/\.default$/, '')),
      expiresOnTimestamp: Date.now() + 3_600_000,
    }),
  };
  // It asks the vault by its own name, which is on this machine.
  const agent = new Agent({
    ca: await readFile(authority.certificate, 'utf8'),
    lookup: (_name, { all }, found) =>
      all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4),
  });
  const toVault: PipelinePolicy = {
    name: 'to this machine',
    sendRequest(request, next) {
      request.agent = agent;
      return next(request);
    },
  };
  const options = {
    serviceVersion: '7.4' as const,
    retryOptions: { maxRetries: 0 },
    additionalPolicies: [{ policy: toVault, position: 'perRetry' as const }],
  };
  const opened: Kek[] = [];
  return {
    vault,
    kek(name) {
      const uri = parseKeyUri(`azurekms://${host}/${name}`);
      assert.ok(uri.scheme === 'azurekms');
      const environment = {
        AZURE_TENANT_ID: vault.tenant,
        AZURE_CLIENT_ID: vault.client.id,
        AZURE_CLIENT_SECRET: vault.client.secret,
      };
      const settings = { endpoint: vault.endpoint, authority: vault.endpoint, caFiles: [authority.certificate] };
      const kek = openAzureKms(uri, { ...settings, environment });
      opened.push(kek);
      return kek;
    },
    keys: new KeyClient(`https://${host}:${vault.server.port}`, credential, options),
    client: (id) => new CryptographyClient(id.replace(host, `${host}:${vault.server.port}`), credential, options),
    async close() {
      for (const kek of opened) kek.close?.();
      agent.destroy();
      await vault.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

describe("Microsoft's client and ours", () => {
  let vault: World;
  let hsm: World;
  before(async () => {
    vault = await startWorld('acme.vault.azure.net');
    hsm = await startWorld('acme.managedhsm.azure.net');
  });
  after(async () => {
    await vault.close();
    await hsm.close();
  });

  /** The id by which they know what wrapped. */
  const idOf = (key: string) => key.replace(/^azurekms:\/\/([^/]+)\//, 'https://$1/keys/');
  const uriOf = (id = '') => id.replace(/^https:\/\/([^/]+)\/keys\//, 'azurekms://$1/');

  test('wrap and unwrap with one RSA key', async () => {
    vault.vault.createKey('images', { type: 'RSA', bits: 3072 });
    const kek = vault.kek('images');
    const dataKey = randomBytes(32);
    const ours = await kek.wrap(dataKey, {}, soon());
    const { id = '' } = await vault.keys.getKey('images');
    assert.equal(idOf(ours.key), id);
    const opened = await vault.client(id).unwrapKey('RSA-OAEP-256', ours.wrapped);
    assert.deepEqual(Buffer.from(opened.result), dataKey);
    const theirs = await vault.client(id).wrapKey('RSA-OAEP-256', dataKey);
    const packet = { key: uriOf(theirs.keyID), algorithm: theirs.algorithm, wrapped: theirs.result };
    assert.deepEqual(Buffer.from(await kek.unwrap(packet, {}, soon())), dataKey);
  });

  test('wrap and unwrap with one AES key of a managed HSM', async () => {
    hsm.vault.createKey('wrapping', { type: 'oct-HSM', operations: ['wrapKey', 'unwrapKey'] });
    const kek = hsm.kek('wrapping');
    const dataKey = randomBytes(32);
    const ours = await kek.wrap(dataKey, {}, soon());
    const opened = await hsm.client(idOf(ours.key)).unwrapKey('A256KW', ours.wrapped);
    assert.deepEqual(Buffer.from(opened.result), dataKey);
    const theirs = await hsm.client(idOf(ours.key)).wrapKey('A256KW', dataKey);
    const packet = { key: uriOf(theirs.keyID), algorithm: theirs.algorithm, wrapped: theirs.result };
    assert.deepEqual(Buffer.from(await kek.unwrap(packet, {}, soon())), dataKey);
  });

  test('are refused alike', async () => {
    vault.vault.createKey('off', { type: 'RSA' });
    const { id = '' } = await vault.keys.getKey('off');
    vault.vault.setEnabled('off', false);
    await assert.rejects(vault.client(id).unwrapKey('RSA-OAEP-256', randomBytes(256)), { statusCode: 403 });
    await assert.rejects(vault.keys.getKey('missing'), { statusCode: 404 });
  });
});
