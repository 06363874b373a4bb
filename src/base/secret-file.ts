// The only code that reads files which hold secrets, and refuses those that others can read too.

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { concatBytes, wipe } from './bytes.ts';
import { OcicryptError, systemCode } from './errors.ts';

/**
 * The bytes of a secret file: a regular file (or a link to one) of ours or root's that nobody else may touch. A file
 * of root's may be readable by a group where we are not root ourselves: so Kubernetes mounts a secret for a pod.
 * Checked and read through one descriptor, so that nobody can swap the file in between.
 *
 * @param what how the file is called in an error ("the key file")
 * @param maximumBytes longer files are cut to one byte more, for the caller to notice
 * @param isSecret whether this content must be hidden from others; it always is where this is left out
 * @throws OcicryptError `not-found` where nothing is there, `configuration`
 */
export function readSecretFile(
  path: string,
  what: string,
  maximumBytes: number,
  isSecret: (content: Uint8Array) => boolean = () => true,
): Uint8Array<ArrayBuffer> {
  const file = openFile(path, what);
  const buffer = new Uint8Array(maximumBytes + 1);
  try {
    checkType(path, what, file);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(file, buffer, length, buffer.length - length, null);
    }
    const content = buffer.subarray(0, length);
    if (isSecret(content)) checkOwner(path, what, file);
    return concatBytes(content);
  } finally {
    wipe(buffer);
    closeSync(file);
  }
}

/** The one line of a secret file as bytes, without the line end that editors add: a passphrase, a PIN. */
export function readSecretLine(path: string, what: string, maximumBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = readSecretFile(path, what, maximumBytes);
  let end = bytes.length;
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) end--;
  return bytes.subarray(0, end);
}

/** Asks whoever sits at the terminal for a secret; undefined where nobody does. The caller wipes it. */
export type SecretPrompt = (question: string) => Promise<Uint8Array | undefined>;

function openFile(path: string, what: string): number {
  try {
    // O_NONBLOCK: opening a FIFO must not hang before fstat can refuse it.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') {
      throw new OcicryptError('not-found', `${what} ${path} does not exist`, { cause });
    }
    throw new OcicryptError('configuration', `cannot read ${what} ${path}`, {
      cause,
      hint: 'it must be readable by the user that runs this',
    });
  }
}

function checkType(path: string, what: string, file: number): void {
  if (fstatSync(file).isFile()) return;
  throw new OcicryptError('configuration', `${what} ${path} is not a regular file`);
}

function checkOwner(path: string, what: string, file: number): void {
  const { mode, uid } = fstatSync(file);
  const us = process.geteuid?.();
  if (us === undefined) return;
  if (uid !== us && uid !== 0) {
    throw new OcicryptError('configuration', `${what} ${path} belongs to another user`, {
      hint: `chown ${us} ${path}`,
    });
  }
  if ((mode & (uid === us ? 0o077 : 0o037)) !== 0) {
    throw new OcicryptError('configuration', `${what} ${path} is open to other users`, { hint: `chmod 600 ${path}` });
  }
}
