// Real clients and the server: over a unix socket, over the loopback in clear, and by `--remote` over mTLS.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { blobPath, writeImage } from '../fixtures/images.ts';
import { serve } from '../fixtures/serve.ts';
import { decodeLayer } from '../real-clients/ctd-decoder.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy, type KeyProvider, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { createWorkspace, digests, isEncrypted, keyprovider, readImage, succeed, type Workspace } from './workspace.ts';

/** The name that the reference server's users have. */
const NAME = 'grpc-keyprovider';

test('skopeo encrypts and decrypts through the server over a unix socket', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('key');
  const { addresses } = await serve(t, [`--listen=unix://${workspace.path('s')}`, `--allow=${key.uri}`]);
  await roundTrip(workspace, { grpc: addresses[0] ?? '' }, key.uri);
});

test("skopeo encrypts and decrypts through the reference server's port", async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('key');
  const { addresses } = await serve(t, ['--grpcport=:0', `--kmsURI=${key.uri}`]);
  await roundTrip(workspace, { grpc: (addresses[0] ?? '').replace('tcp://', '') }, 'Enabled');
});

test('skopeo, whose ocicrypt has no TLS, encrypts and decrypts through the server over mTLS', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const workspace = await createWorkspace(t);
  const { path } = workspace;
  const key = await workspace.keygen('key');
  const authority = await createCertificateAuthority(path('certificates'));
  const server = await authority.issue('server');
  const client = await authority.issue('client', { names: ['builder.example'] });
  const { addresses } = await serve(t, [
    ...['--listen=tls://127.0.0.1:0', `--allow=${key.uri}`, '--allow-client=builder.example'],
    ...[`--tls-cert=${server.certificate}`, `--tls-key=${server.privateKey}`],
    `--tls-client-ca=${authority.certificate}`,
  ]);
  const provider = keyprovider(
    ...[`--remote=${addresses[0]}`, `--provider=${NAME}`, `--tls-ca=${authority.certificate}`],
    ...[`--tls-cert=${client.certificate}`, `--tls-key=${client.privateKey}`],
  );
  await roundTrip(workspace, provider, key.uri);
});

test('eight layers of a registry are opened side by side', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const workspace = await createWorkspace(t);
  const { path, oci } = workspace;
  const key = await workspace.keygen('key');
  const { addresses } = await serve(t, [`--listen=unix://${path('s')}`, `--allow=${key.uri}`]);
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { [NAME]: { grpc: addresses[0] ?? '' } });
  const registry = await startRegistry();
  t.after(registry.stop);
  const source = await writeImage(path('plain'), { layers: Array.from({ length: 8 }, () => ({ size: 100_000 })) });
  const remote = registry.reference('team/app:encrypted');
  const keys = [`provider:${NAME}:${key.uri}`];
  await succeed(copy(source.reference, remote, { registry, env, encryptionKeys: keys }));
  await succeed(copy(remote, oci('opened'), { registry, env, decryptionKeys: keys }));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
});

test('containerd opens a layer through the server, and says why where it may not', async (t) => {
  if (!(await realClients(t, ['skopeo', 'ctd-decoder']))) return;
  const workspace = await createWorkspace(t);
  const { path, oci } = workspace;
  const [key, other] = [await workspace.keygen('key'), await workspace.keygen('other')];
  const plain = await writeImage(path('plain'));
  const encryption = await writeOcicryptConfig(path('encrypt.json'), { [NAME]: keyprovider() });
  const encryptionKeys = [`provider:${NAME}:${key.uri}`];
  await succeed(copy(plain.reference, oci('encrypted'), { env: encryption, encryptionKeys }));
  const [layer] = (await readImage(path('encrypted'))).layers;
  assert.ok(layer !== undefined);
  const open = async (file: string, socket: string) => {
    const { addresses } = await serve(t, [`--listen=unix://${path(socket)}`, `--key=${file}`]);
    const env = await writeOcicryptConfig(path(`${socket}.json`), { [NAME]: { grpc: addresses[0] ?? '' } });
    return decodeLayer({ blob: blobPath(path('encrypted'), layer.digest), descriptor: layer, parameters: null, env });
  };
  const opened = await open(key.file, 's');
  assert.equal(opened.exitCode, 0, opened.stderr);
  const digest = `sha256:${createHash('sha256').update(opened.layer).digest('hex')}`;
  assert.equal(digest, plain.images[0].layers[0]?.digest);
  const refused = await open(other.file, 't');
  assert.notEqual(refused.exitCode, 0);
  assert.match(refused.stderr, /PermissionDenied/);
  assert.ok(refused.stderr.includes(key.thumbprint), refused.stderr);
});

async function roundTrip({ path, oci }: Workspace, provider: KeyProvider, value: string): Promise<void> {
  const env = await writeOcicryptConfig(path('ocicrypt.json'), { [NAME]: provider });
  const source = await writeImage(path('plain'), { layers: [{}, { size: 300_000 }] });
  const keys = [value === 'Enabled' ? `provider:${NAME}` : `provider:${NAME}:${value}`];
  await succeed(copy(source.reference, oci('encrypted'), { env, encryptionKeys: keys }));
  assert.ok((await readImage(path('encrypted'))).layers.every((layer) => isEncrypted(layer, NAME)));
  await succeed(copy(oci('encrypted'), oci('opened'), { env, decryptionKeys: [`provider:${NAME}`] }));
  assert.deepEqual(digests((await readImage(path('opened'))).layers), digests(source.images[0].layers));
}
