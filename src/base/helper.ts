// Programs that others wrote and that we run for credentials. They get no terminal, say nothing of their own, and end
// with all that they started as soon as no caller waits for them.

import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { concatBytes, wipe } from './bytes.ts';
import { endedBy, waitFor } from './deadline.ts';
import { OcicryptError, showSystemCode, systemCode } from './errors.ts';
import { setting } from './setting.ts';

/** What is run; nothing of it is ever shown but `name`. */
export type Helper = {
  /** As it stands in errors: `the credential_process of profile p`. */
  readonly name: string;
  /** A program and its words, or a line for the shell. */
  readonly command: string | readonly [program: string, ...words: string[]];
  /** Variables beside those of this process. */
  readonly variables?: Readonly<Record<string, string>>;
  /** What it reads on standard input; nothing if left out. */
  readonly input?: string;
  /** Milliseconds that it has at the most, as of its own configuration; else the call's deadline alone ends it. */
  readonly limit?: number;
};

/** How it ended. */
export type HelperResult = {
  /** As a shell has it: {@link NOT_FOUND} if it was not started, 128 and the signal's number if a signal ended it. */
  readonly status: number;
  /** Whether it ran at all; programs that lack another one end with {@link NOT_FOUND} too. Of a line, whether the shell did. */
  readonly isStarted: boolean;
  /** May hold a secret: its reader wipes it. */
  readonly output: Uint8Array<ArrayBuffer>;
};

/** The shell's number for a program that is not there, also if there is no shell. */
export const NOT_FOUND = 127;

/** The machine has no room for another program now: nothing is wrong with this one. */
const CANNOT_START = new Set(['EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM']);

const MAXIMUM_OUTPUT = 256 * 1024;

/**
 * Runs the helper until it has closed its output. Its errors go nowhere: they may hold secrets, and our own are one line.
 *
 * @throws OcicryptError `deadline-exceeded` if its own limit or the signal ended it, `unauthenticated` if it wrote too
 * much, `unavailable` if the machine had no room to start it
 */
export function runHelper(helper: Helper, signal: AbortSignal): Promise<HelperResult> {
  const hint = `see why it takes so long, or allow more time with ${setting('limits.total')}`;
  return waitFor(signal, { name: helper.name, hint }, 'still', () => run(helper, signal));
}

async function run(helper: Helper, signal: AbortSignal): Promise<HelperResult> {
  if (signal.aborted) throw endedBy(signal);
  const [program, ...words] = typeof helper.command === 'string' ? ['/bin/sh', '-c', helper.command] : helper.command;
  let started: ChildProcess | undefined;
  // Before there is anything that could be left behind.
  const forget = endWithProcess(() => endGroup(started));
  // A session of its own, so that all of it can be ended at once, and no terminal asks anybody anything.
  const child: ChildProcess = spawn(program, words, {
    env: { ...process.env, ...helper.variables },
    detached: true,
    stdio: [helper.input === undefined ? 'ignore' : 'pipe', 'pipe', 'ignore'],
  });
  started = child;
  const { promise, resolve, reject } = Promise.withResolvers<HelperResult>();
  const chunks: Uint8Array[] = [];
  let length = 0;
  // It has none if it could not be started.
  child.stdout?.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length > MAXIMUM_OUTPUT) reject(wroteTooMuch(helper));
  });
  // A program that ends without reading breaks the pipe; its status says why.
  child.stdin?.on('error', () => undefined).end(helper.input);
  child.on('error', (cause) => {
    if (CANNOT_START.has(systemCode(cause) ?? '')) reject(notStarted(helper, cause));
    else resolve({ status: NOT_FOUND, isStarted: false, output: new Uint8Array(0) });
  });
  child.on('close', (status, by) => {
    const ended = status ?? 128 + (by === null ? 0 : constants.signals[by]);
    resolve({ status: ended, isStarted: true, output: concatBytes(...chunks) });
  });
  const stop = () => reject(endedBy(signal));
  signal.addEventListener('abort', stop, { once: true });
  const timer = helper.limit === undefined ? undefined : setTimeout(() => reject(tookTooLong(helper)), helper.limit);
  try {
    return await promise;
  } catch (error) {
    endGroup(child);
    throw error;
  } finally {
    forget();
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    wipe(...chunks);
  }
}

/** Ends a process that was started as `detached`, and whatever it started. */
export function endGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/** The terminal's interrupt does not reach another session: a process that is about to end takes its helper along. */
function endWithProcess(end: () => void): () => void {
  // Where somebody else decides what a signal means, the call ends in its own way.
  const handlers = SIGNALS.filter((name) => process.listenerCount(name) === 0).map((name) => {
    const handler = () => {
      end();
      process.removeListener(name, handler);
      process.kill(process.pid, name);
    };
    process.on(name, handler);
    return [name, handler] as const;
  });
  process.on('exit', end);
  return () => {
    process.removeListener('exit', end);
    for (const [name, handler] of handlers) process.removeListener(name, handler);
  };
}

function notStarted({ name }: Helper, cause: unknown): OcicryptError {
  return new OcicryptError('unavailable', `cannot start ${name}${showSystemCode(cause)}`, {
    cause,
    hint: 'this machine has no room for another program now',
    retryable: true,
  });
}

function tookTooLong({ name, limit }: Helper): OcicryptError {
  return new OcicryptError('deadline-exceeded', `${name} did not end within ${limit} ms`, {
    hint: 'run it by hand to see what it waits for; its own configuration may set this limit',
    retryable: true,
  });
}

function wroteTooMuch({ name }: Helper): OcicryptError {
  return new OcicryptError('unauthenticated', `${name} wrote more than ${MAXIMUM_OUTPUT} bytes`, {
    hint: 'it must write credentials and nothing else',
  });
}
