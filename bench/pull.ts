// Pulls of encrypted images beside plain ones on a real containerd, by our decoder and by ctd-decoder with our provider; or on
// a real CRI-O (`--crio=PROGRAM`), with our provider as a command and as a server.

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { keyprovider } from '../test/end-to-end/workspace.ts';
import { writeImage } from '../test/fixtures/images.ts';
import { pull } from '../test/nodes/clients.ts';
import { streamProcessors } from '../test/nodes/configuration.ts';
import { clearCrio, clearNode, createLab, type Lab } from '../test/nodes/lab.ts';
import { type Node, whyNoNode } from '../test/nodes/node.ts';
import { runClient } from '../test/real-clients/process.ts';
import { copy } from '../test/real-clients/skopeo.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { print, printMachine, printRow } from './measure.ts';

const RUNS = 3;
const MIB = 1024 * 1024;
const HERTZ = 100;

type Images = {
  readonly title: string;
  /** What is pulled at the same time. */
  readonly images: number;
  readonly layers: number;
  /** Bytes of each layer. */
  readonly size: number;
  readonly promised: number;
};

const ALL: readonly Images[] = [
  { title: 'one layer of 2 GiB', images: 1, layers: 1, size: 2048 * MIB, promised: 1.05 },
  { title: '30 layers of 2 MiB', images: 1, layers: 30, size: 2 * MIB, promised: 1.1 },
  { title: 'four images of 256 MiB at once', images: 4, layers: 1, size: 256 * MIB, promised: 1.05 },
  { title: 'four images of 30 layers of 2 MiB at once', images: 4, layers: 30, size: 2 * MIB, promised: 1.1 },
];

type Contender = {
  readonly name: string;
  readonly node: Node;
  /** Programs of the node, by the names under which they were started. */
  readonly programs: readonly string[];
  readonly repository: 'encrypted' | 'plain';
  /** Whether something was promised of it. */
  readonly isOurs?: boolean;
};
type Cost = { readonly seconds: number; readonly processor: number };
type Cleanup = Parameters<Lab['start']>[0];

const PROVIDERS = '/etc/ocicrypt.json';
const VARIABLES = { OCICRYPT_KEYPROVIDER_CONFIG: PROVIDERS };

/** Prints the seconds and processor seconds of a pull, the median of both, and their ratio to that of the plain image. */
export async function run({ runs = RUNS, only = '', crio }: BenchOptions): Promise<void> {
  const complaint = await whyNoNode();
  if (complaint !== undefined) return print(complaint);
  const cleanups: (() => unknown)[] = [];
  const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
  try {
    const lab = await createLab(t, []);
    printMachine();
    const contenders = crio === undefined ? await startContainerds(lab, t) : await startCrios(lab, t, resolve(crio));
    for (const [index, images] of ALL.filter(({ title }) => title.includes(only)).entries()) {
      for (let image = 0; image < images.images; image++) await push(lab, `${index}-${image}`, images);
      await compare(lab, `${index}`, images, contenders, runs);
    }
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
  }
}

/** The plain image first; a decoder is started for each layer, by containerd. */
async function startContainerds(lab: Lab, t: Cleanup): Promise<readonly Contender[]> {
  const start = (dropIn: string) => {
    const files = { '/etc/containerd/conf.d/ocicrypt.toml': dropIn, [PROVIDERS]: providers(lab) };
    return lab.start(t, { containerd: 'trixie', files });
  };
  const ours = await start(streamProcessors({ path: EXECUTABLE, args: ['decoder', `--key=${lab.key.file}`] }));
  const env = Object.entries(VARIABLES).map((pair) => pair.join('='));
  const theirs = await start(streamProcessors({ path: 'ctd-decoder', env, uncompresses: false }));
  const programs = ['containerd'];
  return [
    { name: `plain, containerd ${ours.version}`, node: ours, programs, repository: 'plain' },
    { name: 'ocicrypt-kms decoder', node: ours, programs, repository: 'encrypted', isOurs: true },
    { name: 'ctd-decoder with ocicrypt-kms', node: theirs, programs, repository: 'encrypted' },
  ];
}

/** The plain image first. CRI-O decrypts by itself, and asks the provider for the key of each layer: a command, or a server. */
async function startCrios(lab: Lab, t: Cleanup, program: string): Promise<readonly Contender[]> {
  const start = (text: string) => lab.startCrio(t, program, { files: { [PROVIDERS]: text }, variables: VARIABLES });
  const command = await start(providers(lab));
  const address = 'unix:///run/ocicrypt-kms/socket';
  const server = await start(JSON.stringify({ 'key-providers': { kmscrypt: { grpc: address } } }));
  await server.run(['mkdir', '-m', '700', '/run/ocicrypt-kms']);
  await server.start('serve', [EXECUTABLE, 'serve', `--listen=${address}`, `--key=${lab.key.file}`]);
  return [
    { name: `plain, CRI-O ${command.version}`, node: command, programs: ['crio'], repository: 'plain' },
    { name: 'by the command', node: command, programs: ['crio'], repository: 'encrypted', isOurs: true },
    { name: 'by the server', node: server, programs: ['crio', 'serve'], repository: 'encrypted', isOurs: true },
  ];
}

function providers({ key }: Lab): string {
  return JSON.stringify({ 'key-providers': { kmscrypt: keyprovider(`--key=${key.file}`) } });
}

async function push({ registry, key, path }: Lab, tag: string, { layers, size }: Images): Promise<void> {
  const layer = { size, isText: true };
  const { reference } = await writeImage(path(tag), { seed: tag, layers: Array.from({ length: layers }, () => layer) });
  await copy(reference, registry.reference(`plain:${tag}`), { registry });
  const words = ['--recipient', key.uri, `--ca=${registry.authority}`];
  const { exitCode, stderr } = await runClient([
    EXECUTABLE,
    'encrypt',
    reference,
    registry.reference(`encrypted:${tag}`),
    ...words,
  ]);
  if (exitCode !== 0) throw new Error(stderr);
}

async function compare(
  { registry }: Lab,
  tag: string,
  { title, images, promised }: Images,
  contenders: readonly Contender[],
  runs: number,
): Promise<void> {
  const costs: Cost[][] = contenders.map(() => []);
  // The first round settles caches and is not counted.
  for (let round = 0; round <= runs; round++) {
    for (const [index, contender] of contenders.entries()) {
      const { node, repository } = contender;
      const names = Array.from({ length: images }, (_, image) => `${registry.host}/${repository}:${tag}-${image}`);
      const cost = await measure(contender, names);
      if (round > 0) costs[index]?.push(cost);
      await (node.service.name === 'crio' ? clearCrio : clearNode)(node);
    }
  }
  const [base] = costs;
  printRow(title, 'ratio', 'promised', 'median', 'processor');
  for (const [index, { name, isOurs = false }] of contenders.entries()) {
    const seconds = median(costs[index], 'seconds');
    const limit = isOurs ? `≤ ${promised.toFixed(2)}` : '';
    const processor = `${median(costs[index], 'processor').toFixed(1)} s`;
    printRow(`  ${name}`, (seconds / median(base, 'seconds')).toFixed(2), limit, `${seconds.toFixed(1)} s`, processor);
  }
  print('');
}

async function measure({ node, programs }: Contender, names: readonly string[]): Promise<Cost> {
  const before = await processorSeconds(node, programs);
  const began = performance.now();
  const outcomes = await Promise.all(names.map((name) => pull(node, 'CRI', name)));
  const seconds = (performance.now() - began) / 1000;
  const failed = outcomes.find(({ exitCode }) => exitCode !== 0);
  if (failed !== undefined) throw new Error(failed.text);
  return { seconds, processor: (await processorSeconds(node, programs)) - before };
}

/** Of programs, and of what they have started and waited for. proc_pid_stat(5) */
async function processorSeconds(node: Node, programs: readonly string[]): Promise<number> {
  let ticks = 0;
  for (const program of programs) {
    const pid = (await readFile(node.path(`/run/${program}.pid`), 'utf8')).trim();
    const stat = await readFile(node.path(join('/proc', pid, 'stat')), 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // utime, stime, cutime and cstime are the fields 14 to 17, of which two stand before the last parenthesis.
    ticks += fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  }
  return ticks / HERTZ;
}

function median(costs: readonly Cost[] | undefined, figure: keyof Cost): number {
  const sorted = (costs ?? []).map((cost) => cost[figure]).toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
