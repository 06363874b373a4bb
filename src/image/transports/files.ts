// Opens image files: to read, with bounds; to write, so that each is there whole or not at all
// (temporary file, fsync, rename, fsync).

import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import { type ByteSink, sourceFromFile } from '../cipher/streams.ts';
import { checkManifestSize, MAXIMUM_MANIFEST_BYTES } from '../model/manifest.ts';
import { notWritten } from '../not-written.ts';
import { type BlobReader, readAtMost } from './store.ts';
import { temporaryName } from './temporary.ts';

/** A file that appears under its name when it is whole. */
export interface AtomicFile extends ByteSink {
  /** Its temporary name. */
  readonly path: string;
  /** Makes the bytes durable, still without their name. Nothing can be written afterwards. */
  seal(): Promise<void>;
  /**
   * Gives the bytes their name in the same directory, which may be taken: what was there is replaced in one step. They are
   * durable if they were sealed, and their name is after {@link syncDirectory}.
   */
  publish(path: string): Promise<void>;
  /** Gives the file to the owner of another one; what cannot be given is kept from others. */
  own(owner: FileOwner): Promise<void>;
  /** Removes what was written; does nothing once it has its name. */
  discard(): Promise<void>;
}

/** Who a new file belongs to, as far as we may give it away, and who may touch it. */
export type FileOwner = { readonly mode: number; readonly uid: number; readonly gid: number };

export type AtomicFileOptions = {
  /**
   * Whether the bytes are many and written in large blocks: then they go past the page cache where file system and
   * runtime allow it. Measured for 512 MiB: 800 MB/s with their fsync against 550, since nothing is left to flush and the
   * copy into the cache costs as much as half a pass of SHA-256.
   */
  readonly layer?: boolean;
  /** Permissions before the umask: 0644 if it is left out. */
  readonly mode?: number;
  /** The directory's path for people, if it is another. */
  readonly shown?: string;
};

/** Direct writes need whole blocks from memory that starts at one. */
const BLOCK_BYTES = 4096;

/** Starts a file in `directory`, under a temporary name. @throws OcicryptError `not-written` */
export async function createAtomicFile(directory: string, options: AtomicFileOptions = {}): Promise<AtomicFile> {
  const path = join(directory, temporaryName());
  const { shown = directory } = options;
  const file = await openNew(path, options).catch(notWritten(shown));
  return new TemporaryFile(path, file.handle, { direct: file.direct, shown });
}

/** Writes a small file whole or not at all; its name is durable after {@link syncDirectory}. @throws OcicryptError `not-written` */
export async function writeFileAtomically(path: string, bytes: Uint8Array): Promise<void> {
  const file = await createAtomicFile(dirname(path));
  try {
    await file.write(bytes);
    await file.seal();
    await file.publish(path);
  } finally {
    await file.discard();
  }
}

/** Opens a regular file, never waiting for the other end of a pipe. @throws OcicryptError `not-found` */
export async function openRegularFile(path: string, what: string): Promise<BlobReader> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    const absent = systemCode(cause) === 'ENOENT' ? ' is not there' : ' cannot be read';
    throw new OcicryptError(
      'not-found',
      `${what}${absent}: cannot open ${showImagePath(path)}${showSystemCode(cause)}`,
      {
        cause,
        hint: 'check the path, and fetch the image again if it is damaged',
      },
    );
  });
  const status = await file.stat();
  if (!status.isFile()) {
    await file.close();
    throw new OcicryptError('bad-input', `${showImagePath(path)} is no file`);
  }
  return { ...sourceFromFile(file), close: () => file.close() };
}

/** Whether there is such a file that we can read; never waits for the other end of a pipe. */
export async function isFileOfSize(path: string, size: number): Promise<boolean> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => undefined);
  if (file === undefined) return false;
  try {
    const status = await file.stat();
    return status.isFile() && status.size === size;
  } finally {
    await file.close();
  }
}

/** Reads a regular file of at most 4 MiB. @throws OcicryptError `not-found`, `bad-input` */
export async function readSmallFile(path: string, what: string): Promise<Uint8Array> {
  const reader = await openRegularFile(path, what);
  try {
    const bytes = await readAtMost(reader, MAXIMUM_MANIFEST_BYTES + 1);
    checkManifestSize(bytes.length, showImagePath(path));
    return bytes;
  } finally {
    await reader.close();
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

class TemporaryFile implements AtomicFile {
  readonly path: string;
  readonly #shown: string;
  #file: FileHandle | undefined;
  #direct: boolean;
  #position = 0;
  #published = false;

  constructor(path: string, file: FileHandle, how: { readonly direct: boolean; readonly shown: string }) {
    this.path = path;
    this.#file = file;
    this.#direct = how.direct;
    this.#shown = how.shown;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#direct && bytes.length % BLOCK_BYTES !== 0) await this.#useCache();
    let done = 0;
    while (done < bytes.length) {
      const left = bytes.subarray(done);
      done += await this.#writeSome(left).catch(notWritten(this.#shown));
    }
  }

  async seal(): Promise<void> {
    try {
      await this.#file?.sync();
      await this.#close();
    } catch (error) {
      notWritten(this.#shown)(error);
    }
  }

  async publish(path: string): Promise<void> {
    const refused = notWritten(join(this.#shown, basename(path)));
    await this.#close().catch(refused);
    await rename(this.path, path).catch(refused);
    this.#published = true;
  }

  async own({ mode, uid, gid }: FileOwner): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    const ours = await file.stat();
    const given =
      (ours.uid === uid && ours.gid === gid) ||
      (await file.chown(uid, gid).then(
        () => true,
        () => false,
      ));
    // The group of another file is not ours to let in.
    await file.chmod(given ? mode & 0o777 : mode & 0o700).catch(notWritten(this.#shown));
  }

  async discard(): Promise<void> {
    if (this.#published) return;
    await this.#close();
    await rm(this.path, { force: true });
  }

  async #writeSome(bytes: Uint8Array): Promise<number> {
    const file = this.#file;
    if (file === undefined) throw new Error('file is closed');
    try {
      const { bytesWritten } = await file.write(bytes, 0, bytes.length, this.#position);
      if (bytesWritten === 0) throw new Error('nothing was written');
      this.#position += bytesWritten;
      // After a short write (a full disk is near) what is left is no whole block.
      if (this.#direct && bytesWritten % BLOCK_BYTES !== 0) await this.#useCache();
      return bytesWritten;
    } catch (error) {
      // Node's shared memory does not start at a block, and some file systems take direct writes of no kind.
      if (!this.#direct || systemCode(error) !== 'EINVAL') throw error;
      await this.#useCache();
      return 0;
    }
  }

  async #useCache(): Promise<void> {
    this.#direct = false;
    await this.#close();
    this.#file = await open(this.path, constants.O_WRONLY);
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

async function openNew(
  path: string,
  { layer = false, mode = 0o644 }: AtomicFileOptions,
): Promise<{ readonly handle: FileHandle; readonly direct: boolean }> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  // Not defined if the system has no such thing.
  const directFlag: number | undefined = constants.O_DIRECT;
  if (layer && directFlag !== undefined) {
    try {
      return { handle: await open(path, flags | directFlag, mode), direct: true };
    } catch (error) {
      if (systemCode(error) !== 'EINVAL') throw error;
      await rm(path, { force: true });
    }
  }
  return { handle: await open(path, flags, mode), direct: false };
}

/** From `inner` outwards to `outer`; the first that holds something, or is not ours to remove, ends it. */
export async function removeEmptyDirectories(inner: string, outer: string): Promise<void> {
  const last = resolve(outer);
  for (let directory = resolve(inner); directory.startsWith(last); directory = dirname(directory)) {
    const removed = await rmdir(directory).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}
