// The ways to a token of Vault: each survives what passes, and says what is wrong with it.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { openHashiVault, type VaultSettings } from '../../../src/kms/hashivault/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeVault, type Policy, startFakeVault } from '../../fakes/vault.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../../fixtures/certificates.ts';
import {
  type CredentialFault,
  compareFaultTable,
  type FaultRow,
  readFault,
  trySourceAt,
  useOnce,
} from '../credential-trials.ts';
import { code } from '../expect.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/keys-vault.md', import.meta.url));
const USE: Policy = { 'transit/*': ['update'] };
const JWT = 'ey.service.account';

let directory: string;
let ca: CertificateAuthority;
let vault: FakeVault;
const opened: Kek[] = [];
const vaults: FakeVault[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vault-credentials-'));
  ca = await createCertificateAuthority(directory);
  await ca.issue('server');
  vault = await openVault();
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await Promise.all(vaults.map((one) => one.close()));
  await rm(directory, { recursive: true, force: true });
});

/** With a key, and each login for the same credentials. */
async function openVault(): Promise<FakeVault> {
  const tls = { certificate: join(directory, 'server.crt'), privateKey: join(directory, 'server.key') };
  const own = await startFakeVault({ tls });
  vaults.push(own);
  own.createKey('transit/image');
  own.permitLogin('kubernetes', { role: 'r', jwt: JWT }, USE);
  own.permitLogin('jwt', { role: 'r', jwt: JWT }, USE);
  own.permitLogin('approle', { role_id: 'r', secret_id: 'secret' }, USE);
  own.permitLogin('cert', {}, USE);
  return own;
}

async function write(name: string, text: string, mode = 0o600): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text, { mode });
  return path;
}

type Settings = Partial<Omit<VaultSettings, 'environment'>>;

async function open(
  settings: Settings,
  environment: Readonly<Record<string, string>> = {},
  at: FakeVault = vault,
): Promise<Kek> {
  const uri = parseKeyUri('hashivault://image');
  assert.ok(uri.scheme === 'hashivault');
  const base = { VAULT_ADDR: at.address, VAULT_CACERT: ca.certificate, HOME: directory };
  const kek = openHashiVault(uri, { ...settings, environment: { ...base, ...environment } });
  opened.push(kek);
  return kek;
}

const login = async (name: NonNullable<Settings['login']>, credential: string, more: Settings = {}) => ({
  login: name,
  role: 'r',
  credentialsFile: await write(`credential-${name}-${credential.length}`, credential),
  ...more,
});

describe('Vault logins survive', { concurrency: true }, () => {
  for (const [name, credential] of [
    ['kubernetes', JWT],
    ['jwt', JWT],
    ['approle', 'secret'],
  ] as const) {
    let own: FakeVault | undefined;
    trySourceAt(() => own?.server, /auth/, {
      name: `the ${name} login`,
      waitingFor: /waiting for the token service 127/,
      async open(lifetime) {
        own ??= await openVault();
        own.lifetime = lifetime === 'long' ? 3600 : 20;
        return open(await login(name, credential), {}, own);
      },
    });
  }
});

describe('tokens of Vault that are set up wrong', () => {
  const rows: FaultRow[] = [];
  const page = (status: number) => {
    vault.server.setFault(() => ({ kind: 'answer', status, body: '<html>canary</html>' }));
  };
  const faults: readonly CredentialFault[] = [
    { source: 'token', fault: 'there is none', code: 'unauthenticated', open: () => open({}) },
    {
      source: 'token',
      fault: 'ended or unknown',
      code: 'unauthenticated',
      open: () => open({}, { VAULT_TOKEN: 'hvs.canary' }),
    },
    {
      source: 'token',
      fault: 'its policy lacks the path',
      code: 'refused',
      open: () => open({}, { VAULT_TOKEN: vault.createToken({}) }),
    },
    {
      source: 'token',
      fault: 'two lines',
      code: 'configuration',
      open: () => open({}, { VAULT_TOKEN: 'hvs.canary\nx' }),
    },
    {
      source: 'token file',
      fault: 'is not there',
      code: 'configuration',
      open: () => open({ credentialsFile: '/nowhere/token' }),
    },
    {
      source: 'kubernetes',
      fault: 'no such role',
      code: 'configuration',
      open: async () => open(await login('kubernetes', JWT, { role: 'canary' })),
    },
    {
      source: 'kubernetes',
      fault: 'token is not accepted',
      code: 'unauthenticated',
      open: async () => open(await login('kubernetes', 'canary.x')),
    },
    {
      source: 'kubernetes',
      fault: 'token file is missing',
      code: 'configuration',
      open: () => open({ login: 'kubernetes', role: 'r', credentialsFile: '/nowhere/token' }),
    },
    {
      source: 'jwt',
      fault: 'no such role',
      code: 'configuration',
      open: async () => open(await login('jwt', JWT, { role: 'canary' })),
    },
    {
      source: 'jwt',
      fault: 'token is not accepted',
      code: 'unauthenticated',
      open: async () => open(await login('jwt', 'canary.xyz')),
    },
    {
      source: 'approle',
      fault: 'secret id is wrong or has ended',
      code: 'unauthenticated',
      open: async () => open(await login('approle', 'canary')),
    },
    {
      source: 'login',
      fault: 'is mounted elsewhere',
      code: 'unauthenticated',
      open: async () => open(await login('jwt', JWT, { loginPath: 'elsewhere' })),
    },
    {
      source: 'login',
      fault: 'another server answers',
      code: 'unavailable',
      async open() {
        page(403);
        return open(await login('jwt', JWT));
      },
    },
    {
      source: 'login',
      fault: 'Vault is sealed',
      code: 'unavailable',
      retryable: true,
      async open() {
        vault.sealed = true;
        return open(await login('jwt', JWT));
      },
    },
  ];
  for (const fault of faults) {
    test(`${fault.source}: ${fault.fault} is ${fault.code}`, async () => {
      try {
        const error = await readFault(fault);
        rows.push({ source: fault.source, fault: fault.fault, error });
        assert.doesNotMatch(`${error.message} ${error.hint}`, /canary|told/, 'nothing that was not asked for');
      } finally {
        vault.server.setFault(undefined);
        vault.sealed = false;
      }
    });
  }

  test('each says something of its own', () => {
    const lines = rows.map(({ error }) => error.message);
    assert.deepEqual(
      lines.filter((line, index) => lines.indexOf(line) !== index),
      [],
    );
  });

  test('the document has the table', async () => {
    const host: [string, string] = [new URL(vault.address).host, 'HOST'];
    await compareFaultTable(DOCUMENT, rows, new Map([host, [directory, '/PATH']]));
  });

  test('an unknown token is told from a policy in the words of either product', async () => {
    for (const product of ['OpenBao', 'Vault'] as const) {
      vault.product = product;
      await code(useOnce(await open({}, { VAULT_TOKEN: 'hvs.unknown' })), 'unauthenticated');
      await code(useOnce(await open({}, { VAULT_TOKEN: vault.createToken({}) })), 'refused');
    }
    vault.product = 'OpenBao';
  });

  test('an address with the path of the API is the address; a socket is refused with what to do', async () => {
    const VAULT_TOKEN = vault.createToken(USE);
    for (const end of ['/v1', '/v1/', '/']) {
      await useOnce(await open({}, { VAULT_TOKEN, VAULT_ADDR: `${vault.address}${end}` }));
    }
    await assert.rejects(open({}, { VAULT_TOKEN, VAULT_ADDR: 'unix:///run/vault.sock' }), {
      code: 'configuration',
      message: /VAULT_ADDR names a socket/,
    });
  });
});
