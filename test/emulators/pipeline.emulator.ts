// The order of docs/ci.md, with cosign and crane: scan, encrypt, verify, sign, deploy by digest; and what each of them says
// of an image that is encrypted.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { createImageWorkspace, type ImageWorkspace } from '../end-to-end/image-workspace.ts';
import { succeed } from '../end-to-end/workspace.ts';
import { readImages, writeImage } from '../fixtures/images.ts';
import { fetchGo } from '../peers/fetched.ts';
import { CRANE } from '../peers/image-makers.ts';
import { runtimeArgv } from '../peers/runtimes.ts';
import { type RunResult, runClient } from '../real-clients/process.ts';
import { type Registry, startRegistry } from '../real-clients/registry.ts';

/** Without a log of signatures, which would be a service elsewhere. */
const SIGN = ['--key=cosign.key', '--tlog-upload=false', '--yes'];
const CHECK = ['--key=cosign.pub', '--insecure-ignore-tlog=true'];

describe('a pipeline', () => {
  const cleanups: (() => unknown)[] = [];
  const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
  let workspace: ImageWorkspace;
  let registry: Registry;
  let image: string;
  let plain: string;
  let encrypted: string;
  before(async () => {
    workspace = await createImageWorkspace(t);
    registry = await startRegistry();
    t.after(registry.stop);
    image = registry.reference('app').replace('docker://', '');
    plain = (await writeImage(workspace.path('app'))).digest;
    await succeed(cosign('generate-key-pair'));
  });
  after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup();
  });

  const environment = () => ({ COSIGN_PASSWORD: '', SSL_CERT_FILE: registry.authority });

  async function cosign(...words: readonly string[]): Promise<RunResult> {
    return runClient([...(await runtimeArgv('cosign')), ...words], { env: environment(), cwd: workspace.directory });
  }

  async function crane(...words: readonly string[]): Promise<RunResult> {
    return runClient([await fetchGo(CRANE), ...words], { env: environment(), cwd: workspace.directory });
  }

  const ours = (...words: readonly string[]) => workspace.ours(...words, `--ca=${registry.authority}`);

  test('the plain image is scanned, encrypted on its way to the registry, and verified', async () => {
    const { key } = workspace;
    await writeFile(workspace.path('contents.json'), JSON.stringify({ bomFormat: 'CycloneDX', specVersion: '1.6' }));
    encrypted = (await ours('encrypt', workspace.oci('app'), `docker://${image}:1`, `--recipient=${key.uri}`)).digest;
    assert.match(encrypted, /^sha256:[0-9a-f]{64}$/);
    assert.notEqual(encrypted, plain);
    await ours('verify', `docker://${image}@${encrypted}`, `--require=${key.uri}`, `--only=${key.uri}`);
  });

  test('what was signed is the encrypted image, and the list of contents is attached to it', async () => {
    const name = `${image}@${encrypted}`;
    assert.notEqual((await cosign('verify', ...CHECK, name)).exitCode, 0, 'not signed yet');
    await succeed(cosign('sign', ...SIGN, name));
    await succeed(cosign('attest', ...SIGN, '--type=cyclonedx', '--predicate=contents.json', name));
    await succeed(cosign('verify', ...CHECK, name));
    await succeed(cosign('verify-attestation', ...CHECK, '--type=cyclonedx', name));
  });

  test('what is deployed by its digest is what was built', async () => {
    const name = `docker://${image}@${encrypted}`;
    await ours('decrypt', name, workspace.oci('deployed'), `--key=${workspace.key.file}`);
    assert.equal((await readImages(workspace.path('deployed')))[0]?.digest, plain);
  });

  test('crane copies the encrypted image as it is, and exports a layer of it without a word', async () => {
    const name = `${image}@${encrypted}`;
    const elsewhere = `${image}-copy`;
    await succeed(crane('copy', name, `${elsewhere}:1`));
    assert.equal(textOf(await succeed(crane('digest', `${elsewhere}:1`))).trim(), encrypted);
    await ours('decrypt', `docker://${elsewhere}:1`, workspace.oci('copied'), `--key=${workspace.key.file}`);
    assert.equal((await readImages(workspace.path('copied')))[0]?.digest, plain);
    const validated = await crane('validate', `--remote=${name}`);
    assert.equal(validated.exitCode, 1);
    assert.match(validated.stderr + textOf(validated), /mismatched number of diffids/);
    await succeed(crane('export', name, 'content.tar'));
    const { platforms } = JSON.parse((await ours('inspect', `docker://${name}`, '--json')).stdout);
    const exported = createHash('sha256').update(await readFile(workspace.path('content.tar')));
    assert.equal(`sha256:${exported.digest('hex')}`, platforms[0].layers[0].digest, 'the ciphertext, as a tar');
  });

  test('an image whose recipients have changed is signed again', async () => {
    const { uri } = await workspace.keygen('colleague.key');
    const changed = await ours('rewrap', `docker://${image}:1`, `--add=${uri}`, `--key=${workspace.key.file}`);
    const name = `${image}@${changed.digest}`;
    assert.notEqual((await cosign('verify', ...CHECK, name)).exitCode, 0);
    await succeed(cosign('sign', ...SIGN, name));
    await succeed(cosign('verify', ...CHECK, name));
  });
});

function textOf({ stdout }: RunResult): string {
  return new TextDecoder().decode(stdout);
}
