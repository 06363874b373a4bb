// The process that runs one command and says what it took (image.ts): a task as JSON on the command line, JSON on
// standard output. Run by Bun, whose account of a child has its processor time and the most memory it had.

/** A command and all of its environment. */
export type UsageTask = { readonly words: readonly string[]; readonly environment: Readonly<Record<string, string>> };

/** Seconds on the clock and of all cores together, and bytes. */
export type Usage = { readonly seconds: number; readonly cpu: number; readonly memory: number };

type Finished = {
  readonly exitCode: number;
  readonly stderr: Uint8Array;
  readonly resourceUsage: { readonly maxRSS: number; readonly cpuTime: { readonly total: bigint | number } };
};

type Spawn = (words: readonly string[], options: object) => Finished;

if (process.argv[2] !== undefined) {
  const task: UsageTask = JSON.parse(process.argv[2]);
  const bun: unknown = Reflect.get(globalThis, 'Bun');
  if (!hasSpawn(bun)) throw new Error('this is for Bun');
  const started = performance.now();
  const { exitCode, stderr, resourceUsage } = bun.spawnSync(task.words, {
    env: task.environment,
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
  });
  const seconds = (performance.now() - started) / 1000;
  if (exitCode !== 0) throw new Error(`${task.words.join(' ')}: ${new TextDecoder().decode(stderr)}`);
  const { maxRSS, cpuTime } = resourceUsage;
  const usage: Usage = { seconds, cpu: Number(cpuTime.total) / 1e6, memory: maxRSS };
  process.stdout.write(JSON.stringify(usage));
}

function hasSpawn(value: unknown): value is { readonly spawnSync: Spawn } {
  return typeof value === 'object' && value !== null && 'spawnSync' in value;
}
