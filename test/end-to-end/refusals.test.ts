// What a person sees when an image cannot be encrypted or opened: our one line within skopeo's, and an end in good time.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import type { ErrorCode } from '../../src/base/errors.ts';
import { GoogleIdentities } from '../fakes/google-identities.ts';
import { writeImage } from '../fixtures/images.ts';
import { clientEnvironment } from '../real-clients/process.ts';
import { copy, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients, toolArgv } from '../real-clients/tools.ts';
import { type Google, startGoogle } from './google.ts';
import { assertRefusal, createWorkspace, keyprovider, readImage, succeed, type Workspace } from './workspace.ts';

/** skopeo has no deadline of its own, the provider has 10 seconds; the rest is for a machine that is busy. */
const PATIENCE = 20_000;

describe('with a local key', () => {
  test('another key is refused with the key that the image needs', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { encrypted, key, decrypt, keygen } = await prepareLocal(t);
    const wrong = await keygen('wrong.key');
    const line = assertRefusal(await decrypt(encrypted, wrong.uri), 'not-allowed', key.thumbprint, '--key=FILE');
    assert.equal(line.name, 'ocicrypt-kms');
    assertRefusal(await decrypt(encrypted), 'not-allowed', key.thumbprint, '--key=FILE');
  });

  test('a key file that is not there is refused with the command that makes one', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { source, encrypt, path } = await prepareLocal(t);
    const file = path('missing.key');
    assertRefusal(await encrypt(source, `keyfile://${file}`), 'not-found', file, 'ocicrypt-kms keygen');
  });

  test('a key file that others can read is refused', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { encrypted, key, decrypt } = await prepareLocal(t);
    await chmod(key.file, 0o644);
    assertRefusal(await decrypt(encrypted, key.uri), 'configuration', key.file, 'chmod');
  });

  test('a value that is no key is refused with the forms that there are', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { source, encrypt } = await prepareLocal(t);
    assertRefusal(await encrypt(source, 'gcpkms://projects/acme/keys/typo'), 'bad-input', 'cryptoKeys');
    assertRefusal(await encrypt(source), 'bad-input', '--kmsURI');
  });
});

type Case = {
  readonly title: string;
  readonly code: ErrorCode;
  /** What is in the line beside the key; the key stands in all of them. */
  readonly hint: string;
  readonly arrange: (google: Google, workspace: Workspace) => Promise<readonly string[]> | readonly string[];
};

/** Options that lead to the service, but with other credentials. */
const withCredentials = ({ kms, authority }: Google, file: string) => [
  ...[`--adc=${file}`, `--gcp-endpoint=${kms.endpoint}`, `--ca=${authority}`],
];

const CASES: readonly Case[] = [
  {
    title: 'a service that denies is said with the role to grant',
    ...{ code: 'refused', hint: '--role roles/cloudkms.cryptoKeyDecrypter' },
    arrange(google) {
      google.kms.deny(google.email, 'decrypt');
      return google.options;
    },
  },
  {
    title: 'a key that was deleted is said with the command that lists keys',
    ...{ code: 'not-found', hint: 'gcloud kms keys list --project acme' },
    arrange(google) {
      google.kms.deleteKey(google.resource);
      return google.options;
    },
  },
  {
    title: 'a key version that is disabled is said with the command that shows versions',
    ...{ code: 'key-disabled', hint: 'gcloud kms keys versions list' },
    arrange(google) {
      google.kms.setState(google.resource, 1, 'DISABLED');
      return google.options;
    },
  },
  {
    title: 'a key that was made anew under the old name cannot open the image',
    ...{ code: 'integrity', hint: 'the image was encrypted to another key' },
    arrange(google) {
      google.createKey('key1');
      return google.options;
    },
  },
  {
    title: 'a service that throttles is said after it was asked again',
    ...{ code: 'throttled', hint: 'quota of project acme' },
    arrange(google) {
      const body = JSON.stringify({ error: { code: 429, status: 'RESOURCE_EXHAUSTED', message: 'Quota exceeded.' } });
      google.kms.server.setFault(() => ({ kind: 'answer', status: 429, body }));
      return google.options;
    },
  },
  {
    title: 'a service that is down is said',
    ...{ code: 'unavailable', hint: '127.0.0.1' },
    async arrange(google) {
      await google.kms.close();
      return google.options;
    },
  },
  {
    title: 'a service that hangs is given up',
    ...{ code: 'deadline-exceeded', hint: '--timeout' },
    arrange(google) {
      google.kms.server.setFault(() => ({ kind: 'silent' }));
      return google.options;
    },
  },
  {
    title: 'a service that hangs is given up sooner where the operator says so',
    ...{ code: 'deadline-exceeded', hint: '--timeout' },
    arrange(google) {
      google.kms.server.setFault(() => ({ kind: 'silent-after-headers' }));
      return [...google.options, '--timeout=700ms'];
    },
  },
  {
    title: 'a service whose certificate is of an unknown authority is not spoken to',
    ...{ code: 'unavailable', hint: '--ca FILE' },
    arrange: ({ kms, credentials }) => [`--adc=${credentials}`, `--gcp-endpoint=${kms.endpoint}`],
  },
  {
    title: 'credentials that the service does not know are said',
    ...{ code: 'unauthenticated', hint: 'gcloud auth application-default' },
    async arrange(google, { path }) {
      const stranger = path('stranger.json');
      const account = new GoogleIdentities().createServiceAccount('stranger');
      await writeFile(stranger, JSON.stringify(account), { mode: 0o600 });
      return withCredentials(google, stranger);
    },
  },
];

describe('with Google Cloud KMS', { concurrency: true }, () => {
  for (const { title, code, hint, arrange } of CASES) {
    test(title, async (t) => {
      if (!(await realClients(t, ['skopeo']))) return;
      const { google, workspace, encrypted, decrypt } = await prepareGoogle(t);
      const options = await arrange(google, workspace);
      const started = performance.now();
      assertRefusal(await decrypt(encrypted, options, google.key), code, google.key, hint);
      assert.ok(performance.now() - started < PATIENCE, 'the provider must end by itself');
    });
  }

  test('credentials that are garbage are refused with the file and what it should be', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { google, workspace, encrypted, decrypt } = await prepareGoogle(t);
    const garbage = workspace.path('garbage.json');
    const missing = workspace.path('missing.json');
    for (const content of [
      '',
      'garbage',
      '{"type":"service_account"}',
      '{"type":"service_account","private_key":"x"}',
    ]) {
      await writeFile(garbage, content, { mode: 0o600 });
      const refused = await decrypt(encrypted, withCredentials(google, garbage), google.key);
      assertRefusal(refused, 'configuration', garbage, 'gcloud auth application-default login');
    }
    const refused = await decrypt(encrypted, withCredentials(google, missing), google.key);
    assertRefusal(refused, 'not-found', missing);
  });

  test('a client that is killed leaves no provider behind', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { google, workspace, encrypted } = await prepareGoogle(t);
    google.kms.server.setFault(() => ({ kind: 'silent' }));
    const log = workspace.path('debug.log');
    const options = [...google.options, '--timeout=2s', `--debugLog=${log}`];
    const config = await writeOcicryptConfig(workspace.path('hangs.json'), { kmscrypt: keyprovider(...options) });
    const [command, ...words] = await toolArgv('skopeo');
    const decryption = ['--decryption-key', `provider:kmscrypt:${google.key}`, encrypted, workspace.oci('opened')];
    const before = google.kms.server.requests.length;
    const skopeo = spawn(command, [...words, '--insecure-policy', 'copy', ...decryption], {
      ...{ env: clientEnvironment(config), stdio: 'ignore' },
    });
    await until(() => google.kms.server.requests.length > before);
    skopeo.kill('SIGKILL');
    await once(skopeo, 'exit');

    await until(async () => (await readFile(log, 'utf8').catch(() => '')).includes('deadline-exceeded'));
    const { pid }: { readonly pid: number } = JSON.parse((await readFile(log, 'utf8')).trim().split('\n').at(-1) ?? '');
    await until(() => !isRunning(pid));
  });

  test('encryption that the service denies leaves no image behind', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { google, workspace, source, encrypt } = await prepareGoogle(t);
    google.kms.deny(google.email, 'encrypt');
    const refused = await encrypt(source, 'denied', google.options, google.key);
    assertRefusal(refused, 'refused', google.key, '--role roles/cloudkms.cryptoKeyEncrypter');
    await google.kms.close();
    const down = await encrypt(source, 'denied', google.options, google.key);
    assertRefusal(down, 'unavailable', google.key, '127.0.0.1');
    await assert.rejects(readImage(workspace.path('denied')));
  });

  test('a key that is not allowed is refused with the line that would allow it, and no byte leaves', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { google, workspace, encrypted, decrypt } = await prepareGoogle(t);
    const trap = await startTrap(t);
    const options = [`--adc=${google.credentials}`, `--gcp-endpoint=https://127.0.0.1:${trap.port}`];
    const other = 'gcpkms://projects/acme/locations/global/keyRings/ocikeyring/cryptoKeys/key2';
    const cases: readonly (readonly [readonly string[], string?])[] = [
      // The caller named nothing, so only the operator's list counts.
      [options],
      [[...options, `--allow=${other}`]],
      [[...options, '--allow=gcpkms://projects/other/*']],
      // The caller named another key than the image has.
      [options, other],
    ];
    for (const [more, named] of cases) {
      const refused = await decrypt(encrypted, more, named);
      assertRefusal(refused, 'not-allowed', google.key, `--allow=${google.key}`);
    }
    assert.equal(trap.connections(), 0);
    // What the hint says works.
    const allowed = [...google.options, `--allow=${google.key}`];
    await succeed(decrypt(encrypted, allowed));
    assert.ok((await readImage(workspace.path('opened'))).layers.length > 0);
  });

  test('a --kmsURI that is not the key which the caller named is refused with both', async (t) => {
    if (!(await realClients(t, ['skopeo']))) return;
    const { google, source, encrypt } = await prepareGoogle(t);
    const other = google.createKey('key2');
    const refused = await encrypt(source, 'conflict', [...google.options, `--kmsURI=${other}`], google.key);
    assertRefusal(refused, 'bad-input', google.key, other);
  });
});

async function prepareLocal(t: TestContext) {
  const workspace = await createWorkspace(t);
  const { path, oci } = workspace;
  const key = await workspace.keygen('app.key');
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: keyprovider() });
  const source = (await writeImage(path('plain'))).reference;
  const parameter = (value?: string) => (value === undefined ? 'provider:kmscrypt' : `provider:kmscrypt:${value}`);
  const encrypt = (image: string, value?: string) =>
    copy(image, oci('encrypted'), { env, encryptionKeys: [parameter(value)] });
  const decrypt = (image: string, value?: string) =>
    copy(image, oci('opened'), { env, decryptionKeys: [parameter(value)] });
  await succeed(encrypt(source, key.uri));
  return { ...workspace, key, source, encrypted: oci('encrypted'), encrypt, decrypt };
}

async function prepareGoogle(t: TestContext) {
  const workspace = await createWorkspace(t);
  const { path, oci } = workspace;
  const google = await startGoogle(t, workspace);
  const source = (await writeImage(path('plain'))).reference;
  const parameter = (value?: string) => (value === undefined ? 'provider:kmscrypt' : `provider:kmscrypt:${value}`);
  const configure = (options: readonly string[]) =>
    writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: keyprovider(...options) });
  const encrypt = async (image: string, to: string, options: readonly string[], value?: string) =>
    copy(image, oci(to), { env: await configure(options), encryptionKeys: [parameter(value)] });
  const decrypt = async (image: string, options: readonly string[], value?: string) =>
    copy(image, oci('opened'), { env: await configure(options), decryptionKeys: [parameter(value)] });
  await succeed(encrypt(source, 'encrypted', google.options, google.key));
  return { google, workspace, source, encrypted: oci('encrypted'), encrypt, decrypt };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE;
  while (!(await condition())) {
    assert.ok(performance.now() < end, 'it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A process that ended and that nobody has waited for counts as ended. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** A listener that nobody may ever connect to. */
async function startTrap(t: TestContext) {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => void server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return { port: address.port, connections: () => connections };
}
