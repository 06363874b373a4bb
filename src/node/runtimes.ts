// Finds the container runtimes of a node: those that run, and those that are installed.

import { dirname, join } from 'node:path';
import { findProgram, isDirectory, isExecutable, namesIn, readText } from './files.ts';
import { findProcesses, type RunningProcess } from './processes.ts';
import { lastComplaint, outputText, runProgram } from './programs.ts';
import { parseVersion, type RuntimeVersion } from './versions.ts';

/** A containerd, and who brings it: k3s and RKE2 write its configuration anew at each start, docker too. */
export type Containerd = {
  readonly kind: 'containerd' | 'k3s' | 'rke2' | 'docker';
  /** Its program; undefined if it cannot be run from here. */
  readonly program: string | undefined;
  readonly config: string;
  readonly version: RuntimeVersion | undefined;
  readonly running: RunningProcess | undefined;
  /** The service to restart; undefined if there is none here. */
  readonly unit: string | undefined;
};

export type Crio = { readonly running: RunningProcess | undefined; readonly unit: string | undefined };

export type Runtimes = {
  readonly containerds: readonly Containerd[];
  readonly crio: Crio | undefined;
  readonly hasDocker: boolean;
  readonly hasPodman: boolean;
};

/** Where programs of services lie. */
export const SERVICE_DIRECTORIES = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
const UNIT_DIRECTORIES = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

const CONFIGS = {
  containerd: '/etc/containerd/config.toml',
  k3s: '/var/lib/rancher/k3s/agent/etc/containerd/config.toml',
  rke2: '/var/lib/rancher/rke2/agent/etc/containerd/config.toml',
} as const;

/** The containerds of which nothing is here but their configuration: no program says what they read. @param found all others */
export function leftContainerds(root: string, found: readonly Containerd[]): readonly Containerd[] {
  return Object.values(CONFIGS)
    .filter((config) => !found.some((one) => one.config === config) && readText(join(root, config)) !== undefined)
    .map((config) => ({ ...describe(root, config, undefined), program: undefined }));
}

/**
 * Looks at processes and programs. Below another root than `/` nothing is run.
 *
 * @param said the version of containerd, if it cannot be asked
 */
export async function findRuntimes(root: string, said?: RuntimeVersion): Promise<Runtimes> {
  const isHere = root === '/';
  const running = isHere ? findProcesses('containerd') : [];
  const found = running.map((one): Containerd => describe(root, configOf(one), one));
  const hasConfig = (config: string) => found.some((one) => one.config === config);
  if (!hasConfig(CONFIGS.containerd) && findProgram(root, SERVICE_DIRECTORIES, 'containerd') !== undefined)
    found.push(describe(root, CONFIGS.containerd, undefined));
  for (const kind of ['k3s', 'rke2'] as const) {
    const isThere =
      isDirectory(join(root, dirname(CONFIGS[kind]))) || findProgram(root, SERVICE_DIRECTORIES, kind) !== undefined;
    if (isThere && !hasConfig(CONFIGS[kind])) found.push(describe(root, CONFIGS[kind], undefined));
  }
  const crio = isHere ? findProcesses('crio') : [];
  const hasCrio = crio.length > 0 || findProgram(root, SERVICE_DIRECTORIES, 'crio') !== undefined;
  return {
    containerds: await Promise.all(
      found.map(async (one) => ({
        ...one,
        version: (isHere && one.program !== undefined ? await versionOf(one.program) : undefined) ?? said,
      })),
    ),
    crio: hasCrio
      ? { running: crio[0], unit: unitOf(root, ['crio.service', 'cri-o.service']) ?? crio[0]?.service }
      : undefined,
    hasDocker: findProgram(root, SERVICE_DIRECTORIES, 'dockerd') !== undefined,
    hasPodman: findProgram(root, SERVICE_DIRECTORIES, 'podman') !== undefined,
  };
}

/** What containerd says its settings are, from all files; or why it cannot read them. */
export async function dumpConfig({
  program,
  config,
  running,
}: Containerd): Promise<{ readonly text: string } | { readonly problem: string } | undefined> {
  if (program === undefined) return undefined;
  const isThere = readText(config) !== undefined;
  const ask = (...words: readonly string[]) => runProgram([program, ...words], environmentOf(running));
  const dumped = await ask(...(isThere ? ['-c', config] : []), 'config', 'dump');
  // containerd 1 has no file that it cannot do without, but its dump has.
  const ended = isThere || dumped.status === 0 ? dumped : await ask('config', 'default');
  const text = outputText(ended);
  if (text !== undefined) return { text };
  return ended.status === undefined ? undefined : { problem: lastComplaint(ended) };
}

/** The variables that a service's programs see. */
export function environmentOf(running: RunningProcess | undefined): { readonly environment: NodeJS.ProcessEnv } {
  return { environment: running?.environment ?? { PATH: SERVICE_DIRECTORIES.join(':') } };
}

function configOf({ words }: RunningProcess): string {
  const at = words.findIndex((word) => /^--?c(?:onfig)?(?:=|$)/.test(word));
  const word = words[at] ?? '';
  const file = word.includes('=') ? word.slice(word.indexOf('=') + 1) : words[at + 1];
  return at < 0 || file === undefined ? CONFIGS.containerd : file;
}

function describe(root: string, config: string, running: RunningProcess | undefined): Containerd {
  const kind = /\/k3s\//.test(config)
    ? 'k3s'
    : /\/rke2\//.test(config)
      ? 'rke2'
      : /\/docker\//.test(config)
        ? 'docker'
        : 'containerd';
  // The usual units are those of the usual files: of others the process alone says whose it is.
  const isUsual = kind !== 'containerd' || config === CONFIGS.containerd;
  const installed = findProgram(root, directoriesOf(root, kind), 'containerd');
  const program = running !== undefined && isExecutable(running.program) ? running.program : installed;
  const units = {
    containerd: ['containerd.service'],
    docker: ['docker.service'],
    k3s: ['k3s.service', 'k3s-agent.service'],
    rke2: ['rke2-server.service', 'rke2-agent.service'],
  }[kind];
  return {
    kind,
    program: root === '/' ? program : undefined,
    config,
    version: undefined,
    running,
    unit: (isUsual ? unitOf(root, units) : undefined) ?? running?.service,
  };
}

/** Where their programs lie: k3s and RKE2 unpack theirs, and never start the one of the system. */
function directoriesOf(root: string, kind: Containerd['kind']): readonly string[] {
  if (kind === 'k3s') return ['/var/lib/rancher/k3s/data/current/bin'];
  const data = '/var/lib/rancher/rke2/data';
  return kind === 'rke2' ? namesIn(join(root, data)).map((name) => join(data, name, 'bin')) : SERVICE_DIRECTORIES;
}

/** The first of these units that there is: of k3s and RKE2 a node has one. */
function unitOf(root: string, names: readonly string[]): string | undefined {
  return names.find((name) => UNIT_DIRECTORIES.some((directory) => namesIn(join(root, directory)).includes(name)));
}

/** What a containerd says of itself; undefined if there is no such program. */
export async function versionOf(program: string): Promise<RuntimeVersion | undefined> {
  return parseVersion(outputText(await runProgram([program, '--version'])) ?? '');
}

/** How a containerd is called where a person reads of it. */
export function runtimeName({ kind, config, version }: Containerd): string {
  const number = version === undefined ? '' : ` ${version.join('.')}`;
  const usual = config === CONFIGS.containerd || kind !== 'containerd';
  return `${kind === 'containerd' ? 'containerd' : `containerd of ${kind}`}${number}${usual ? '' : ` (${config})`}`;
}
