// Leaves a container for the machine that it runs on: into the namespaces of process 1, and on as a program there.
// https://man7.org/linux/man-pages/man2/setns.2.html

import { openSync } from 'node:fs';
import { concatBytes } from '../base/bytes.ts';
import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { openLibc } from '../base/libc.ts';

type Functions = {
  unshare(flags: number): number;
  setns(descriptor: number, kind: number): number;
  open(path: Uint8Array, flags: number, mode: number): number;
  flock(descriptor: number, operation: number): number;
  execve(program: Uint8Array, words: BigUint64Array, environment: BigUint64Array): number;
};

const SIGNATURES = {
  unshare: { args: ['i32'], returns: 'i32' },
  setns: { args: ['i32', 'i32'], returns: 'i32' },
  open: { args: ['ptr', 'i32', 'i32'], returns: 'i32' },
  flock: { args: ['i32', 'i32'], returns: 'i32' },
  execve: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
} as const;

// Numbers of Linux, the same on both processors.
const CLONE_FS = 0x200;
const O_CREAT = 0o100;
const LOCK_EX = 2;
const LOCK_NB = 4;
/** The mount namespace last: /proc of the container is needed until then. */
const KINDS = ['net', 'uts', 'ipc', 'cgroup', 'mnt'];
/** What services of a machine see. */
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

/** The machine, as this thread sees it from now on. */
export interface Host {
  /**
   * Takes a lock that this process, and what it becomes, holds to its end.
   *
   * @returns whether no other process holds it
   * @throws OcicryptError `not-written`
   */
  lock(path: string): boolean;
  /**
   * Becomes a program of the machine, with its variables alone and this process's three streams.
   *
   * @throws OcicryptError `configuration` if it cannot be run there
   */
  become(words: readonly [program: string, ...words: string[]]): never;
}

/**
 * Moves this thread into the namespaces of process 1, so that paths, sockets and addresses are the machine's. Only what is
 * called without waiting runs in this thread: files by functions that end in `Sync`.
 *
 * @throws OcicryptError `configuration`
 */
export async function enterHost(): Promise<Host> {
  const libc = await openLibc<Functions>(SIGNATURES);
  if (libc === undefined) {
    throw new OcicryptError('configuration', 'Node cannot enter the namespaces of the machine', {
      hint: 'run the executable of the release',
    });
  }
  const { unshare, setns, open, flock, execve } = libc.functions;
  const descriptors = KINDS.map(openNamespace);
  // A thread that shares its root and directory with others may not change its mounts.
  const isInside = unshare(CLONE_FS) === 0 && descriptors.every((descriptor) => setns(descriptor, 0) === 0);
  if (!isInside) throw noRight();
  return {
    lock(path) {
      // For reading: a disk that became read-only has it already. Left open, by the program that this process becomes too: the lock ends with it.
      const descriptor = open(new TextEncoder().encode(`${path}\0`), O_CREAT, 0o600);
      if (descriptor < 0) {
        throw new OcicryptError('not-written', `cannot write ${path}`, {
          hint: 'its file system must be writable: name another directory of the node',
        });
      }
      return flock(descriptor, LOCK_EX | LOCK_NB) === 0;
    },
    become(words) {
      const variables = Object.entries(ENVIRONMENT).map(([name, value]) => `${name}=${value}`);
      const texts = [...words, ...variables].map((text) => new TextEncoder().encode(`${text}\0`));
      // One piece, which begins with the program's name and is handed over as that: so nothing frees it before the call.
      const bytes = concatBytes(...texts);
      let next = BigInt(libc.addressOf(bytes));
      const addresses = texts.map(({ length }) => {
        next += BigInt(length);
        return next - BigInt(length);
      });
      const list = (some: readonly bigint[]) => BigUint64Array.from([...some, 0n]);
      execve(bytes, list(addresses.slice(0, words.length)), list(addresses.slice(words.length)));
      throw new OcicryptError('configuration', `this machine cannot run ${words[0]}`, {
        hint: 'its file system must permit programs, and the machine must have the C library that this program was built for',
      });
    },
  };
}

function openNamespace(kind: string): number {
  try {
    return openSync(`/proc/1/ns/${kind}`, 'r');
  } catch (cause) {
    throw noRight(cause);
  }
}

function noRight(cause?: unknown): OcicryptError {
  return new OcicryptError('configuration', `the namespaces of the machine cannot be entered${showSystemCode(cause)}`, {
    cause,
    hint: 'the container must be privileged, and its pod must have hostPID: true',
  });
}
