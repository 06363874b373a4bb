// The identities of Azure: each gives a token, survives what passes, and says what is wrong with it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createHttpClient } from '../../../src/base/http/client.ts';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { findAzurePlace } from '../../../src/kms/azurekms/cloud.ts';
import { openAzureKms } from '../../../src/kms/azurekms/key.ts';
import { requestManagedIdentityToken } from '../../../src/kms/azurekms/managed-identity.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeAzureAgents, startFakeAzureAgents } from '../../fakes/azure-agents.ts';
import { type FakeAzureVault, startFakeAzureVault } from '../../fakes/azure-key-vault.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../fixtures/certificates.ts';
import {
  type CredentialFault,
  type CredentialSource,
  compareFaultTable,
  type FaultRow,
  readFault,
  SLOW_MILLISECONDS,
  trySource,
  trySourceAt,
  untilEmpty,
  useOnce,
} from '../credential-trials.ts';
import { code, soon } from '../expect.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/keys-azure.md', import.meta.url));
const MACHINE = '11111111-aaaa-bbbb-cccc-222222222222';
const USER = '33333333-aaaa-bbbb-cccc-444444444444';

type World = { readonly vault: FakeAzureVault; readonly agents: FakeAzureAgents };

let directory: string;
let ca: CertificateAuthority;
let vault: FakeAzureVault;
let agents: FakeAzureAgents;
let certificate: string;
const opened: Kek[] = [];
const worlds: World[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'azure-credentials-'));
  ca = await createCertificateAuthority(directory);
  await ca.issue('server');
  certificate = await pemOf('client', { rsa: true });
  ({ vault, agents } = await openWorld());
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await Promise.all(worlds.flatMap((world) => [world.vault.close(), world.agents.close()]));
  await rm(directory, { recursive: true, force: true });
});

/** A vault with its token service, and the agents of a machine with one identity. */
async function openWorld(): Promise<World> {
  const tls = { certificate: join(directory, 'server.crt'), privateKey: join(directory, 'server.key') };
  const own = await startFakeAzureVault({ tls });
  own.createKey('image', { type: 'RSA' });
  own.trustCertificate(await readFile(certificate, 'utf8'));
  const world = { vault: own, agents: await startFakeAzureAgents(directory, own.issue) };
  world.agents.identities = [MACHINE];
  worlds.push(world);
  return world;
}

/** A file with a certificate and its key. */
async function pemOf(name: string, options: { readonly rsa?: boolean; readonly expired?: boolean }): Promise<string> {
  const files = await ca.issue(name, { ...options, names: [] });
  const parts = await Promise.all([files.certificate, files.privateKey].map((file) => readFile(file, 'utf8')));
  return write(`${name}.pem`, parts.join(''));
}

async function write(name: string, text: string, mode = 0o600): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text, { mode });
  return path;
}

async function open(environment: Readonly<Record<string, string>>, at: FakeAzureVault = vault): Promise<Kek> {
  const uri = parseKeyUri(`azurekms://${at.host}/image`);
  assert.ok(uri.scheme === 'azurekms');
  const kek = openAzureKms(uri, {
    endpoint: at.endpoint,
    caFiles: [ca.certificate],
    environment: { HOME: directory, PATH: directory, AZURE_AUTHORITY_HOST: at.endpoint, ...environment },
  });
  opened.push(kek);
  return kek;
}

const client = (more: Readonly<Record<string, string>>) => ({
  AZURE_TENANT_ID: vault.tenant,
  AZURE_CLIENT_ID: vault.client.id,
  ...more,
});
const secret = (at = vault) => client({ AZURE_CLIENT_SECRET: at.client.secret });
let tokens = 0;
const workload = async (token = vault.assertion) =>
  client({ AZURE_FEDERATED_TOKEN_FILE: await write(`federated-${tokens++}`, `${token}\n`) });
const signed = (path = certificate) => client({ AZURE_CLIENT_CERTIFICATE_PATH: path });

let tools = 0;
/** The directory of a tool that is this script. */
async function tool(name: string, script: string): Promise<string> {
  const place = join(directory, `tools-${tools++}`);
  await mkdir(place);
  await writeFile(join(place, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return `${place}:/usr/bin:/bin`;
}
const az = (script: string) => tool('az', script);
const azAnswer = () =>
  JSON.stringify({ accessToken: vault.issue('https://vault.azure.net'), expires_on: '4070908800' });

describe('an Azure identity is', () => {
  test('a client with a secret, a token of another issuer, a certificate', async () => {
    await useOnce(await open(secret()));
    await useOnce(await open(await workload()));
    await useOnce(await open(signed()));
    const key = await readFile(join(directory, 'client.key'), 'utf8');
    const sealed = join(directory, 'sealed.key');
    execFileSync('openssl', ['pkcs8', '-topk8', '-passout', 'pass:canary', '-out', sealed], { input: key });
    const both = (await readFile(join(directory, 'client.crt'), 'utf8')) + (await readFile(sealed, 'utf8'));
    const environment = signed(await write('sealed.pem', both));
    await useOnce(await open({ ...environment, AZURE_CLIENT_CERTIFICATE_PASSWORD: 'canary' }));
  });

  test('the managed identity of the machine, by whichever agent it has', async () => {
    const { imds, appService, machineLearning } = agents.environments;
    for (const agent of [imds, appService, machineLearning]) {
      await useOnce(await open(agent));
      await useOnce(await open({ ...agent, AZURE_TOKEN_CREDENTIALS: 'ManagedIdentityCredential' }));
    }
  });

  test('one of several of a machine, by its client id, and no other one', async () => {
    agents.identities = [MACHINE, USER];
    for (const agent of Object.values(agents.environments).slice(0, 2)) {
      await code(useOnce(await open(agent)), 'configuration');
      await useOnce(await open({ ...agent, AZURE_CLIENT_ID: USER.toUpperCase().toLowerCase() }));
    }
    agents.server.setFault(() => ({ kind: 'body', change: (body) => body.replace(USER, MACHINE) }));
    await code(useOnce(await open({ ...agents.environments.imds, AZURE_CLIENT_ID: USER })), 'unauthenticated');
    agents.server.setFault(undefined);
    agents.identities = [MACHINE];
  });

  test('that of a machine with Azure Arc, which shows that it may read the agent’s file, and no other file', async () => {
    const uri = parseKeyUri(`azurekms://${vault.host}/image`);
    assert.ok(uri.scheme === 'azurekms');
    const environment = agents.environments.arc;
    const place = findAzurePlace(uri, { environment });
    const http = createHttpClient({ environment });
    const ask = (keys: string) => requestManagedIdentityToken(place, environment, http, true, soon(), keys);
    assert.match((await ask(agents.arcKeys)).access, /^eyJ0\./);
    await code(ask('/var/opt/azcmagent/tokens/'), 'unauthenticated');
    for (const path of ['/etc/passwd', `${agents.arcKeys}../x.key`, `${agents.arcKeys}missing.key`]) {
      const headers = { 'WWW-Authenticate': `Basic realm=${path}` };
      agents.server.faults.push({ kind: 'answer', status: 401, headers, body: '' });
      await code(ask(agents.arcKeys), path.endsWith('missing.key') ? 'configuration' : 'unauthenticated');
    }
    http.close();
  });

  test("not a developer's, unless that is asked for", async () => {
    const PATH = await az(`echo '${azAnswer()}'`);
    await useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }));
    await useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureCliCredential' }));
    await code(
      useOnce(await open({ PATH, ...agents.environments.appService, IDENTITY_HEADER: 'wrong' })),
      'unauthenticated',
    );
  });

  test("a developer's, whose tool takes longer than an attempt and is started once", async () => {
    const log = join(directory, 'started');
    const PATH = await az(`echo x >> '${log}'\nsleep 0.7\necho '${azAnswer()}'`);
    await useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }), {
      total: 15_000,
      attempt: 400,
      attempts: 3,
      stagger: 300,
    });
    assert.equal(await readFile(log, 'utf8'), 'x\n');
  });

  test("that of the first developer's tool that gives a token", async () => {
    const token = vault.issue('https://vault.azure.net');
    const azd = await tool('azd', `echo '{"token":"${token}","expiresOn":"2099-01-01T00:00:00Z"}'`);
    const PATH = `${azd}:${await az('exit 1')}`;
    await useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'dev' }));
    await useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureDeveloperCliCredential' }));
    await code(useOnce(await open({ PATH, AZURE_TOKEN_CREDENTIALS: 'AzureCliCredential' })), 'unauthenticated');
  });
});

describe('Azure identities survive', { concurrency: true }, () => {
  const served = (
    name: string,
    path: RegExp,
    who: string,
    environment: (own: World) => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>,
  ) => {
    let own: World | undefined;
    trySourceAt(() => (who === 'token service' ? own?.vault.server : own?.agents.server), path, {
      name,
      waitingFor: new RegExp(`waiting for the ${who} 127`),
      async open(lifetime) {
        own ??= await openWorld();
        own.agents.lifetime = lifetime === 'long' ? 3600 : 120;
        own.vault.lifetime = own.agents.lifetime;
        return open(await environment(own), own.vault);
      },
    });
  };
  served('a client secret', /oauth2/, 'token service', (own) => secret(own.vault));
  served('a federated token', /oauth2/, 'token service', (own) => workload(own.vault.assertion));
  served('a client certificate', /oauth2/, 'token service', () => signed());
  served('IMDS', /metadata/, 'metadata server', (own) => own.agents.environments.imds);
  served('the agent of App Service', /msi/, 'identity agent', (own) => own.agents.environments.appService);
  served('the agent of Machine Learning', /ml/, 'identity agent', (own) => own.agents.environments.machineLearning);

  let mood = '';
  trySource({
    name: 'az',
    not: ['throttled', 'unavailable'],
    met: () => untilEmpty(mood),
    async open() {
      mood = await write(`mood-${tools++}`, '');
      return open({ PATH: await az(`. '${mood}'; echo '${azAnswer()}'`), AZURE_TOKEN_CREDENTIALS: 'dev' });
    },
    break(trouble, times) {
      const once = times === 'once' ? `: > '${mood}'; ` : '';
      return writeFile(mood, `${once}sleep ${trouble === 'slow' ? SLOW_MILLISECONDS / 1000 : 600}`);
    },
    mend: () => writeFile(mood, ''),
    waitingFor: /waiting for az$/,
  } satisfies CredentialSource);

  for (const status of [404, 410]) {
    test(`IMDS that is updated, and says ${status}`, async () => {
      agents.server.faults.push({ kind: 'answer', status, body: '' });
      await useOnce(await open(agents.environments.imds));
    });
  }
});

describe('Azure identities that are set up wrong', () => {
  const rows: FaultRow[] = [];
  const agentSays = (environment: Readonly<Record<string, string>>, status: number, body: string) => {
    agents.server.setFault(() => ({ kind: 'answer', status, body }));
    return open(environment);
  };
  const dev = async (script?: string, more = {}) =>
    open({
      PATH: script === undefined ? directory : await az(script),
      AZURE_TOKEN_CREDENTIALS: 'AzureCliCredential',
      ...more,
    });
  const faults: readonly CredentialFault[] = [
    {
      source: 'any',
      fault: '`AZURE_TOKEN_CREDENTIALS` is misspelled',
      code: 'configuration',
      open: () => open({ AZURE_TOKEN_CREDENTIALS: 'developer' }),
    },
    {
      source: 'secret',
      fault: 'wrong',
      code: 'unauthenticated',
      open: () => open({ ...secret(), AZURE_CLIENT_SECRET: 'canary' }),
    },
    {
      source: 'secret',
      fault: 'tenant is missing',
      code: 'configuration',
      open: () => open({ ...secret(), AZURE_TENANT_ID: '' }),
    },
    {
      source: 'secret',
      fault: 'tenant is an address',
      code: 'configuration',
      open: () => open({ ...secret(), AZURE_TENANT_ID: 'https://login.microsoftonline.com/canary' }),
    },
    {
      source: 'secret',
      fault: 'unknown tenant',
      code: 'unauthenticated',
      open: () => open({ ...secret(), AZURE_TENANT_ID: 'canary' }),
    },
    {
      source: 'secret',
      fault: 'unknown application',
      code: 'unauthenticated',
      open: () => open({ ...secret(), AZURE_CLIENT_ID: 'canary' }),
    },
    {
      source: 'secret',
      fault: 'another server answers',
      code: 'unavailable',
      async open() {
        vault.server.setFault(({ path }) =>
          path.includes('oauth2') ? { kind: 'answer', status: 403, body: '<html>canary</html>' } : undefined,
        );
        return open(secret());
      },
    },
    {
      source: 'certificate',
      fault: 'is not there',
      code: 'configuration',
      open: () => open(signed('/nowhere/client.pem')),
    },
    {
      source: 'certificate',
      fault: 'PFX',
      code: 'configuration',
      async open() {
        const pfx = join(directory, 'client.pfx');
        execFileSync('openssl', [
          'pkcs12',
          '-export',
          '-in',
          certificate,
          '-inkey',
          certificate,
          '-passout',
          'pass:canary',
          '-out',
          pfx,
        ]);
        await chmod(pfx, 0o600);
        return open(signed(pfx));
      },
    },
    {
      source: 'certificate',
      fault: 'no key beside it',
      code: 'configuration',
      open: async () => open(signed(await write('alone.pem', await readFile(join(directory, 'client.crt'), 'utf8')))),
    },
    {
      source: 'certificate',
      fault: 'key without it',
      code: 'configuration',
      open: async () => open(signed(await write('key.pem', await readFile(join(directory, 'client.key'), 'utf8')))),
    },
    {
      source: 'certificate',
      fault: 'encrypted key, wrong password',
      code: 'configuration',
      open: () => open({ ...signed(join(directory, 'sealed.pem')), AZURE_CLIENT_CERTIFICATE_PASSWORD: 'wrong-canary' }),
    },
    {
      source: 'certificate',
      fault: 'key of another one',
      code: 'configuration',
      async open() {
        const other = await ca.issue('other', { rsa: true, names: [] });
        const parts = [join(directory, 'client.crt'), other.privateKey].map((file) => readFile(file, 'utf8'));
        return open(signed(await write('mixed.pem', (await Promise.all(parts)).join(''))));
      },
    },
    {
      source: 'certificate',
      fault: 'not of RSA',
      code: 'configuration',
      open: async () => open(signed(await pemOf('curve', {}))),
    },
    {
      source: 'certificate',
      fault: 'expired',
      code: 'unauthenticated',
      open: async () => open(signed(await pemOf('old', { rsa: true, expired: true }))),
    },
    {
      source: 'certificate',
      fault: 'is not one of the application',
      code: 'unauthenticated',
      open: async () => open(signed(await pemOf('stranger', { rsa: true }))),
    },
    {
      source: 'workload identity',
      fault: 'token file is missing',
      code: 'configuration',
      open: () => open(client({ AZURE_FEDERATED_TOKEN_FILE: '/nowhere/token' })),
    },
    {
      source: 'workload identity',
      fault: 'no token in the file',
      code: 'configuration',
      open: async () => open(client({ AZURE_FEDERATED_TOKEN_FILE: await write('federated', 'can ary') })),
    },
    {
      source: 'workload identity',
      fault: 'of another subject',
      code: 'unauthenticated',
      open: async () => open(await workload('a.b.c')),
    },
    {
      source: 'managed identity',
      fault: 'the machine has none',
      code: 'unauthenticated',
      open() {
        agents.identities = [];
        return open(agents.environments.imds);
      },
    },
    {
      source: 'managed identity',
      fault: 'not the one of `AZURE_CLIENT_ID`',
      code: 'unauthenticated',
      open: () => open({ ...agents.environments.imds, AZURE_CLIENT_ID: USER }),
    },
    {
      source: 'managed identity',
      fault: 'several, and none is named',
      code: 'configuration',
      open() {
        agents.identities = [MACHINE, USER];
        return open(agents.environments.imds);
      },
    },
    {
      source: 'managed identity',
      fault: 'fails in passing',
      code: 'unavailable',
      retryable: true,
      open: () => agentSays(agents.environments.imds, 500, ''),
    },
    {
      source: 'managed identity',
      fault: 'another server answers',
      code: 'unauthenticated',
      open: () => agentSays(agents.environments.imds, 200, '<html>canary</html>'),
    },
    {
      source: 'App Service',
      fault: 'wrong `IDENTITY_HEADER`',
      code: 'unauthenticated',
      open: () => open({ ...agents.environments.appService, IDENTITY_HEADER: 'canary' }),
    },
    {
      source: 'App Service',
      fault: '`IDENTITY_ENDPOINT` is no address',
      code: 'configuration',
      open: () => open({ ...agents.environments.appService, IDENTITY_ENDPOINT: 'canary' }),
    },
    {
      source: 'Service Fabric',
      fault: 'is not supported',
      code: 'configuration',
      open: () => open({ ...agents.environments.appService, IDENTITY_SERVER_THUMBPRINT: 'canary' }),
    },
    { source: '`az`', fault: 'is not installed', code: 'unauthenticated', open: () => dev() },
    {
      source: '`az`',
      fault: 'no user has logged in',
      code: 'unauthenticated',
      open: () => dev('echo canary >&2; exit 1'),
    },
    {
      source: '`az`',
      fault: 'the login has expired',
      code: 'unauthenticated',
      async open() {
        await mkdir(join(directory, '.azure'), { recursive: true });
        await write('.azure/azureProfile.json', '\uFEFF{"subscriptions":[{"id":"1"}]}');
        return dev('echo canary >&2; exit 1');
      },
    },
    { source: '`az`', fault: 'writes something else', code: 'unauthenticated', open: () => dev('echo canary') },
  ];

  for (const fault of faults) {
    test(`${fault.source}: ${fault.fault} is ${fault.code}`, async () => {
      try {
        const error = await readFault(fault);
        rows.push({ source: fault.source, fault: fault.fault, error });
        assert.doesNotMatch(`${error.message} ${error.hint}`, /canary|told/, 'nothing that was not asked for');
      } finally {
        vault.server.setFault(undefined);
        agents.server.setFault(undefined);
        agents.identities = [MACHINE];
      }
    });
  }

  test('each says something of its own', () => {
    const lines = rows.map(({ error }) => `${error.message} ${error.hint}`);
    assert.deepEqual(
      lines.filter((line, index) => lines.indexOf(line) !== index),
      [],
    );
  });

  test('the document has the table', async () => {
    const hosts = [vault.endpoint, agents.server.url].map((url): [string, string] => [new URL(url).host, 'HOST']);
    const { validTo } = new X509Certificate(await readFile(join(directory, 'old.crt')));
    await compareFaultTable(DOCUMENT, rows, new Map([...hosts, [validTo, 'DATE'], [directory, '/PATH']]));
  });
});
