// The only code that makes unix sockets: closed to others before they can be connected to, stale ones taken over, live ones and foreign files left alone.

import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, realpathSync, statSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { showPath, showValue } from '../base/shown.ts';

/** Who beside us may connect. */
export type SocketAccess = {
  /** Permission bits, 0o600 to 0o660. */
  readonly mode: number;
  /** A group's name or number. */
  readonly group: string | undefined;
};

/**
 * Makes `server` listen on a unix socket. Its directory is made with mode 0700 where it is missing. The mode is in
 * force before anybody can connect: the umask is set around `bind`, which both runtimes do inside of `listen`.
 *
 * @throws OcicryptError `configuration`
 */
export async function listenOnUnixSocket(server: Server, path: string, access: SocketAccess): Promise<void> {
  const gid = access.group === undefined ? undefined : findGroup(access.group);
  prepareDirectory(path);
  await takeOver(path);
  const umask = process.umask(0o177);
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', resolve);
  });
  try {
    server.listen({ path, backlog: BACKLOG });
  } finally {
    process.umask(umask);
  }
  try {
    await listening;
    // The group first, so that the wider mode is never open to the wrong one.
    if (gid !== undefined) chownSync(path, -1, gid);
    if (access.mode !== 0o600) chmodSync(path, access.mode);
  } catch (cause) {
    server.close();
    throw new OcicryptError('configuration', `cannot listen on ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'its directory must be writable by this user, and the group one of its own',
    });
  }
}

/** A unix socket whose backlog is full refuses at once, and clients that dial for each call come in bursts. */
const BACKLOG = 4096;

/** Where the server listens unless it is told otherwise. */
export function defaultSocketPath(environment: NodeJS.ProcessEnv): string {
  if (process.geteuid?.() === 0) return '/run/ocicrypt-kms/ocicrypt-kms.sock';
  const runtime = environment.XDG_RUNTIME_DIR;
  if (runtime?.startsWith('/')) return `${runtime}/ocicrypt-kms.sock`;
  throw new OcicryptError('configuration', 'no place for the socket: XDG_RUNTIME_DIR is not set', {
    hint: 'name one with --listen=unix:///PATH',
  });
}

/** Who can rename in a directory above the socket can put another socket in its place. */
function prepareDirectory(path: string): void {
  const directory = dirname(path);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const real = realpathSync(directory);
    for (let ancestor = real; ; ancestor = dirname(ancestor)) {
      const { mode } = statSync(ancestor);
      if ((mode & 0o002) !== 0 && (mode & 0o1000) === 0) {
        throw new OcicryptError('configuration', `every user can replace files in ${showPath(ancestor)}`, {
          hint: `chmod o-w ${showPath(ancestor)}, or put the socket elsewhere`,
        });
      }
      if (ancestor === dirname(ancestor)) return;
    }
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause;
    throw new OcicryptError(
      'configuration',
      `cannot make the directory ${showPath(directory)}${showSystemCode(cause)}`,
      {
        cause,
        hint: `as a user with the right to do so, run: mkdir -m 0700 ${showPath(directory)}`,
      },
    );
  }
}

/** Removes a socket that a server of ours left behind; throws where something else is there. */
async function takeOver(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
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
  if (await answers(path)) {
    throw new OcicryptError('configuration', `another server listens on ${showPath(path)}`, {
      hint: 'stop it first, or listen elsewhere',
    });
  }
  unlinkSync(path);
}

/** Only a refusal proves that nobody listens: a full backlog answers with EAGAIN. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
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
