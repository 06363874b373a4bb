// Writes the digest of a new image to the file of `--digestfile`, and over nothing but another digest.

import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { OcicryptError, showSystemCode } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';

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
      for (let done = 0, count = -1; done < bytes.length; done += count) {
        count = (await file.write(bytes, done, bytes.length - done)).bytesWritten;
        if (count === 0) throw new Error('nothing was written');
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause;
    throw new OcicryptError('not-written', `cannot write the digest file ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
    });
  }
}

const MAXIMUM_DIGEST_BYTES = 256;
const DIGEST = /^(?:[a-z0-9+._-]+:[0-9a-fA-F]*)?\s*$/;

/** Looked at and emptied through one descriptor, so that no other file can be put in between. */
async function openDigestFile(path: string): Promise<FileHandle> {
  const { O_CREAT, O_RDWR, O_WRONLY } = constants;
  const isOther = (await stat(path).catch(() => undefined))?.isFile() === false;
  const file = await open(path, isOther ? O_WRONLY : O_RDWR | O_CREAT, 0o666);
  try {
    if (!(await file.stat()).isFile()) return file;
    const { buffer, bytesRead } = await file.read(new Uint8Array(MAXIMUM_DIGEST_BYTES), 0, MAXIMUM_DIGEST_BYTES, 0);
    if (
      bytesRead === MAXIMUM_DIGEST_BYTES ||
      !DIGEST.test(new TextDecoder('latin1').decode(buffer.subarray(0, bytesRead)))
    )
      throw new OcicryptError(
        'not-written',
        `${showPath(path)} holds something else than a digest and was left as it is`,
      );
    await file.truncate(0);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
