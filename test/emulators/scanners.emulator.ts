// What syft says of an image before and after it is encrypted, in a layout and in a registry: a row of the table in docs/ci.md.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { createImageWorkspace, type ImageWorkspace } from '../end-to-end/image-workspace.ts';
import { succeed } from '../end-to-end/workspace.ts';
import { fetchGo } from '../peers/fetched.ts';
import { CRANE } from '../peers/image-makers.ts';
import { type RunResult, runClient } from '../real-clients/process.ts';
import { type Registry, startRegistry } from '../real-clients/registry.ts';

const SYFT = 'github.com/anchore/syft/cmd/syft@v1.57.1';

/** A package as Alpine's apk writes it down, which is found in the plain image. */
const INSTALLED = 'P:hidden-package\nV:1.2.3-r4\nA:x86_64\nS:1\nI:1\nT:a package\nU:https://example.com\nL:MIT\n\n';
const RELEASE = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.22.0\n';

describe('a scanner', () => {
  const cleanups: (() => unknown)[] = [];
  const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
  let workspace: ImageWorkspace;
  let registry: Registry;
  let name: string;
  before(async () => {
    workspace = await createImageWorkspace(t);
    registry = await startRegistry();
    t.after(registry.stop);
    name = registry.reference('app').replace('docker://', '');
    const { path, key, oci, ours } = workspace;
    await mkdir(path('root/lib/apk/db'), { recursive: true });
    await mkdir(path('root/etc'));
    await mkdir(path('home'));
    await writeFile(path('root/lib/apk/db/installed'), INSTALLED);
    await writeFile(path('root/etc/os-release'), RELEASE);
    await succeed(runClient(['tar', '-C', path('root'), '-cf', path('layer.tar'), 'etc', 'lib']));
    const words = ['--platform=linux/amd64', '--new_layer=layer.tar', `--new_tag=${name}:plain`];
    await succeed(run(await fetchGo(CRANE), 'append', ...words));
    const [plain, encrypted] = ['plain', 'encrypted'].map((tag) => `docker://${name}:${tag}`);
    assert.ok(plain && encrypted);
    const trust = `--ca=${registry.authority}`;
    await ours('encrypt', plain, encrypted, `--recipient=${key.uri}`, trust);
    await ours('encrypt', plain, oci('encrypted'), `--recipient=${key.uri}`, trust);
    await ours('decrypt', encrypted, oci('plain'), `--key=${key.file}`, trust);
  });
  after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup();
  });

  async function run(program: string, ...words: readonly string[]): Promise<RunResult> {
    // It would look elsewhere for a newer version of itself.
    const env = { HOME: workspace.path('home'), SSL_CERT_FILE: registry.authority, SYFT_CHECK_FOR_APP_UPDATE: 'false' };
    return runClient([program, ...words], { env, cwd: workspace.directory, limit: 120_000 });
  }

  test('syft lists the plain image, and refuses the encrypted one by the type of its layer', async () => {
    const syft = await fetchGo(SYFT);
    const scan = (source: string) => run(syft, 'scan', '--output=cyclonedx-json', source);
    for (const place of [(tag: string) => `oci-dir:${tag}`, (tag: string) => `registry:${name}:${tag}`]) {
      assert.deepEqual(packagesOf(await succeed(scan(place('plain')))), ['hidden-package']);
      const { exitCode, stderr } = await scan(place('encrypted'));
      assert.equal(exitCode, 1);
      assert.match(stderr, /unsupported layer media type\(s\): layer 0: \S+\+encrypted/);
    }
  });
});

/** The packages of a list in CycloneDX, without the system itself. */
function packagesOf({ stdout }: RunResult): readonly string[] {
  const { components = [] }: { readonly components?: readonly { readonly type: string; readonly name: string }[] } =
    JSON.parse(new TextDecoder().decode(stdout));
  return components.filter(({ type }) => type === 'library').map(({ name }) => name);
}
