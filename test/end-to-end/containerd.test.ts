// containerd's own path: ctd-decoder starts the provider without a parameter, so that configuration alone decides.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { blobPath, type ImageOptions, writeImage } from '../fixtures/images.ts';
import { decodeLayer } from '../real-clients/ctd-decoder.ts';
import { copy, type KeyProvider, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { startGoogle } from './google.ts';
import {
  assertRefusal,
  createWorkspace,
  keyprovider,
  readImage,
  referenceProvider,
  succeed,
  type Workspace,
} from './workspace.ts';

test('containerd opens a layer with a policy from options alone', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { google, open } = await prepare(t);
  for (const allow of [google.key, 'gcpkms://projects/acme/*']) {
    const { layer, opened } = await open(keyprovider(...google.options, `--allow=${allow}`));
    assert.equal(opened.exitCode, 0, opened.stderr);
    assert.equal(digest(opened.layer), layer);
  }
});

test('containerd opens a layer with everything in a configuration file', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { google, open, path } = await prepare(t);
  const configuration = [
    'allow:',
    `  - ${google.key}`,
    'gcpkms:',
    `  adc: ${google.credentials}`,
    `  endpoint: ${google.kms.endpoint}`,
    'ca:',
    `  - ${google.authority}`,
    `audit-log: ${path('audit.log')}`,
  ];
  await writeFile(path('config.yaml'), configuration.join('\n'));
  const { layer, opened } = await open(keyprovider(`--config=${path('config.yaml')}`));
  assert.equal(opened.exitCode, 0, opened.stderr);
  assert.equal(digest(opened.layer), layer);
});

test('containerd opens layers of every compression with a local key', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('node.key');
  const provider = keyprovider(`--key=${key.file}`);
  for (const compression of ['gzip', 'zstd'] as const) {
    const { layer, opened } = await roundTrip(workspace, {
      ...{ encryptWith: keyprovider(), key: key.uri, decryptWith: provider, image: { layers: [{ compression }] } },
    });
    assert.equal(opened.exitCode, 0, opened.stderr);
    assert.equal(digest(opened.layer), layer);
  }
});

test('without a matching --allow containerd is refused, and no byte leaves the host', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { google, open } = await prepare(t);
  let connections = 0;
  const trap = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve));
  t.after(() => void trap.close());
  const address = trap.address();
  assert.ok(typeof address === 'object' && address !== null);
  const url = `https://127.0.0.1:${address.port}`;
  const options = [`--adc=${google.credentials}`, `--gcp-endpoint=${url}`, `--ca=${google.authority}`];
  // The trap stands at the endpoint, at the proxy, and at the metadata server.
  const env = {
    ...{
      HTTPS_PROXY: url.replace('https', 'http'),
      GCE_METADATA_HOST: url.slice(8),
      METADATA_SERVER_DETECTION: 'ping-only',
    },
  };
  const other = `${google.key}2`;
  for (const decryptWith of [
    keyprovider(...options),
    keyprovider(...options, `--allow=${other}`),
    keyprovider(...options, '--allow=gcpkms://projects/acme2/*'),
    keyprovider(),
    referenceProvider(),
    referenceProvider(`-kmsURI=${other}`),
  ]) {
    const { opened } = await open(decryptWith, env);
    assertRefusal(opened, 'not-allowed', google.key, `--allow=${google.key}`);
    assert.equal(opened.layer.length, 0);
  }
  assert.equal(connections, 0);
});

test("a node that runs the reference provider's command opens a layer with its --kmsURI", async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const { google, open } = await prepare(t);
  const internet = await google.internet();
  const provider = referenceProvider(`-adc=${google.credentials}`, '-kmsURI', google.key);
  const { layer, opened } = await open(provider, internet);
  assert.equal(opened.exitCode, 0, opened.stderr);
  assert.equal(digest(opened.layer), layer);
});

async function prepare(t: TestContext) {
  const workspace = await createWorkspace(t);
  const google = await startGoogle(t, workspace);
  const open = (decryptWith: KeyProvider, env?: Readonly<Record<string, string>>) =>
    roundTrip(workspace, {
      ...{ encryptWith: keyprovider(...google.options), key: google.key, decryptWith },
      ...(env === undefined ? {} : { env }),
    });
  return { ...workspace, google, open };
}

type RoundTrip = {
  readonly encryptWith: KeyProvider;
  readonly key: string;
  readonly decryptWith: KeyProvider;
  readonly image?: ImageOptions;
  readonly env?: Readonly<Record<string, string>>;
};

let count = 0;

/** Encrypts an image of one layer with skopeo and opens that layer as containerd's CRI does: `Parameters` is null. */
async function roundTrip({ path, oci }: Workspace, { encryptWith, key, decryptWith, image, env }: RoundTrip) {
  const name = `image-${count++}`;
  const plain = await writeImage(path(`${name}-plain`), image);
  const encryption = await writeOcicryptConfig(path('encrypt.json'), { kmscrypt: encryptWith });
  await succeed(copy(plain.reference, oci(name), { env: encryption, encryptionKeys: [`provider:kmscrypt:${key}`] }));
  const [descriptor] = (await readImage(path(name))).layers;
  assert.ok(descriptor);
  const decryption = await writeOcicryptConfig(path('decrypt.json'), { kmscrypt: decryptWith });
  const opened = await decodeLayer({
    ...{ blob: blobPath(path(name), descriptor.digest), descriptor, parameters: null },
    env: { ...env, ...decryption },
  });
  return { layer: plain.images[0].layers[0]?.digest, opened };
}

function digest(layer: Uint8Array): string {
  return `sha256:${createHash('sha256').update(layer).digest('hex')}`;
}
