// Writes the digest of a new image to the file of `--digestfile`, and over nothing but another digest.

import { constants } from 'node:fs';
import { access, type FileHandle, lstat, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';

/**
 * Finds out before the work of a command whether its digest can be written there; changes nothing.
 *
 * @throws OcicryptError `not-written`, as {@link writeDigest}
 */
export async function checkDigestFile(path: string): Promise<void> {
  try {
    const isThere = (await lstat(path).catch(ifAbsent)) !== undefined;
    if (!isThere) return await access(dirname(path), constants.W_OK);
    // To open a pipe waits for its reader, and a link may lead to a file that is not there yet.
    if ((await stat(path).catch(ifAbsent))?.isFile() === true) await (await openDigestFile(path)).close();
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

/**
 * Writes it under that name at once: it may be a pipe, or a file that is mounted.
 *
 * @throws OcicryptError `not-written`, also for a file that holds something else: the name of a key file in the wrong
 * place, or a link of another user's, must not cost what is there
 */
export async function writeDigest(path: string, digest: string): Promise<void> {
  const bytes = new TextEncoder().encode(digest);
  try {
    const file = await openDigestFile(path);
    try {
      if ((await file.stat()).isFile()) await file.truncate(0);
      for (let done = 0, count = -1; done < bytes.length; done += count) {
        count = (await file.write(bytes, done, bytes.length - done)).bytesWritten;
        if (count === 0) throw new Error('nothing was written');
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

const MAXIMUM_DIGEST_BYTES = 512;
/** With the name that tools print before it, or only the beginning of one that a full disk cut off. */
const DIGEST = /^(?:(?:[\w./:-]+@)?sha(?:256|384|512):[0-9a-f]*)?\s*$/;
/** Nothing, and a digest by SHA-256, SHA-384 and SHA-512 as it is written here. */
const WRITTEN_SIZES: ReadonlySet<number> = new Set([0, 71, 103, 135]);

/** Looked at through the descriptor that is written to, so that no other file can be put in between. */
async function openDigestFile(path: string): Promise<FileHandle> {
  const { O_CREAT, O_RDWR, O_WRONLY } = constants;
  const isOther = (await stat(path).catch(() => undefined))?.isFile() === false;
  const file = isOther
    ? await open(path, O_WRONLY)
    : await open(path, O_RDWR | O_CREAT, 0o666).catch((refused: unknown) =>
        open(path, O_WRONLY).catch(() => {
          throw refused;
        }),
      );
  try {
    const status = await file.stat();
    if (!status.isFile() || (await holdsDigest(file, status.size))) return file;
    throw new OcicryptError(
      'not-written',
      `${showPath(path)} holds something else than a digest and was left as it is`,
      {
        hint: 'remove it, or name another file',
      },
    );
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** One that this user may write and not read can be known by its size only. */
async function holdsDigest(file: FileHandle, size: number): Promise<boolean> {
  const read = await file
    .read(new Uint8Array(MAXIMUM_DIGEST_BYTES), 0, MAXIMUM_DIGEST_BYTES, 0)
    .catch((error: unknown) => {
      if (systemCode(error) !== 'EBADF') throw error;
    });
  if (read === undefined) return WRITTEN_SIZES.has(size);
  const text = new TextDecoder('latin1').decode(read.buffer.subarray(0, read.bytesRead));
  return read.bytesRead < MAXIMUM_DIGEST_BYTES && DIGEST.test(text);
}

function ifAbsent(error: unknown): undefined {
  if (systemCode(error) !== 'ENOENT') throw error;
}

function notWritten(path: string, cause: unknown): OcicryptError {
  if (cause instanceof OcicryptError) return cause;
  return new OcicryptError('not-written', `cannot write the digest file ${showPath(path)}${showSystemCode(cause)}`, {
    cause,
    hint: systemCode(cause) === 'ENOENT' ? 'make its directory' : 'name a file that this user can write',
  });
}
