/** Programs that are started for a test: on a port of this machine, waited for, and ended with it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

export type StartedProgram = {
  /** What it has printed so far. */
  readonly output: () => string;
  /** Keeps it from answering: connections are taken and nothing comes back. @param ask a question, to see that */
  readonly freeze: (ask: (signal: AbortSignal) => Promise<unknown>) => Promise<void>;
  readonly thaw: () => void;
  readonly stop: () => Promise<void>;
};

/** Starts a program and waits until it listens. @param port where it was told to listen */
export async function startProgram(
  program: string,
  words: readonly string[],
  { port, environment = {} }: { readonly port: number; readonly environment?: NodeJS.ProcessEnv },
): Promise<StartedProgram> {
  const child = spawn(program, words, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const closed = once(child, 'close').then(() => {});
  // A test that fails before its end must not leave it behind.
  const end = () => child.kill('SIGKILL');
  process.once('exit', end);
  const stop = async () => {
    end();
    await closed;
    process.off('exit', end);
  };
  async function freeze(ask: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    child.kill('SIGSTOP');
    // Its threads stop one after the other.
    for (let isAnswering = true; isAnswering; ) {
      isAnswering = await ask(AbortSignal.timeout(300)).then(
        () => true,
        () => false,
      );
    }
  }
  const thaw = () => void child.kill('SIGCONT');
  for (let attempt = 0; child.exitCode === null && attempt < 600; attempt++) {
    if (await isListening(port)) return { output: () => output, freeze, thaw, stop };
    await pause(100);
  }
  await stop();
  throw new Error(`${program} does not start:\n${output}`);
}

/** A port of this machine that nobody uses. */
export async function findPort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Waits for a program that was started. @throws Error after 10 s */
export async function waitUntilListening(port: number): Promise<void> {
  for (let attempt = 0; !(await isListening(port)); attempt++) {
    if (attempt > 1000) throw new Error(`nothing listens on port ${port}`);
    await pause(10);
  }
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
