// Runs podman, buildah, containerd and CRI-O's pull for the table of names: Debian 13's, in their own storage.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describeError, OcicryptError } from '../../src/base/errors.ts';
import type { Runtime } from '../../src/image/runtimes.ts';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { clientEnvironment, type Environment, type RunResult, runClient } from '../real-clients/process.ts';
import type { Registry } from '../real-clients/registry.ts';
import { type Argv, CLIENT_PACKAGES, namespaceArgv } from '../real-clients/tools.ts';
import { pullImageByCri } from './cri.ts';
import { buildGoProgram } from './fetched.ts';

/** What becomes of an image that a runtime pulls, with keys, into a storage that is empty. */
export type Pull = (name: string, env: Environment) => Promise<Pick<RunResult, 'exitCode' | 'stderr'>>;

/** Where to work, which registry to trust, and how containerd is told of the provider. */
export type RuntimeOptions = {
  readonly directory: string;
  readonly registry: Registry;
  /** As `ocicrypt-kms config containerd --decoder=ctd-decoder` prints it; the path in it is replaced by the variable's of each pull. */
  readonly containerdConfig: string;
};

const PROVIDERS = '/etc/ocicrypt-kms/ocicrypt.json';
const PACKAGES = ['buildah', 'containerd', 'runc', 'cosign'];

/** containers/image as CRI-O 1.37 names it in its go.mod. */
const CRI_O_MODULES = [
  'go.podman.io/image/v5@v5.38.0',
  'go.podman.io/storage@v1.61.0',
  'github.com/containers/ocicrypt@v1.3.0',
];

/** The words that run a program of Debian 13: those that start containers, skopeo and cosign. */
export async function runtimeArgv(program: string): Promise<Argv> {
  return namespaceArgv([await fetchFromDebian(PACKAGES), await fetchFromDebian(CLIENT_PACKAGES)], program);
}

/** Every runtime, ready to pull. */
export async function createRuntimes(options: RuntimeOptions): Promise<Readonly<Record<Runtime, Pull>>> {
  const [podman, buildah, containerd] = await Promise.all(['podman', 'buildah', 'containerd'].map(runtimeArgv));
  if (podman === undefined || buildah === undefined || containerd === undefined) throw new Error('no runtime');
  const { registry } = options;
  const place = () => mkdtemp(join(options.directory, 'storage-'));
  const pullWith =
    (argv: Argv, words: readonly string[] = []): Pull =>
    async (name, env) => {
      const root = await place();
      const storage = [`--root=${root}/storage`, `--runroot=${root}/run`, '--storage-driver=vfs', ...words];
      const keys = ['--decryption-key=provider:kmscrypt', `--cert-dir=${registry.certificateDirectory}`];
      return runClient([...argv, ...storage, 'pull', '--quiet', ...keys, name], { env });
    };
  const criO = await buildGoProgram(new URL('cri-o-pull/', import.meta.url), CRI_O_MODULES, [
    'containers_image_openpgp',
    'exclude_graphdriver_btrfs',
  ]);
  return {
    podman: pullWith(podman, ['--cgroup-manager=cgroupfs', '--events-backend=none']),
    buildah: pullWith(buildah),
    'CRI-O': async (name, env) => runClient([criO, await place(), registry.certificateDirectory, name], { env }),
    containerd: async (name, env) => pullByContainerd(containerd, await place(), options, name, env),
  };
}

/** What each calls itself. */
export async function runtimeVersions(): Promise<Readonly<Record<Runtime, string>>> {
  const version = async (program: string) => {
    const { stdout } = await runClient([...(await runtimeArgv(program)), '--version']);
    return /\d+\.\d+\.\d+/.exec(new TextDecoder().decode(stdout))?.[0] ?? '';
  };
  return {
    podman: await version('podman'),
    buildah: await version('buildah'),
    'CRI-O': '1.37 (its call)',
    containerd: await version('containerd'),
  };
}

/** One containerd for each pull: what it has unpacked it does not ask for again. */
async function pullByContainerd(
  argv: Argv,
  root: string,
  { registry, containerdConfig }: RuntimeOptions,
  name: string,
  env: Environment,
): Promise<Pick<RunResult, 'exitCode' | 'stderr'>> {
  const hosts = join(root, 'certs', registry.host);
  await mkdir(hosts, { recursive: true });
  await writeFile(join(hosts, 'hosts.toml'), `[host."https://${registry.host}"]\nca = "${registry.authority}"\n`);
  const socket = join(root, 's');
  const settings = [
    'version = 2',
    'imports = ["ocicrypt.toml"]',
    `root = "${root}/root"`,
    `state = "${root}/state"`,
    '[grpc]',
    `address = "${socket}"`,
    '[plugins."io.containerd.grpc.v1.cri".containerd]',
    'snapshotter = "native"',
    '[plugins."io.containerd.grpc.v1.cri".registry]',
    `config_path = "${root}/certs"`,
  ];
  const dropIn = containerdConfig.replaceAll(PROVIDERS, env.OCICRYPT_KEYPROVIDER_CONFIG ?? join(root, 'none'));
  await writeFile(join(root, 'ocicrypt.toml'), dropIn);
  await writeFile(join(root, 'config.toml'), settings.join('\n'));
  const [command, ...words] = argv;
  const daemon = spawn(command, [...words, '--config', join(root, 'config.toml')], {
    env: clientEnvironment(env),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  try {
    return await pullByCri(daemon, socket, name);
  } finally {
    const closed = once(daemon, 'close');
    daemon.kill('SIGKILL');
    await closed;
    await rm(root, { recursive: true, force: true });
  }
}

async function pullByCri(
  daemon: ChildProcess,
  path: string,
  name: string,
): Promise<Pick<RunResult, 'exitCode' | 'stderr'>> {
  let log = '';
  daemon.stderr?.on('data', (chunk: Buffer) => (log += chunk));
  for (let attempt = 0; ; attempt++) {
    try {
      await pullImageByCri(path, name);
      return { exitCode: 0, stderr: '' };
    } catch (error) {
      const isStarting = error instanceof OcicryptError && error.code === 'unavailable' && !log.includes('PullImage');
      if (!isStarting || attempt === 100)
        return { exitCode: 1, stderr: `${describeError(error)}\n${log.slice(-4000)}` };
      await pause(100);
    }
  }
}
