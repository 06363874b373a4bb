// A key of one kind loads nothing of another kind: neither its file nor its vendor's packages.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { COMPILED } from '../fixtures/compiled.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const LIBRARY = new URL('../../src/index.ts', import.meta.url).href;
const HOOKS = pathToFileURL(fileURLToPath(new URL('../fixtures/loaded-modules.mjs', import.meta.url))).href;
const directory = mkdtempSync(join(tmpdir(), 'loading-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** The packages that one kind of key alone may load; its files are the folder of its name. */
const PACKAGES: Readonly<Record<string, RegExp>> = {
  gcpkms: /^(?:google-auth-library|gaxios|gcp-metadata|jws|jwa)$/,
  awskms: /^@(?:aws-sdk|smithy|aws-crypto)\//,
  azurekms: /^@(?:azure|azure-rest)\//,
  pkcs11: /^pkcs11js$/,
  age: /^(?:age-encryption|@noble\/.*|@scure\/.*)$/,
};

const identity = await generateX25519Identity();
writeFileSync(join(directory, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
writeFileSync(join(directory, 'local.key'), Buffer.alloc(32, 7), { mode: 0o600 });

/** Keys of every kind, and whether the probe can succeed without a service; what fails has loaded its kind all the same. */
const KEYS: Readonly<Record<string, string>> = {
  gcpkms: 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  awskms: 'awskms:///arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012',
  azurekms: 'azurekms://example.vault.azure.net/k',
  hashivault: 'hashivault://k',
  pkcs11: 'pkcs11:token=t;object=k',
  age: await identityToRecipient(identity),
  kbs: 'kbs:///default/key/id',
  keyfile: `keyfile://${join(directory, 'local.key')}`,
};

/** Where nobody listens: no test of this file speaks to a network. */
const NOWHERE = {
  HOME: directory,
  HTTPS_PROXY: 'http://127.0.0.1:1',
  VAULT_ADDR: 'https://127.0.0.1:1',
  VAULT_TOKEN: 'none',
  AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
  AWS_SECRET_ACCESS_KEY: 'secret',
  AZURE_TOKEN_CREDENTIALS: 'EnvironmentCredential',
  METADATA_SERVER_DETECTION: 'none',
};

/** Opens a key as a program does that uses the library, and asks it once; that it fails is no matter here. */
const PROGRAM = `
  const { createKekStore, parseKeyUri } = await import('${LIBRARY}');
  const { env: environment, argv: [, key] } = process;
  const cloud = { environment };
  const store = createKekStore({
    age: { identityFiles: [] }, awskms: cloud, azurekms: cloud, gcpkms: cloud, hashivault: cloud,
    kbs: { files: new Map() }, pkcs11: { modules: [], oaepSha1: false, environment },
  });
  const signal = AbortSignal.timeout(2000);
  await store.open(parseKeyUri(key)).then((kek) => kek.wrap(new Uint8Array(32), {}, signal)).catch(() => {});
  await store.close();`;

for (const [kind, key] of Object.entries(KEYS)) {
  const doctor = [MAIN, 'doctor', key, `--key=${join(directory, 'identity.txt')}`, '--timeout=2s'];
  for (const [door, words] of [
    ['the command', doctor],
    ['the library', ['--input-type=module', '--eval', PROGRAM, key]],
  ] as const) {
    test(`${door} loads nothing of another kind for a key of ${kind}`, async () => {
      const loaded = await modulesLoadedBy(words);
      const kinds = new Set(loaded.flatMap((url) => /\/src\/kms\/([^/]+)\//.exec(url)?.[1] ?? []));
      const packages = loaded.flatMap((url) => url.split('/node_modules/').at(-1) ?? []);
      const names = packages.map((path) => /^(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? '');
      // The library offers createKeyfile by its front door.
      if (door === 'the library') kinds.delete('keyfile');
      assert.deepEqual([...kinds], kind === 'keyfile' && door === 'the library' ? [] : [kind]);
      for (const [other, own] of Object.entries(PACKAGES)) {
        if (other !== kind)
          assert.deepEqual(
            names.filter((name) => own.test(name)),
            [],
            `of ${other}`,
          );
      }
    });
  }
}

test('Google’s library is loaded for those credentials alone whose tokens are not asked for here', async () => {
  const user = { type: 'authorized_user', client_id: 'c', client_secret: 's', refresh_token: 'r' };
  const workload = (source: object) => ({
    ...{ type: 'external_account', audience: 'a', subject_token_type: 't', credential_source: source },
    service_account_impersonation_url: 'https://iamcredentials.googleapis.com/v1/a@b:generateAccessToken',
  });
  const token = join(directory, 'token');
  writeFileSync(token, 'token', { mode: 0o600 });
  for (const [json, expected] of [
    [user, false],
    [workload({ file: token }), false],
    [{ ...workload({}), type: 'impersonated_service_account', source_credentials: user }, false],
    [workload({ environment_id: 'aws1' }), true],
  ] as const) {
    const file = join(directory, 'adc.json');
    writeFileSync(file, JSON.stringify(json), { mode: 0o600 });
    const loaded = await modulesLoadedBy([MAIN, 'doctor', KEYS.gcpkms ?? '', `--adc=${file}`, '--timeout=2s']);
    assert.ok(loaded.some((url) => url.endsWith('/gcpkms/tokens.ts')));
    assert.equal(
      loaded.some((url) => url.includes('/google-auth-library/')),
      expected,
      JSON.stringify(json),
    );
  }
});

/** The URLs of all modules that Node loads for its words. */
async function modulesLoadedBy(words: readonly string[]): Promise<readonly string[]> {
  const child = spawn(process.execPath, ['--import', HOOKS, ...words], {
    env: { PATH: process.env.PATH ?? '', ...NOWHERE, ...COMPILED, LOADED_MODULES: '3' },
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const chunks: Buffer[] = [];
  const output = child.stdio[3];
  assert.ok(output !== null && output !== undefined);
  output.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(child, 'close');
  return Buffer.concat(chunks)
    .toString()
    .split('\n')
    .filter((line) => line !== '');
}
