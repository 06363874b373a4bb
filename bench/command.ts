// Runs commands as a client runs a key provider: the request in a pipe, the reply in a pipe, nothing of ours around it.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { toolPath } from '../tools/process.ts';
import type { Figures } from './measure.ts';

/** A command with what stands on its standard input; `environment` is all that it gets beside PATH and HOME. */
export type Command = {
  readonly words: readonly [string, ...string[]];
  readonly request?: string;
  readonly environment?: Readonly<Record<string, string>>;
};

/** Named pipes, because those that Node makes for a child are sockets and a client's are not. */
export class CommandRunner {
  readonly #input: string;
  readonly #output: string;
  readonly #home: string;

  /** @param directory where the pipes are, which is the commands' home too */
  constructor(directory: string) {
    this.#home = directory;
    this.#input = join(directory, 'stdin');
    this.#output = join(directory, 'stdout');
    for (const path of [this.#input, this.#output]) if (!existsSync(path)) execFileSync('mkfifo', [path]);
  }

  /** Runs a command to its end; returns its wall-clock time in milliseconds. @throws Error where it fails */
  time(command: Command): number {
    const { stdin, reader, stdout } = this.#open(command);
    const [file, ...words] = command.words;
    const started = performance.now();
    const { status, error } = spawnSync(file, words, {
      stdio: [stdin, stdout, 'ignore'],
      env: this.#environment(command),
    });
    const milliseconds = performance.now() - started;
    for (const descriptor of [stdin, reader, stdout]) closeSync(descriptor);
    if (status !== 0) throw new Error(`${command.words.join(' ')}: ${error?.message ?? `exit status ${status}`}`);
    return milliseconds;
  }

  /**
   * The most memory that a command had, in bytes (VmHWM, Linux only). The pipe that it answers into is full, so that
   * it waits there with all of its work done until its figures are read.
   */
  async peakMemory(command: Command): Promise<number> {
    const { stdin, reader, stdout } = this.#open(command);
    const filled = fill(reader);
    const [file, ...words] = command.words;
    const child = spawn(file, words, { stdio: [stdin, stdout, 'ignore'], env: this.#environment(command) });
    const ended = new Promise((resolve) => child.once('close', resolve));
    try {
      let peak = 0;
      for (let stable = 0; stable < 10; await sleep(20)) {
        const now = readPeak(child.pid);
        stable = now === peak ? stable + 1 : 0;
        peak = now;
      }
      return peak;
    } finally {
      drain(reader, filled);
      await ended;
      for (const descriptor of [stdin, reader, stdout]) closeSync(descriptor);
    }
  }

  #environment({ environment }: Command): NodeJS.ProcessEnv {
    return { PATH: process.env.PATH, HOME: this.#home, ...environment };
  }

  #open({ request }: Command) {
    const writer = openSync(this.#input, constants.O_RDWR | constants.O_NONBLOCK);
    const stdin = openSync(this.#input, constants.O_RDONLY);
    if (request !== undefined) writeSync(writer, request);
    closeSync(writer);
    const reader = openSync(this.#output, constants.O_RDWR | constants.O_NONBLOCK);
    return { stdin, reader, stdout: openSync(this.#output, constants.O_WRONLY) };
  }
}

/** Milliseconds; `processor` is what a run and all that it starts take of all processors, on average. */
export type CommandFigures = Figures & {
  readonly processor: number;
  /** Runs that failed and were made again; they are in no other figure. */
  readonly failures: number;
};

/**
 * Times commands in turn. From a process of Bun's own: what Node needs to start a child grows with its own size, which
 * would be added to every contender alike and bring all ratios closer to 1.
 */
export function timeCommands(directory: string, commands: readonly Command[], runs: number): readonly CommandFigures[] {
  const input = JSON.stringify({ directory, commands, runs });
  return JSON.parse(
    execFileSync(toolPath('bun'), [STOPWATCH], { input, stdio: ['pipe', 'pipe', 'inherit'], encoding: 'utf8' }),
  );
}

const STOPWATCH = fileURLToPath(new URL('stopwatch.ts', import.meta.url));

function fill(pipe: number): number {
  const page = new Uint8Array(4096);
  let length = 0;
  try {
    for (;;) length += writeSync(pipe, page);
  } catch {
    return length;
  }
}

function drain(pipe: number, length: number): void {
  const buffer = new Uint8Array(length);
  readSync(pipe, buffer);
}

function readPeak(pid: number | undefined): number {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (peak === undefined) throw new Error('the command ended before it had answered');
  return Number(peak) * 1024;
}
