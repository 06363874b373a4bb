// Runs one real client to its end and captures what it says.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { Readable, type Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

/** Variables for a client, added to the few it always gets; see `clientEnvironment`. */
export type Environment = Readonly<Record<string, string>>;

/** What a client is given besides its arguments: stdin and file descriptor 3 are closed when not named. */
export type RunOptions = {
  readonly env?: Environment;
  readonly cwd?: string;
  readonly stdin?: Readable | Uint8Array;
  readonly descriptor3?: Uint8Array;
  /** Milliseconds until it is killed; two minutes if it is left out. */
  readonly limit?: number;
};

/** How a client ended. A client killed by a signal, or by us at its limit, has exit code 128 + 9, as in a shell. */
export type RunResult = { readonly exitCode: number; readonly stdout: Uint8Array; readonly stderr: string };

const LIMIT = 120_000;
let home: string | undefined;

/**
 * Runs `argv` to its end; a failing exit is a result, not an error.
 * Throws when the program cannot be started.
 */
export async function runClient(argv: readonly [string, ...string[]], options: RunOptions = {}): Promise<RunResult> {
  const [command, ...args] = argv;
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'pipe', options.descriptor3 === undefined ? 'ignore' : 'pipe'],
    env: clientEnvironment(options.env),
    timeout: options.limit ?? LIMIT,
    killSignal: 'SIGKILL',
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const exit = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 128 + 9));
  });
  const [stdin, stdout, stderr, descriptor3] = child.stdio;
  const [exitCode, out, errors] = await Promise.all([
    exit,
    collect(stdout),
    collect(stderr),
    feed(stdin, options.stdin),
    feed(descriptor3, options.descriptor3),
  ]);
  return { exitCode, stdout: out, stderr: new TextDecoder().decode(errors) };
}

/**
 * The whole environment of a client: PATH, an empty home of its own, so that nothing the developer has set up for
 * containers is read, and `extra`.
 */
export function clientEnvironment(extra: Environment = {}): NodeJS.ProcessEnv {
  home ??= emptyHome();
  return { PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: home, TMPDIR: home, LC_ALL: 'C', ...extra };
}

function emptyHome(): string {
  const directory = mkdtempSync(join(tmpdir(), 'client-home-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function collect(stream: unknown): Promise<Uint8Array> {
  return stream instanceof Readable ? buffer(stream) : new Uint8Array();
}

/** A client that fails early closes its end while we still write: its exit code and stderr say why, not our EPIPE. */
async function feed(stream: unknown, input: Readable | Uint8Array | undefined): Promise<void> {
  if (!isWritable(stream)) return;
  const source = input instanceof Readable ? input : Readable.from(input === undefined ? [] : [input]);
  await pipeline(source, stream).catch(() => {});
}

function isWritable(stream: unknown): stream is Writable {
  return typeof stream === 'object' && stream !== null && 'write' in stream && 'end' in stream;
}
