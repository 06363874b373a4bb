// Azure identities that Microsoft's library finds, in a process of its own.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type FakeAzureVault, startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { startWireServer, type WireServer } from '../fakes/wire.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { wrapOnce } from '../fixtures/wrap-once.ts';

let directory: string;
let authority: string;
let vault: FakeAzureVault;
let agent: WireServer;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'azure-credentials-'));
  const ca = await createCertificateAuthority(directory);
  authority = ca.certificate;
  vault = await startFakeAzureVault({ tls: await ca.issue('server') });
  vault.createKey('image', { type: 'RSA' });
  // The agent of App Service and Container Apps.
  agent = await startWireServer(({ path, headers }) => {
    const query = new URLSearchParams(path.split('?')[1]);
    if (headers['x-identity-header'] !== 'agent-secret') return { status: 401, body: '' };
    const access_token = vault.issue(query.get('resource') ?? '');
    const expires_on = String(Math.floor(Date.now() / 1000) + 3600);
    return { status: 200, body: JSON.stringify({ access_token, expires_on, token_type: 'Bearer', resource: 'x' }) };
  });
});
after(async () => {
  await Promise.all([vault.close(), agent.close()]);
  await rm(directory, { recursive: true, force: true });
});

function wrap(environment: Readonly<Record<string, string>>, milliseconds?: number): Promise<string> {
  const settings = { endpoint: vault.endpoint, caFiles: [authority] };
  const key = `azurekms://${vault.host}/image`;
  return wrapOnce({
    key,
    settings,
    environment: { HOME: directory, PATH: directory, ...environment },
    ...(milliseconds === undefined ? {} : { milliseconds }),
  });
}

describe('an Azure identity is', () => {
  test('the managed identity of the machine, given by its agent', async () => {
    const environment = { IDENTITY_ENDPOINT: `${agent.url}/msi/token`, IDENTITY_HEADER: 'agent-secret' };
    assert.equal(await wrap(environment), 'ok');
    assert.equal(await wrap({ ...environment, AZURE_TOKEN_CREDENTIALS: 'ManagedIdentityCredential' }), 'ok');
    assert.equal(await wrap({ ...environment, IDENTITY_HEADER: 'wrong' }), 'unauthenticated');
    agent.faults.push({ kind: 'answer', status: 503, body: '' });
    assert.equal(await wrap(environment), 'unavailable');
    agent.faults.push({ kind: 'silent' });
    assert.equal(await wrap(environment, 1500), 'deadline-exceeded');
  });

  test("not a developer's, unless that is asked for", async () => {
    const script = `#!/bin/sh\necho '{"accessToken":"${vault.issue('https://vault.azure.net')}","expiresOn":"2099-01-01 00:00:00.000000"}'\n`;
    await writeFile(join(directory, 'az'), script, { mode: 0o755 });
    const PATH = `${directory}:/usr/bin:/bin`;
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }), 'ok');
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureCliCredential' }), 'ok');
    const code = await wrap({ PATH, IDENTITY_ENDPOINT: `${agent.url}/msi/token`, IDENTITY_HEADER: 'wrong' });
    assert.equal(code, 'unauthenticated');
  });

  test("a developer's, whose tool takes longer than an attempt and is started once", async () => {
    const token = vault.issue('https://vault.azure.net');
    const script = `#!/bin/sh\necho x >> '${directory}/started'\nsleep 2\necho '{"accessToken":"${token}","expires_on":"4070908800"}'\n`;
    await writeFile(join(directory, 'az'), script, { mode: 0o755 });
    const PATH = `${directory}:/usr/bin:/bin`;
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }, 1500), 'ok');
    assert.equal(await readFile(join(directory, 'started'), 'utf8'), 'x\n');
  });

  test("that of the first developer's tool that gives a token", async () => {
    const token = vault.issue('https://vault.azure.net');
    await writeFile(join(directory, 'az'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const azd = `#!/bin/sh\necho '{"token":"${token}","expiresOn":"2099-01-01T00:00:00Z"}'\n`;
    await writeFile(join(directory, 'azd'), azd, { mode: 0o755 });
    const PATH = `${directory}:/usr/bin:/bin`;
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }), 'ok');
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureDeveloperCliCredential' }), 'ok');
    assert.equal(await wrap({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureCliCredential' }), 'unauthenticated');
  });

  test('nobody where a certificate cannot be read', async () => {
    const client = { AZURE_TENANT_ID: vault.tenant, AZURE_CLIENT_ID: vault.client.id };
    const environment = {
      ...client,
      AZURE_CLIENT_CERTIFICATE_PATH: '/nonexistent',
      AZURE_AUTHORITY_HOST: vault.endpoint,
    };
    assert.equal(await wrap(environment), 'unauthenticated');
  });
});
