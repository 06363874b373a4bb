// The file of an archive: which one a new archive takes the place of, and how members are packed into it.

import { createHash } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import { OcicryptError, systemCode } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import { type BlobIdentity, formatDigest } from '../cipher/layer.ts';
import { notWritten } from '../not-written.ts';
import type { AtomicFile, FileOwner } from './files.ts';
import { blobPath } from './layout-index.ts';
import type { BlobReader } from './store.ts';
import { checkArchiveKind } from './tar-file.ts';
import { endTarMember, startTarMember } from './tar-write.ts';

const CHUNK_BYTES = 1024 * 1024;

/** The file that an archive is to take the place of. */
export type ArchiveTarget = { readonly path: string; readonly owner: FileOwner | undefined; readonly identity: string };

/** Where the archive is or will be: behind links, so that no old archive stays where they lead. */
export async function readTarget(path: string): Promise<ArchiveTarget> {
  try {
    const real = await realpath(path);
    const status = await stat(real);
    checkArchiveKind(path, status);
    const { mode, uid, gid, dev, ino, size, mtimeMs } = status;
    return { path: real, owner: { mode, uid, gid }, identity: [dev, ino, size, mtimeMs].join() };
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return { path, owner: undefined, identity: '' };
    if (error instanceof OcicryptError) throw error;
    return notWritten(path)(error);
  }
}

export function changedMeanwhile(path: string): OcicryptError {
  return new OcicryptError('not-written', `${showImagePath(path)} was changed by another program meanwhile`, {
    hint: 'nothing was changed by this run: run again',
  });
}

/** Adds a member of these bytes. */
export async function packBytes(file: AtomicFile, name: string, bytes: Uint8Array): Promise<void> {
  await startTarMember(file, name, bytes.length);
  await file.write(bytes);
  await endTarMember(file, bytes.length);
}

/** Adds a blob. @returns whether it is what its descriptor says; if it is not, the new archive is of no use */
export async function packBlob(
  file: AtomicFile,
  blob: BlobIdentity,
  reader: BlobReader,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  await startTarMember(file, blobPath(blob.digest), blob.size);
  const hash = createHash('sha256');
  const buffer = new Uint8Array(CHUNK_BYTES);
  let size = 0;
  for (let count = -1; count !== 0; size += count) {
    signal?.throwIfAborted();
    count = await reader.read(buffer);
    hash.update(buffer.subarray(0, count));
    await file.write(buffer.subarray(0, count));
  }
  if (size !== blob.size || formatDigest(hash.digest()) !== blob.digest) return false;
  await endTarMember(file, size);
  return true;
}
