// Vault, age and tokens through the executable: a layer key wrapped and unwrapped, and what the doctor says of each key.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Encrypter, generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { type FakeVault, startFakeVault } from '../fakes/vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { serve } from '../fixtures/serve.ts';
import { createToken, ensureSoftHsm, useTokenStore } from '../fixtures/softhsm.ts';
import { REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

type Environment = Readonly<Record<string, string>>;

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'backends-'));
});
after(() => rm(directory, { recursive: true, force: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

/** Wraps to `key`, and unwraps from the packet alone, as containerd asks for it. */
async function roundTrip(key: string, words: readonly string[], environment: Environment = {}): Promise<void> {
  const wrapped = await runExecutable(['keyprovider', `--allow=${key}`, ...words], {
    input: wrapRequest([key]),
    environment,
  });
  assert.equal(wrapped.status, 0, wrapped.stderr);
  const { keywrapresults } = JSON.parse(wrapped.stdout.toString());
  const packet = Buffer.from(keywrapresults.annotation, 'base64');
  const unwrapped = await runExecutable(['keyprovider', `--allow=${key}`, ...words], {
    input: unwrapRequest(packet),
    environment,
  });
  assert.deepEqual([unwrapped.status, unwrapped.stdout.toString(), unwrapped.stderr], [0, REPLY, '']);
}

async function doctor(words: readonly string[], environment: Environment = {}) {
  const result = await runExecutable(['doctor', '--json', ...words], { environment });
  return { ...result, report: JSON.parse(result.stdout.toString()) };
}

const phasesOf = ({ phases }: { phases: readonly { phase: string }[] }) => phases.map(({ phase }) => phase);

describe('Vault through the executable', () => {
  let vault: FakeVault;
  let environment: Environment;
  before(async () => {
    const authority = await createCertificateAuthority(directory);
    vault = await startFakeVault({ tls: await authority.issue('server') });
    vault.createKey('transit/k');
    const VAULT_TOKEN = vault.createToken({ 'transit/*': ['update'] });
    environment = { VAULT_ADDR: vault.address, VAULT_TOKEN, VAULT_CACERT: authority.certificate };
  });
  after(() => vault.close());

  test('a layer key goes there and comes back', () => roundTrip('hashivault://k', [], environment));

  for (const [login, credentials] of [
    ['kubernetes', { role: 'node', jwt: 'ey.service.account' }],
    ['jwt', { role: 'node', jwt: 'ey.job' }],
    ['approle', { role_id: 'node', secret_id: 's-e-c-r-e-t' }],
  ] as const) {
    test(`a layer key comes back after the ${login} login, which is refused with other credentials`, async () => {
      vault.permitLogin(login, credentials, { 'transit/*': ['update'] });
      const words = [`--vault-login=${login}`, '--vault-role=node'];
      const { VAULT_TOKEN: _, ...withoutToken } = environment;
      const file = await write(login, `${Object.values(credentials)[1]}\n`);
      await roundTrip('hashivault://k', [...words, `--vault-credentials=${file}`], withoutToken);
      const other = await write(`${login}-other`, 'other\n');
      const refused = await doctor(['hashivault://k', ...words, `--vault-credentials=${other}`], withoutToken);
      assert.deepEqual([refused.status, refused.report.keys[0].error.code], [77, 'unauthenticated']);
    });
  }

  test('a service that is sealed, behind, on standby or over its quota is asked again, and answers in the end', async () => {
    for (const [status, headers] of [[503], [412], [472], [473], [429, { 'Retry-After': '0' }]] as const) {
      vault.server.faults.push({ kind: 'answer', status, body: '{"errors":["later"]}', ...(headers && { headers }) });
      await roundTrip('hashivault://k', [], environment);
    }
    vault.sealed = true;
    const sealed = await doctor(['hashivault://k'], environment);
    vault.sealed = false;
    assert.deepEqual([sealed.status, sealed.report.keys[0].error.code], [69, 'unavailable']);
  });

  test('the doctor says what to grant, and ends with the code of the first failure', async () => {
    const good = await doctor(['hashivault://k'], environment);
    assert.equal(good.status, 0);
    const [probe] = good.report.keys;
    assert.deepEqual([probe.ok, probe.backend, probe.wrapped.version], [true, 'hashivault', '1']);
    assert.deepEqual(phasesOf(probe), ['open', 'wrap', 'unwrap']);
    vault.setDenied('transit/decrypt/k');
    const denied = await doctor(['hashivault://k', 'hashivault://missing'], environment);
    vault.setDenied(undefined);
    assert.equal(denied.status, 77);
    assert.match(denied.report.keys[0].error.hint, /path "transit\/decrypt\/k" \{ capabilities = \["update"\] \}/);
    assert.equal(denied.report.keys[1].error.code, 'refused');
    // The last one is the one that failed.
    assert.deepEqual(denied.report.keys.map(phasesOf), [
      ['open', 'wrap', 'unwrap'],
      ['open', 'wrap'],
    ]);
  });
});

describe('age through the executable', () => {
  for (const [kind, generate] of [
    ['age1', generateX25519Identity],
    ['age1pq1', generateHybridIdentity],
  ] as const) {
    test(`a layer key is wrapped to ${kind} and opened by the identity file alone`, async () => {
      const secret = await generate();
      const file = await write(`${kind}.txt`, `# an identity\n${secret}\n`);
      const recipient = await identityToRecipient(secret);
      const wrapped = await runExecutable(['keyprovider'], { input: wrapRequest([recipient]) });
      assert.equal(wrapped.status, 0, wrapped.stderr);
      const packet = Buffer.from(JSON.parse(wrapped.stdout.toString()).keywrapresults.annotation, 'base64');
      const input = unwrapRequest(packet);
      const unwrapped = await runExecutable(['keyprovider', `--key=${file}`], { input });
      assert.deepEqual([unwrapped.status, unwrapped.stdout.toString()], [0, REPLY]);
      const without = await runExecutable(['keyprovider'], { input });
      assert.equal(without.status, 77);
      const other = await write('other.txt', await generateX25519Identity());
      assert.equal((await runExecutable(['keyprovider', `--key=${other}`], { input })).status, 77);
    });
  }

  test('each identity of a file opens what is for it, alone and in a server', async (t) => {
    const secrets = [await generateX25519Identity(), await generateHybridIdentity(), await generateX25519Identity()];
    const key = `--key=${await write('ids.txt', `# three identities\n${secrets.join('\n')}\n`)}`;
    const { addresses } = await serve(t, [`--listen=unix://${join(directory, 'age.sock')}`, key]);
    for (const secret of secrets) {
      const wrapped = await runExecutable(['keyprovider'], { input: wrapRequest([await identityToRecipient(secret)]) });
      const { keywrapresults } = JSON.parse(wrapped.stdout.toString());
      const input = unwrapRequest(Buffer.from(keywrapresults.annotation, 'base64'));
      for (const words of [[key], [`--remote=${addresses[0]}`]]) {
        const { status, stdout, stderr } = await runExecutable(['keyprovider', ...words], { input });
        assert.deepEqual([status, stdout.toString(), stderr], [0, REPLY, '']);
      }
    }
  });

  test('a protected identity file takes its passphrase from a file, and says so without', async () => {
    const encrypter = new Encrypter();
    encrypter.setPassphrase('one two three');
    encrypter.setScryptWorkFactor(10);
    const secret = await generateX25519Identity();
    const file = await write('protected.age', await encrypter.encrypt(`${secret}\n`));
    const passphrase = await write('passphrase', 'one two three\n');
    await roundTrip(await identityToRecipient(secret), [`--key=${file}`, `--age-passphrase-file=${passphrase}`]);
    const { status, report } = await doctor([`--key=${file}`]);
    assert.deepEqual([status, report.keys[0].error.code], [77, 'unauthenticated']);
  });
});

const hsm = await ensureSoftHsm();
describe('a token through the executable', () => {
  if ('missing' in hsm) {
    test('with SoftHSM', (t) => {
      if (process.env.CI === 'true') throw new Error(hsm.missing);
      t.skip(hsm.missing);
    });
    return;
  }
  let environment: Environment;
  let words: readonly string[];
  before(async () => {
    environment = { SOFTHSM2_CONF: await useTokenStore(directory) };
    createToken(hsm, 'executable', '13572468').createAesKey('k');
    words = [`--pkcs11-module=${hsm.module}`, `--pkcs11-binding=${hsm.binding}`];
  });
  const KEY = 'pkcs11:token=executable;object=k';

  test('a layer key goes there and comes back', async () => {
    const pin = await write('pin', '13572468\n');
    await roundTrip(KEY, [...words, `--pkcs11-pin-file=${pin}`], environment);
    await roundTrip(KEY, [...words, '--pkcs11-pin-env=PIN'], { ...environment, PIN: '13572468' });
  });

  test('a wrong PIN is tried by the first process only', async () => {
    const pin = await write('wrong-pin', '00000000\n');
    const messages = [];
    for (let layer = 0; layer < 3; layer++) {
      const { status, report } = await doctor([...words, `--pkcs11-pin-file=${pin}`, KEY], environment);
      assert.equal(status, 77);
      messages.push(report.keys[0].error.message);
    }
    assert.notEqual(messages[0], messages[1]);
    assert.equal(messages[1], messages[2]);
  });

  test('the compiled package is missed by name', async () => {
    const { status, report } = await doctor([`--pkcs11-module=${hsm.module}`, KEY], environment);
    assert.equal(status, 78);
    assert.match(report.keys[0].error.hint, /pkcs11js/);
  });
});
