// Coming from the reference provider: its users' files, its flags and its images, with the path of the command changed.

import assert from 'node:assert/strict';
import { readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Image, writeImage } from '../fixtures/images.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy, type KeyProvider, skopeo, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { startGoogle } from './google.ts';
import {
  assertRefusal,
  createWorkspace,
  DIST,
  digests,
  executable,
  keyprovider,
  packetsOf,
  readImage,
  referenceProvider,
  succeed,
} from './workspace.ts';

test("the reference provider's README works with its own ocicrypt.json once the path is changed", async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { google, path, oci, source } = await prepare(t);
  const registry = await startRegistry();
  t.after(registry.stop);
  // SSL_CERT_FILE is for the registry, as its README has it; Google is reached all the same.
  const env = {
    ...(await google.internet()),
    SSL_CERT_FILE: registry.authority,
    GOOGLE_APPLICATION_CREDENTIALS: google.credentials,
    OCICRYPT_KEYPROVIDER_CONFIG: path('ocicrypt.json'),
  };
  const files = [
    `{
    "key-providers": {
      "kmscrypt": {
        "cmd": {
          "path": "/full/path/to/kms_oci_crypt",
          "args": []
        }
      }
    }
}`,
    `{
  "key-providers": {
    "kmscrypt": {
      "cmd": {
        "path": "/full/path/to/kms_oci_crypt",
        "args": [
          "--adc=/path/to/application_default_credentials.json"
        ]
      }
    }
  }
}`,
    `{
  "key-providers": {
    "kmscrypt": {
      "cmd": {
        "path": "/full/path/to/kms_oci_crypt",
        "args": []
      }
    },
    "grpc-keyprovider": {
      "grpc": "localhost:50051"
    }
  }
}`,
  ];
  for (const [index, file] of files.entries()) {
    const edited = file
      .replace('/full/path/to/kms_oci_crypt', executable('kms_oci_crypt'))
      .replace('/path/to/application_default_credentials.json', google.credentials);
    await writeFile(path('ocicrypt.json'), edited);
    // With --adc there, no variable needs to name the credentials.
    const { GOOGLE_APPLICATION_CREDENTIALS: _, ...without } = env;
    const variables = file.includes('--adc') ? without : env;
    const [encrypted, decrypted] = [
      registry.reference(`app:encrypted${index}`),
      registry.reference(`app:decrypted${index}`),
    ];
    const extra = (keys: string) => [`${keys}=provider:kmscrypt:${google.key}`];
    await succeed(copy(source.reference, encrypted, { env: variables, extra: extra('--encryption-key') }));
    await succeed(copy(encrypted, decrypted, { env: variables, extra: extra('--decryption-key') }));
    const raw = await succeed(skopeo(['inspect', '--raw', encrypted], { env: variables }));
    const stored: Image = JSON.parse(raw.stdout);
    for (const layer of stored.layers) assertReferencePacket(packetsOf(layer), google.key);
    await succeed(copy(decrypted, oci(`back${index}`), { env: variables }));
    assert.deepEqual(digests((await readImage(path(`back${index}`))).layers), digests(source.images[0].layers));
  }
});

test('every spelling of its flags is taken, and its debug log holds no key', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { google, path, oci, source } = await prepare(t);
  const internet = await google.internet();
  const log = path('debug.log');
  const spellings = [
    ['--adc', google.credentials, '--kmsURI', google.key, '--debugLog', log],
    [`--adc=${google.credentials}`, `--kmsURI=${google.key}`, `--debugLog=${log}`],
    ['-adc', google.credentials, '-kmsURI', google.key, '-debugLog', log],
    [`-adc=${google.credentials}`, `-kmsURI=${google.key}`, `-debugLog=${log}`],
  ];
  for (const [index, words] of spellings.entries()) {
    const config = await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: referenceProvider(...words) });
    const env = { ...internet, ...config };
    const name = `encrypted${index}`;
    // --kmsURI says which key, so that the caller need not.
    await succeed(copy(source.reference, oci(name), { env, encryptionKeys: ['provider:kmscrypt'] }));
    for (const layer of (await readImage(path(name))).layers) assertReferencePacket(packetsOf(layer), google.key);
    await succeed(copy(oci(name), oci(`opened${index}`), { env, decryptionKeys: ['provider:kmscrypt'] }));
  }
  const text = await readFile(log, 'utf8');
  assert.ok(text.includes(google.key));
  assert.ok(!/symkey|PRIVATE KEY|Bearer/.test(text));
});

test('an annotation that the reference provider made is opened by either name', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { google, path, oci, source } = await prepare(t);
  const script = fileURLToPath(new URL('reference-stand-in.ts', import.meta.url));
  const theirs = { cmd: { path: process.execPath, args: [script, google.kms.endpoint, google.accessToken()] } };
  const config = await writeOcicryptConfig(path('theirs.json'), { kmscrypt: theirs });
  const encryption = { env: { ...config, NODE_EXTRA_CA_CERTS: google.authority } };
  await succeed(
    copy(source.reference, oci('encrypted'), { ...encryption, encryptionKeys: [`provider:kmscrypt:${google.key}`] }),
  );
  for (const layer of (await readImage(path('encrypted'))).layers) assertReferencePacket(packetsOf(layer), google.key);

  const opens = async (provider: KeyProvider, ...names: readonly string[]) => {
    const ours = await writeOcicryptConfig(path('ours.json'), { kmscrypt: provider });
    const env = { ...(await google.internet()), ...ours };
    for (const name of names) {
      await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: [`provider:kmscrypt:${name}`] }));
      assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
    }
  };
  await opens(keyprovider(...google.options), google.key);
  // A version of the key and the key are one there, as its users expect.
  const reference = referenceProvider(`--adc=${google.credentials}`);
  await opens(reference, google.key, `${google.key}/cryptoKeyVersions/1`);
});

test('a --kmsURI that is not the key which the user typed is refused and not used in its place', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { google, path, oci, source } = await prepare(t);
  const other = google.createKey('key2');
  const provider = referenceProvider(`--adc=${google.credentials}`, `--kmsURI=${other}`);
  const env = {
    ...(await google.internet()),
    ...(await writeOcicryptConfig(path('ocicrypt.json'), { kmscrypt: provider })),
  };
  const refused = await copy(source.reference, oci('refused'), {
    env,
    encryptionKeys: [`provider:kmscrypt:${google.key}`],
  });
  const line = assertRefusal(refused, 'bad-input', google.key, other);
  assert.equal(line.name, 'kms_oci_crypt');
  assert.equal(google.kms.server.requests.length, 0);
});

test('what is no single Google key is written as v2 under either name, and as v1 never', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { google, path, oci, source, keygen } = await prepare(t);
  const local = await keygen('local.key');
  const internet = await google.internet();
  const configure = async (...words: string[]) => ({
    ...internet,
    ...(await writeOcicryptConfig(path('ocicrypt.json'), {
      kmscrypt: referenceProvider(`--adc=${google.credentials}`, ...words),
    })),
  });
  const encryptionKeys = [`provider:kmscrypt:${google.key}`, `provider:kmscrypt:${local.uri}`];
  await succeed(copy(source.reference, oci('both'), { env: await configure(), encryptionKeys }));
  for (const layer of (await readImage(path('both'))).layers) {
    const [packet = ''] = packetsOf(layer);
    assert.ok(packet.includes(google.key) && packet.includes(local.thumbprint));
    assert.ok(!packet.includes('"key_url"'));
  }
  const refused = await copy(source.reference, oci('refused'), { env: await configure('--packet=v1'), encryptionKeys });
  assertRefusal(refused, 'bad-input', '--packet v2');
});

test('kms_oci_crypt is a link to ocicrypt-kms', async () => {
  assert.equal(await readlink(join(DIST, 'kms_oci_crypt')), 'ocicrypt-kms');
});

async function prepare(t: TestContext) {
  const workspace = await createWorkspace(t);
  const google = await startGoogle(t, workspace);
  const source = await writeImage(workspace.path('plain'), { layers: [{}, {}] });
  return { ...workspace, google, source };
}

/** The three members that the reference provider writes, in its order and its way, and no other byte. */
function assertReferencePacket(packets: readonly string[], key: string): void {
  const [packet = '', ...others] = packets;
  assert.equal(others.length, 0);
  const { key_url, wrapped_key, wrap_type }: Record<string, unknown> = JSON.parse(packet);
  assert.equal(packet, JSON.stringify({ key_url, wrapped_key, wrap_type }));
  assert.equal(key_url, key);
  assert.equal(wrap_type, 'AES');
  assert.ok(typeof wrapped_key === 'string' && /^[A-Za-z0-9+/]+={0,2}$/.test(wrapped_key));
}
