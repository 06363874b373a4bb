// The only code that speaks to systemd about this process: sd_notify(3), over the socket that NOTIFY_SOCKET names.

import { spawn } from 'node:child_process';
import { openLibc } from '../base/libc.ts';

/** A service manager that is told what the server does. Nothing of it fails: the server serves all the same. */
export interface ServiceManager {
  /** The server serves, with the policy that it has read last. */
  ready(): void;
  /** It reads its policy again; {@link ready} follows, whatever comes of it. */
  reloading(): void;
  /** It takes no more calls; resolves when this and all before it were told. */
  stopping(): Promise<void>;
}

/**
 * The manager that started this process, or one that hears nothing. Its variable is taken out of `environment`: helper
 * programs have nothing to tell it.
 *
 * @param complain told once if it could not be told
 */
export function findServiceManager(environment: NodeJS.ProcessEnv, complain: (why: string) => void): ServiceManager {
  const socket = environment.NOTIFY_SOCKET;
  delete environment.NOTIFY_SOCKET;
  if (socket === undefined || socket === '') return { ready() {}, reloading() {}, stopping: async () => undefined };
  let told = Promise.resolve();
  let hasComplained = false;
  const tell = (...lines: readonly string[]) => {
    told = told
      .then(() => send(socket, lines))
      .catch((cause: unknown) => {
        if (!hasComplained) complain(cause instanceof Error ? cause.message : 'unknown');
        hasComplained = true;
      });
    return told;
  };
  return {
    ready: () => void tell('READY=1'),
    // Type=notify-reload waits for the ready that is later than this.
    reloading: () => void tell('RELOADING=1', MONOTONIC),
    stopping: () => tell('STOPPING=1'),
  };
}

/** Stands for the time of CLOCK_MONOTONIC, which whoever sends it fills in. */
const MONOTONIC = 'MONOTONIC_USEC=';

async function send(socket: string, lines: readonly string[]): Promise<void> {
  if (!/^[/@]./.test(socket)) throw new Error('NOTIFY_SOCKET names no unix socket');
  const libc = (await openLibc<Libc>(SIGNATURES))?.functions;
  const microseconds = libc === undefined ? process.hrtime.bigint() / 1000n : readMonotonic(libc);
  const filled = lines.map((line) => (line === MONOTONIC ? `${line}${microseconds}` : line));
  if (libc === undefined) return runHelper(socket, filled);
  sendDatagram(libc, socketAddress(socket), new TextEncoder().encode(filled.join('\n')));
}

/** Microseconds. Bun's own clock begins with the process. */
function readMonotonic(libc: Libc): bigint {
  const now = new BigInt64Array(2);
  libc.clock_gettime(CLOCK_MONOTONIC, now);
  const [seconds = 0n, nanoseconds = 0n] = now;
  return seconds * 1_000_000n + nanoseconds / 1000n;
}

/** Neither runtime has datagrams of unix sockets: Bun can call the system's library, which Node cannot. */
type Libc = {
  socket(family: number, type: number, protocol: number): number;
  connect(descriptor: number, address: Uint8Array, length: number): number;
  send(descriptor: number, message: Uint8Array, length: number, flags: number): bigint;
  close(descriptor: number): number;
  clock_gettime(clock: number, time: BigInt64Array): number;
};

const SIGNATURES = {
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  send: { args: ['i32', 'ptr', 'u64', 'i32'], returns: 'i64' },
  close: { args: ['i32'], returns: 'i32' },
  clock_gettime: { args: ['i32', 'ptr'], returns: 'i32' },
} as const;

// Numbers of Linux, the same on both processors.
const CLOCK_MONOTONIC = 1;
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;

/** sockaddr_un(7): an abstract name begins with a zero and has none behind it. */
function socketAddress(socket: string): Uint8Array {
  const name = Buffer.from(socket.startsWith('@') ? `\0${socket.slice(1)}` : `${socket}\0`);
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX);
  name.copy(address, 2);
  return address;
}

function sendDatagram(libc: Libc, address: Uint8Array, message: Uint8Array): void {
  const descriptor = libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  try {
    const isSent =
      descriptor >= 0 &&
      libc.connect(descriptor, address, address.length) === 0 &&
      Number(libc.send(descriptor, message, message.length, MSG_NOSIGNAL)) === message.length;
    if (!isSent) throw new Error('no answer on the socket of NOTIFY_SOCKET');
  } finally {
    if (descriptor >= 0) libc.close(descriptor);
  }
}

/** systemd-notify(1), whose words count where the unit says `NotifyAccess=all`. */
function runHelper(socket: string, words: readonly string[]): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const child = spawn('systemd-notify', ['--no-block', ...words], {
    env: { PATH: process.env.PATH ?? '/usr/bin:/bin', NOTIFY_SOCKET: socket },
    stdio: 'ignore',
  });
  child.once('error', () => reject(new Error('systemd-notify is not here')));
  child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error('systemd-notify failed'))));
  return promise;
}
