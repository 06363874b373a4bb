// Holds the directory of a layout's blobs open while blobs are written: no symbolic link leads there, and none that a
// neighbour or the image's author puts in its place later is followed.

import { constants, existsSync } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { OcicryptError, systemCode } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import { notWritten } from '../not-written.ts';
import {
  type AtomicFile,
  type AtomicFileOptions,
  createAtomicFile,
  removeEmptyDirectories,
  syncDirectory,
} from './files.ts';
import { BLOBS } from './layout-index.ts';
import { removeAbandoned } from './temporary.ts';

/** Where the blobs of one layout are written. Names of files are the hexadecimal part of a digest. */
export class LayoutBlobs {
  readonly #handle: FileHandle;
  readonly #path: string;
  /** The outermost directory that was made here, until something is in it. */
  #made: string | undefined;

  private constructor(handle: FileHandle, path: string, made: string | undefined) {
    this.#handle = handle;
    this.#path = path;
    this.#made = made;
  }

  /**
   * Makes the directory in `layout` if it is not there.
   *
   * @throws OcicryptError `not-written` for a symbolic link in place of `blobs` or `blobs/sha256`: it leads to files that
   *   are none of the layout's
   * @throws Error of the system
   */
  static async open(layout: string): Promise<LayoutBlobs> {
    let path = resolve(layout);
    let made = await mkdir(path, { recursive: true });
    let handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      for (const name of BLOBS.split('/')) {
        const [above, place] = [handle, join(held(handle, path), name)];
        path = join(path, name);
        if (await makeDirectory(place)) made ??= path;
        handle = await openWithoutLinks(place, path);
        await above.close();
      }
    } catch (error) {
      await handle.close();
      if (made !== undefined) await removeEmptyDirectories(path, made);
      throw error;
    }
    return new LayoutBlobs(handle, path, made);
  }

  /** Starts a file here, under a temporary name. @throws OcicryptError `not-written` */
  createFile(options: AtomicFileOptions = {}): Promise<AtomicFile> {
    return createAtomicFile(held(this.#handle, this.#path), { ...options, shown: this.#path });
  }

  /** The path to write to, or to remove. */
  pathOf(name: string): string {
    return join(held(this.#handle, this.#path), name);
  }

  /** The same path, for people. */
  shownPathOf(name: string): string {
    return join(this.#path, name);
  }

  remove(name: string): Promise<void> {
    return rm(this.pathOf(name), { force: true });
  }

  /** Removes what runs that were killed have left. */
  removeAbandoned(): Promise<void> {
    return removeAbandoned(held(this.#handle, this.#path));
  }

  /** Makes the names in it durable, and its own if it is new. @throws OcicryptError `not-written` */
  async sync(): Promise<void> {
    await this.#handle.sync().catch(notWritten(this.#path));
    if (this.#made === undefined) return;
    // A new directory's name is in the one above it.
    for (let path = this.#path; path.length > dirname(this.#made).length; path = dirname(path)) {
      await syncDirectory(dirname(path)).catch(notWritten(dirname(path)));
    }
  }

  /** That something in it stays. */
  keep(): void {
    this.#made = undefined;
  }

  /** Removes the directories that were made for nothing. */
  async close(): Promise<void> {
    await this.#handle.close();
    if (this.#made !== undefined) await removeEmptyDirectories(this.#path, this.#made);
  }
}

/** A path by which the system goes to the open directory, whatever has its name by now. */
function held(directory: FileHandle, path: string): string {
  const inside = `/proc/self/fd/${directory.fd}`;
  return existsSync(inside) ? inside : path;
}

/** Returns whether it was not there. */
function makeDirectory(path: string): Promise<boolean> {
  return mkdir(path).then(
    () => true,
    (error: unknown) => {
      if (systemCode(error) === 'EEXIST') return false;
      throw error;
    },
  );
}

/** @param shown the path for people */
function openWithoutLinks(path: string, shown: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  return open(path, flags).catch((cause: unknown) => {
    if (!['ELOOP', 'ENOTDIR'].includes(systemCode(cause) ?? '')) throw cause;
    throw new OcicryptError('not-written', `${showImagePath(shown)} is a symbolic link or a file, not a directory`, {
      cause,
      hint: 'nothing was changed: nothing is written by a link in a layout; name another layout, or mount the directory there',
    });
  });
}
