// Image commands beside skopeo, in turns: speed, processor time and memory, from layouts and a registry, one layer and
// eight; and new keys for an image, which skopeo can only give by decrypting and encrypting all of it.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { writeImage } from '../test/fixtures/images.ts';
import { writeRsaKey } from '../test/fixtures/keys.ts';
import { clientEnvironment } from '../test/real-clients/process.ts';
import { type Registry, startRegistry } from '../test/real-clients/registry.ts';
import { toolArgv } from '../test/real-clients/tools.ts';
import { toolPath } from '../tools/process.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { print, printMachine, printRow } from './measure.ts';
import type { Usage, UsageTask } from './usage.ts';

const RUNS = 3;
const MIB = 1024 * 1024;
const WHOLE = 512;
const USAGE = fileURLToPath(new URL('usage.ts', import.meta.url));

/** What one contender does; what it writes is made away with before and after. */
type Entrant = {
  readonly name: string;
  readonly words: readonly (readonly string[])[];
  readonly removes: readonly string[];
  /** MiB of layers that go through it; speed means nothing where none do. */
  readonly size?: number;
};

/** Prints MB/s, CPU seconds and peak memory, each the median, and how many times skopeo's speed. */
export async function run({ runs = RUNS }: BenchOptions): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'bench-'));
  const registry = await startRegistry();
  try {
    const bench = new ImageBench(directory, registry, await toolArgv('skopeo'), runs);
    printMachine();
    for (const [name, count] of [
      ['one', 1],
      ['eight', 8],
    ] as const) {
      const layers = Array.from({ length: count }, () => ({
        size: (WHOLE / count) * MIB,
        compression: 'zstd' as const,
      }));
      await writeImage(join(directory, name), { layers, seed: name });
      await bench.compareImage(name, count);
    }
    const four = Array.from({ length: 4 }, () => ({ size: WHOLE * MIB, compression: 'zstd' as const }));
    await rm(join(directory, 'eight'), { recursive: true });
    await writeImage(join(directory, 'four'), { layers: four, seed: 'four' });
    await bench.compareRewrap();
  } finally {
    await registry.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

class ImageBench {
  readonly #directory: string;
  readonly #registry: Registry;
  readonly #skopeo: readonly string[];
  readonly #runs: number;
  readonly #access: readonly string[];

  constructor(directory: string, registry: Registry, skopeo: readonly string[], runs: number) {
    this.#directory = directory;
    this.#registry = registry;
    this.#skopeo = skopeo;
    this.#runs = runs;
    this.#access = [`--ca=${registry.authority}`];
  }

  async compareImage(name: string, count: number): Promise<void> {
    const { publicKey, privateKey } = await writeRsaKey(this.#directory, name);
    const source = this.#oci(name);
    const title = `${count} × ${WHOLE / count} MiB`;
    const size = WHOLE;
    await this.#compare(`encrypt, ${title}, layout to layout`, [
      this.#theirs(['--encryption-key', `jwe:${publicKey}`], source, 'theirs', size),
      this.#ours('encrypt', [`--recipient=jwe:${publicKey}`], source, 'ours', size),
    ]);
    await this.#run([EXECUTABLE, 'encrypt', source, this.#oci('encrypted'), `--recipient=jwe:${publicKey}`]);
    await this.#compare(`decrypt, ${title}, layout to layout`, [
      this.#theirs(['--decryption-key', privateKey], this.#oci('encrypted'), 'theirs', size),
      this.#ours('decrypt', [`--key=${privateKey}`], this.#oci('encrypted'), 'ours', size),
    ]);
    await rm(join(this.#directory, 'encrypted'), { recursive: true });
    const remote = this.#registry.reference(`${name}:encrypted`);
    await this.#compare(`encrypt, ${title}, layout to registry`, [
      this.#theirs(['--encryption-key', `jwe:${publicKey}`], source, remote, size),
      this.#ours('encrypt', [`--recipient=jwe:${publicKey}`], source, remote, size),
    ]);
    await this.#compare(`decrypt, ${title}, registry to layout`, [
      this.#theirs(['--decryption-key', privateKey], remote, 'theirs', size),
      this.#ours('decrypt', [`--key=${privateKey}`], remote, 'ours', size),
    ]);
  }

  async compareRewrap(): Promise<void> {
    const before = await writeRsaKey(this.#directory, 'before');
    const after = await writeRsaKey(this.#directory, 'after');
    const encrypted = this.#oci('encrypted');
    await this.#run([EXECUTABLE, 'encrypt', this.#oci('four'), encrypted, `--recipient=jwe:${before.publicKey}`]);
    await rm(join(this.#directory, 'four'), { recursive: true });
    const opened = this.#theirs(['--decryption-key', before.privateKey], encrypted, 'opened', undefined);
    const again = this.#theirs(['--encryption-key', `jwe:${after.publicKey}`], this.#oci('opened'), 'again', undefined);
    const keys = [`--key=${before.privateKey}`, `--recipient=jwe:${before.publicKey}`];
    await this.#compare(`new keys, 4 × ${WHOLE} MiB`, [
      { name: 'skopeo copy, twice', words: [...opened.words, ...again.words], removes: ['opened', 'again'] },
      { name: 'ocicrypt-kms rewrap', words: [[EXECUTABLE, 'rewrap', encrypted, ...keys]], removes: [] },
    ]);
  }

  async #compare(title: string, entrants: readonly Entrant[]): Promise<void> {
    const usages: Usage[][] = entrants.map(() => []);
    // The first round settles caches and is not counted.
    for (let round = 0; round <= this.#runs; round++) {
      for (const [index, { words, removes }] of entrants.entries()) {
        const each: Usage[] = [];
        for (const command of words) each.push(await this.#run(command));
        if (round > 0) usages[index]?.push(sum(each));
        for (const name of removes) await rm(join(this.#directory, name), { recursive: true, force: true });
      }
    }
    printRow(title, 'speed', 'ratio', 'CPU', 'memory');
    const base = median((usages[0] ?? []).map(({ seconds }) => seconds));
    for (const [index, { name, size }] of entrants.entries()) {
      const of = (figure: keyof Usage) => median((usages[index] ?? []).map((usage) => usage[figure]));
      const seconds = of('seconds');
      const speed =
        size === undefined ? `${seconds.toFixed(2)} s` : `${((size * MIB) / 1e6 / seconds).toFixed(0)} MB/s`;
      const memory = `${(of('memory') / MIB).toFixed(0)} MiB`;
      printRow(`  ${name}`, speed, `× ${(base / seconds).toFixed(2)}`, `${of('cpu').toFixed(2)} s`, memory);
    }
    print('');
  }

  #theirs(options: readonly string[], from: string, to: string, size: number | undefined): Entrant {
    const certificates = this.#registry.certificateDirectory;
    const flags = [
      ...(from.startsWith('docker:') ? ['--src-cert-dir', certificates] : []),
      ...(to.startsWith('docker:') ? ['--dest-cert-dir', certificates] : []),
    ];
    const words = [
      ...this.#skopeo,
      '--insecure-policy',
      'copy',
      '--quiet',
      ...flags,
      ...options,
      from,
      this.#place(to),
    ];
    return { name: 'skopeo copy', words: [words], removes: removable(to), ...(size === undefined ? {} : { size }) };
  }

  #ours(command: string, options: readonly string[], from: string, to: string, size: number): Entrant {
    const words = [EXECUTABLE, command, from, this.#place(to), ...this.#access, ...options];
    return { name: `ocicrypt-kms ${command}`, words: [words], removes: removable(to), size };
  }

  #place(name: string): string {
    return name.startsWith('docker:') ? name : this.#oci(name);
  }

  #oci(name: string): string {
    return `oci:${join(this.#directory, name)}:latest`;
  }

  /** Not synchronously: the registry's log is read in this process, and the registry waits when it is not. */
  async #run(words: readonly string[]): Promise<Usage> {
    const environment = Object.entries(clientEnvironment()).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, value] as const],
    );
    const task: UsageTask = { words, environment: Object.fromEntries(environment) };
    const { stdout } = await promisify(execFile)(toolPath('bun'), [USAGE, JSON.stringify(task)]);
    return JSON.parse(stdout);
  }
}

function removable(to: string): readonly string[] {
  return to.startsWith('docker:') ? [] : [to];
}

function sum(usages: readonly Usage[]): Usage {
  return {
    seconds: usages.reduce((total, usage) => total + usage.seconds, 0),
    cpu: usages.reduce((total, usage) => total + usage.cpu, 0),
    memory: Math.max(...usages.map(({ memory }) => memory)),
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
