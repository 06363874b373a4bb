// Reads the small files that operators name, and refuses secrets that others can read too.

import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { concatBytes, wipe } from './bytes.ts';
import { OcicryptError, showSystemCode, systemCode } from './errors.ts';
import { showPath } from './shown.ts';

/** Who else may read a file that we read. */
export type FileSecrecy = {
  /** Whether this content must be hidden from others; it always is if this is left out. */
  readonly isSecret?: (content: Uint8Array) => boolean;
  /** Whether an agent writes the file for us: it may be of any user's, and a group's to read. */
  readonly ofAgent?: boolean;
  /** Who must not be able to write it, whoever may read it: any other user, or every user of the machine. */
  readonly isClosedTo?: 'others' | 'everybody';
};

/**
 * The bytes of a secret file: a regular file (or a link to one) of ours or root's that no other user may touch. Root may
 * read the file of any user who keeps it from others. A file of root's may be readable by a group where we are not root
 * ourselves: so Kubernetes mounts a secret for a pod. Checked and read through one descriptor, so that no user can swap
 * the file in between.
 *
 * @param what how the file is called in an error ("the key file")
 * @param maximumBytes longer files are cut to one byte more, for the caller to notice
 * @throws OcicryptError `not-found` if nothing is there, `configuration`
 */
export function readSecretFile(
  path: string,
  what: string,
  maximumBytes: number,
  { isSecret = () => true, ofAgent = false, isClosedTo }: FileSecrecy = {},
): Uint8Array<ArrayBuffer> {
  const file = openFile(path, what);
  let buffer: Uint8Array<ArrayBuffer> | undefined;
  try {
    buffer = new Uint8Array(roomFor(path, what, file, maximumBytes));
    let length = 0;
    let read: number;
    do {
      read = readSync(file, buffer, length, buffer.length - length, null);
      length += read;
    } while (read > 0);
    const content = buffer.subarray(0, length);
    if (isSecret(content)) checkOwner(path, what, file, ofAgent);
    if (isClosedTo === 'others') checkWriters(path, what, file);
    if (isClosedTo === 'everybody') checkEverybody(path, what, file);
    return concatBytes(content);
  } finally {
    wipe(buffer);
    closeSync(file);
  }
}

/**
 * The bytes of a file that everybody may read: a regular file all the same, so that no pipe or device holds us up.
 *
 * @param maximumBytes as of {@link readSecretFile}
 * @throws OcicryptError `not-found` if nothing is there, `configuration`
 */
export function readPublicFile(path: string, what: string, maximumBytes: number): Uint8Array<ArrayBuffer> {
  return readSecretFile(path, what, maximumBytes, { isSecret: () => false });
}

/** The same of a file that only we or root may write, because it was found and not named. */
export function readProtectedFile(path: string, what: string, maximumBytes: number): Uint8Array<ArrayBuffer> {
  return readSecretFile(path, what, maximumBytes, { isSecret: () => false, isClosedTo: 'others' });
}

/**
 * The same of a file that was named and says who may do what: an administrator's or a group's, but not one that every user
 * of the machine can write or put there.
 */
export function readGuardedFile(path: string, what: string, maximumBytes: number): Uint8Array<ArrayBuffer> {
  return readSecretFile(path, what, maximumBytes, { isSecret: () => false, isClosedTo: 'everybody' });
}

/** The one line of a secret file as bytes, without the line end that editors add: a passphrase, a PIN. */
export function readSecretLine(path: string, what: string, maximumBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = readSecretFile(path, what, maximumBytes);
  return bytes.subarray(0, bytes.findLastIndex((byte) => byte !== 0x0a && byte !== 0x0d) + 1);
}

/** Asks the person at the terminal for a secret; undefined if there is none. The caller wipes it. */
export type SecretPrompt = (question: string) => Promise<Uint8Array | undefined>;

function openFile(path: string, what: string): number {
  try {
    // O_NONBLOCK: opening a FIFO must not hang before fstat can refuse it.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const code = systemCode(cause);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new OcicryptError('not-found', `${what} ${showPath(path)} does not exist`, {
        cause,
        hint: /(?:^|\/)~\//.test(path) ? 'write the whole path: only a shell knows what ~ means' : 'check its name',
      });
    }
    // A socket, or a device that nothing drives.
    if (code === 'ENXIO') throw irregular(path, what);
    throw new OcicryptError('configuration', `cannot read ${what} ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'it must be readable by the user that runs this',
    });
  }
}

/** More than the file has, so that its end is seen, and never more than one byte too many. */
function roomFor(path: string, what: string, file: number, maximumBytes: number): number {
  const status = fstatSync(file);
  if (!status.isFile()) throw irregular(path, what);
  return Math.min(maximumBytes, status.size + 64 * 1024) + 1;
}

function irregular(path: string, what: string): OcicryptError {
  return new OcicryptError('configuration', `${what} ${showPath(path)} is not a regular file`, {
    hint: 'pipes, devices and directories are not read: name a file',
  });
}

/** Whether a user other than us and root may write what is there: never, where there are no users. */
export function isWrittenByOthers({ mode, uid }: Pick<Stats, 'mode' | 'uid'>): boolean {
  const us = process.geteuid?.();
  return us !== undefined && ((uid !== us && uid !== 0) || (mode & 0o022) !== 0);
}

function checkWriters(path: string, what: string, file: number): void {
  const status = fstatSync(file);
  if (!isWrittenByOthers(status)) return;
  const { uid } = status;
  const problem =
    uid === process.geteuid?.() || uid === 0 ? 'may be written by other users' : 'belongs to another user';
  throw new OcicryptError('configuration', `${what} ${showPath(path)} was found and ${problem}`, {
    hint: 'take their rights away, or name a file of your own',
  });
}

/**
 * Kubernetes mounts a ConfigMap as files of root's, 0644, in a directory that is 0777: there the owner tells that no other
 * user has put the file there.
 */
function checkEverybody(path: string, what: string, file: number): void {
  const { mode, uid } = fstatSync(file);
  const us = process.geteuid?.();
  if (us === undefined) return;
  if ((mode & 0o002) !== 0) {
    throw new OcicryptError('configuration', `${what} ${showPath(path)} may be written by every user`, {
      hint: `chmod o-w ${showPath(path)}`,
    });
  }
  const directory = dirname(path);
  if (uid === us || uid === 0 || (statSync(directory).mode & 0o002) === 0) return;
  throw new OcicryptError(
    'configuration',
    `${what} ${showPath(path)} belongs to another user, and every user may put one there`,
    {
      hint: `chmod o-w ${showPath(directory)}, or make it a file of this user or of root`,
    },
  );
}

function checkOwner(path: string, what: string, file: number, ofAgent: boolean): void {
  const { mode, uid } = fstatSync(file);
  const us = process.geteuid?.();
  if (us === undefined) return;
  if (uid !== us && uid !== 0 && us !== 0 && !ofAgent) {
    throw new OcicryptError('configuration', `${what} ${showPath(path)} belongs to another user`, {
      hint: 'run this as that user, or name a copy that is yours',
    });
  }
  // Of an agent's files and of root's, which it mounts for us, our group may read.
  const isShared = ofAgent || (uid === 0 && us !== 0);
  if ((mode & (isShared ? 0o037 : 0o077)) !== 0) {
    throw new OcicryptError('configuration', `${what} ${showPath(path)} is open to other users`, {
      hint: `chmod ${isShared ? 640 : 600} ${showPath(path)}`,
    });
  }
}
