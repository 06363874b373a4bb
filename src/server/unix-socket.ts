// Makes unix sockets: finished before they have their name, stale ones taken over, live ones and foreign
// files left alone.

import {
  accessSync,
  type BigIntStats,
  chmodSync,
  chownSync,
  constants,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { connect, type Server } from 'node:net';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { showPath, showValue } from '../base/shown.ts';
import { findWeakness, ourselves, type Step, stepsTo } from '../base/trusted-path.ts';

/** Who beside us may connect. */
export type SocketAccess = {
  /** Permission bits, 0o600 to 0o660. */
  readonly mode: number;
  /** A group's name or number. */
  readonly group: string | undefined;
};

/** A socket that a server listens on. */
export interface BoundSocket {
  /** Takes no more connections, and removes the name if it is still that of this socket. */
  close(): void;
}

/**
 * Finds out all that speaks against a socket at `path`, short of making one. A server that lives there is not asked.
 *
 * @throws OcicryptError `configuration`
 */
export function checkSocketPlace(path: string, { group }: SocketAccess): void {
  if (group !== undefined) findGroup(group);
  const directory = dirname(path);
  const above = onWay(directory, () => checkWay(directory)).at(-1);
  // What of the way is missing will be made.
  if (above !== undefined) onWay(directory, () => accessSync(`${above.path}/.`, constants.W_OK | constants.X_OK));
  checkLeftBehind(path, lstatSync(path, { throwIfNoEntry: false }));
}

/**
 * Makes `server` listen on a unix socket. Its directory is made with mode 0700 if it is missing. The socket gets its
 * group and mode in a directory that only we can enter, and its name last of all: a client that finds it finds it finished,
 * and what stands at the name in the meantime, whatever it is, is not touched.
 *
 * @throws OcicryptError `configuration`
 */
export async function listenOnUnixSocket(server: Server, path: string, access: SocketAccess): Promise<BoundSocket> {
  const gid = access.group === undefined ? undefined : findGroup(access.group);
  prepareDirectory(path);
  let room: string | undefined;
  try {
    // Not by join(), here and below: it takes a last '.' away, and a '..' that stands behind a link.
    room = mkdtempSync(`${dirname(path)}/.`);
    const socket = `${room}/s`;
    await bind(server, socket);
    if (gid !== undefined) chownSync(socket, -1, gid);
    chmodSync(socket, access.mode);
    const own = lstatSync(socket, { bigint: true });
    await publish(socket, path);
    return boundSocket(server, path, own);
  } catch (cause) {
    server.close();
    if (cause instanceof OcicryptError) throw cause;
    throw new OcicryptError('configuration', `cannot listen on ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'its directory must be writable by this user, and the group one of its own',
    });
  } finally {
    if (room !== undefined) rmSync(room, { recursive: true, force: true });
  }
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', resolve);
    server.listen({ path, backlog: BACKLOG });
  });
}

function boundSocket(server: Server, path: string, own: BigIntStats): BoundSocket {
  let isOpen = true;
  return {
    close() {
      if (!isOpen) return;
      isOpen = false;
      // The name first: a socket that answers is never taken over. Afterwards another file may have its number.
      const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      if (found?.ino === own.ino && found.dev === own.dev) unlinkSync(path);
      server.close();
    },
  };
}

/** A unix socket whose backlog is full refuses at once, and clients that dial for each call come in bursts. */
const BACKLOG = 4096;

/** Where the server listens unless it is told otherwise. */
export function defaultSocketPath(environment: NodeJS.ProcessEnv): string {
  if (process.geteuid?.() === 0) return '/run/ocicrypt-kms/ocicrypt-kms.sock';
  const runtime = environment.XDG_RUNTIME_DIR;
  if (runtime?.startsWith('/')) return `${runtime}/ocicrypt-kms.sock`;
  throw new OcicryptError('configuration', 'no place for the socket: XDG_RUNTIME_DIR is not set', {
    hint: `name one with ${setting('listen')}=unix:///PATH`,
  });
}

function prepareDirectory(path: string): void {
  const directory = dirname(path);
  onWay(directory, () => {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    checkWay(directory);
  });
}

/** A user who can rename in a directory above the socket can put another socket in its place. */
function checkWay(directory: string): readonly Step[] {
  const users = ourselves();
  if (users === undefined) return [];
  const steps = stepsTo(directory);
  const weakness = findWeakness(steps, { users, sticky: true });
  if (weakness === undefined) return steps;
  throw new OcicryptError('configuration', `no place for a socket: ${weakness.problem}`, { hint: weakness.hint });
}

function onWay<Value>(directory: string, look: () => Value): Value {
  try {
    return look();
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause;
    throw new OcicryptError(
      'configuration',
      `cannot make the directory ${showPath(directory)}, or write in it${showSystemCode(cause)}`,
      {
        cause,
        hint: `as a user with the right to do so, run: mkdir -m 0700 ${showPath(directory)}`,
      },
    );
  }
}

/** Gives a finished socket its name, which it has from no other server that lives: of several starts one gets it. */
async function publish(socket: string, path: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MILLISECONDS;
  while (!linkIfFree(socket, path)) {
    if (performance.now() > deadline) {
      throw new OcicryptError('configuration', `other servers start on ${showPath(path)} again and again`, {
        hint: 'stop them, or listen elsewhere',
      });
    }
    await takeOver(path);
  }
}

/** How long other starts are waited for. */
const PATIENCE_MILLISECONDS = 5_000;
/** A claim is given up in milliseconds: one that is older was left by a start that was killed. */
const FORGOTTEN_MILLISECONDS = 1_000;

/**
 * Removes a socket that a server of ours left behind; throws where something else is there. A second name is made of it
 * first, which only one of several starts can make: only that one removes it, and it is tried by that name, so that what
 * is removed is what was tried.
 */
async function takeOver(path: string): Promise<void> {
  checkLeftBehind(path, lstatSync(path, { throwIfNoEntry: false }));
  // The usual case needs no claim, which would hold up the other starts.
  if (await answers(path)) throw isServed(path);
  const claim = `${dirname(path)}/.${basename(path)}.claim`;
  if (!linkIfFree(path, claim)) {
    const other = lstatSync(claim, { throwIfNoEntry: false });
    // The time of its last name, as the system has it.
    if (other !== undefined && Math.abs(Date.now() - other.ctimeMs) > FORGOTTEN_MILLISECONDS)
      rmSync(claim, { force: true });
    await sleep(20);
    return;
  }
  try {
    const claimed = lstatSync(claim);
    checkLeftBehind(path, claimed);
    if (await answers(claim)) throw isServed(path);
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === claimed.ino) unlinkSync(path);
  } finally {
    rmSync(claim, { force: true });
  }
}

function isServed(path: string): OcicryptError {
  return new OcicryptError('configuration', `another server listens on ${showPath(path)}`, {
    hint: 'stop it first, or listen elsewhere',
  });
}

function checkLeftBehind(path: string, found: Stats | undefined): void {
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new OcicryptError('configuration', `${showPath(path)} is there and is not a socket`, {
      hint: 'remove it, or listen elsewhere',
    });
  }
  const us = process.geteuid?.();
  if (us !== undefined && found.uid !== us) {
    throw new OcicryptError('configuration', `the socket ${showPath(path)} belongs to another user`, {
      hint: 'remove it as that user, or listen elsewhere',
    });
  }
}

/** Whether `name` was free, and is a name of the file now. What has gone in the meantime counts as not free. */
function linkIfFree(file: string, name: string): boolean {
  try {
    linkSync(file, name);
    return true;
  } catch (error) {
    if (['EEXIST', 'ENOENT'].includes(systemCode(error) ?? '')) return false;
    throw error;
  }
}

/** Only a refusal proves that no process listens, or that nothing is there: a full backlog answers with EAGAIN. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) =>
      resolve(!['ECONNREFUSED', 'ENOENT'].includes(error.code ?? '')),
    );
  });
}

/** Node has no getgrnam: the local database only, and numbers for groups that come from elsewhere. */
function findGroup(group: string): number {
  if (/^\d{1,9}$/.test(group)) return Number(group);
  for (const line of readFileSync('/etc/group', 'utf8').split('\n')) {
    const [name, , number] = line.split(':');
    if (name === group && number !== undefined) return Number(number);
  }
  throw new OcicryptError('configuration', `no group ${showValue(group)} in /etc/group`, {
    hint: 'give its number',
  });
}
