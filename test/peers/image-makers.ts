// Has others' tools make an image in a registry: buildah, umoci, crane, oras and regctl.
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { runClient } from '../real-clients/process.ts';
import { copy } from '../real-clients/skopeo.ts';
import { type Argv, namespaceArgv } from '../real-clients/tools.ts';
import { fetchGo } from './fetched.ts';
import { runtimeArgv } from './runtimes.ts';

/** Where to work, and the registry, which speaks plain HTTP. */
export type Workshop = { readonly directory: string; readonly host: string };

export const CRANE = 'github.com/google/go-containerregistry/cmd/crane@v0.22.1';

/** Each makes an image of one layer at least, and answers its name: `HOST/NAME:TAG`. */
export const IMAGE_MAKERS: Readonly<Record<string, (workshop: Workshop) => Promise<string>>> = {
  async buildah({ directory, host }) {
    const root = join(directory, 'buildah');
    const policy = join(directory, 'policy.json');
    await writeFile(policy, JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }));
    const words = [`--root=${root}/storage`, `--runroot=${root}/run`, '--storage-driver=vfs'];
    const buildah = async (...args: readonly string[]) => run([...(await runtimeArgv('buildah')), ...words, ...args]);
    const container = await buildah('from', 'scratch');
    await buildah('copy', container, join(directory, 'content'), '/content');
    const how = [`--signature-policy=${policy}`, '--tls-verify=false', '--quiet'];
    await buildah('commit', ...how, container, `docker://${host}/buildah:plain`);
    return `${host}/buildah:plain`;
  },

  async umoci({ directory, host }) {
    const layout = join(directory, 'umoci');
    const argv = namespaceArgv([await fetchFromDebian(['umoci'])], 'umoci');
    await run([...argv, 'init', '--layout', layout]);
    await run([...argv, 'new', '--image', `${layout}:plain`]);
    await run([...argv, 'insert', '--image', `${layout}:plain`, join(directory, 'content'), '/content']);
    const to = `${host}/umoci:plain`;
    const copied = await copy(`oci:${layout}:plain`, `docker://${to}`, { extra: ['--dest-tls-verify=false'] });
    assert.equal(copied.exitCode, 0, copied.stderr);
    return to;
  },

  async crane({ directory, host }) {
    const to = `${host}/crane:plain`;
    await run([await fetchGo(CRANE), 'append', `--new_layer=${join(directory, 'layer.tar')}`, `--new_tag=${to}`]);
    return to;
  },

  async oras({ directory, host }) {
    const to = `${host}/oras:plain`;
    const config = join(directory, 'config.json');
    await writeFile(
      config,
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] } }),
    );
    const oras = await fetchGo('oras.land/oras/cmd/oras@v1.3.6');
    const content = [
      '--config=config.json:application/vnd.oci.image.config.v1+json',
      'layer.tar:application/vnd.oci.image.layer.v1.tar',
    ];
    await run([oras, 'push', '--plain-http', to, ...content], directory);
    return to;
  },

  async regctl({ directory, host }) {
    const to = `${host}/regctl:plain`;
    const regctl = await fetchGo('github.com/regclient/regclient/cmd/regctl@v0.11.7');
    const plain = [regctl, '--host', `reg=${host},tls=disabled`] as const;
    await run([...plain, 'image', 'create', to]);
    await run([...plain, 'image', 'mod', '--replace', '--layer-add', `tar=${join(directory, 'layer.tar')}`, to]);
    return to;
  },
};

/** What the makers put into their images. */
export async function fillWorkshop(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'content'), 'content of an image\n'.repeat(5000));
  await run(['tar', '-C', directory, '-cf', join(directory, 'layer.tar'), 'content']);
  assert.ok((await readFile(join(directory, 'layer.tar'))).length > 100_000);
}

async function run(argv: Argv, cwd?: string): Promise<string> {
  const { exitCode, stdout, stderr } = await runClient(argv, cwd === undefined ? {} : { cwd });
  assert.equal(exitCode, 0, `${argv.join(' ')}: ${stderr}`);
  return new TextDecoder().decode(stdout).trim();
}
