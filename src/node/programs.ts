// Runs programs of a node to their end: containerd, its clients, systemctl, a decoder that is being tried.

import { type ChildProcess, spawn } from 'node:child_process';
import { concatBytes } from '../base/bytes.ts';

/** What to run, beside its words. */
export type ProgramOptions = {
  /** All variables that it sees; those of this process if left out. */
  readonly environment?: NodeJS.ProcessEnv;
  readonly input?: Uint8Array;
  /** What it reads on descriptor 3. */
  readonly payload?: Uint8Array;
  readonly milliseconds?: number;
};

/** How it ended: `status` is undefined if there is no such program, -1 if a signal ended it. */
export type Ended = { readonly status: number | undefined; readonly output: Uint8Array; readonly complaint: string };

const PATIENCE_MILLISECONDS = 30_000;
const MAXIMUM_OUTPUT_BYTES = 16 * 1024 * 1024;
const MAXIMUM_COMPLAINT = 16 * 1024;

/** Runs it in `/`, as services run. What writes without end, or does not end, is killed. */
export async function runProgram(
  [program, ...words]: readonly [string, ...string[]],
  options: ProgramOptions = {},
): Promise<Ended> {
  const { environment = process.env, input, payload, milliseconds = PATIENCE_MILLISECONDS } = options;
  const child: ChildProcess = spawn(program, words, {
    cwd: '/',
    env: environment,
    stdio: [
      input === undefined ? 'ignore' : 'pipe',
      'pipe',
      'pipe',
      ...(payload === undefined ? [] : ['pipe' as const]),
    ],
  });
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  // What it has started may hold its pipes open, and write on: it dies of their end.
  const kill = () => {
    child.kill('SIGKILL');
    for (const pipe of child.stdio) pipe?.destroy();
    resolve(-1);
  };
  const timer = setTimeout(kill, milliseconds);
  const output: Uint8Array[] = [];
  let length = 0;
  let complaint = '';
  child.stdout?.on('data', (chunk: Uint8Array) => {
    output.push(chunk);
    length += chunk.length;
    if (length > MAXIMUM_OUTPUT_BYTES) kill();
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    if (complaint.length < MAXIMUM_COMPLAINT) complaint += text;
  });
  // A program that ends without reading breaks the pipe; its status says why.
  if (input !== undefined) child.stdin?.on('error', () => undefined).end(input);
  const third = child.stdio[3];
  if (payload !== undefined && third !== undefined && third !== null && 'end' in third)
    third.on('error', () => undefined).end(payload);
  child.on('error', () => resolve(undefined));
  child.on('close', (status) => resolve(status ?? -1));
  try {
    const status = await promise;
    return { status, output: concatBytes(...output), complaint: complaint.trim() };
  } finally {
    clearTimeout(timer);
  }
}

/** The last line of what a program complained of: programs of Go say there why they end, and go on with `: ` after what another one said. */
export function lastComplaint({ complaint }: Ended, maximumCharacters = 300): string {
  return (complaint.split(/\n(?!: )/).at(-1) ?? '').replaceAll('\n', '').slice(0, maximumCharacters);
}

/** The text that a program has written if it ended well. */
export function outputText({ status, output }: Ended): string | undefined {
  return status === 0 ? new TextDecoder().decode(output) : undefined;
}
