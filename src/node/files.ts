// Files of a node as they are now, below `/` or below the root of an image that is being built.

import { accessSync, closeSync, constants, fsyncSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Larger ones are no configuration. */
const MAXIMUM_FILE_BYTES = 1024 * 1024;

/** The text of a file; undefined if there is none that can be read. */
export function readText(path: string): string | undefined {
  try {
    const status = statSync(path);
    return status.isFile() && status.size <= MAXIMUM_FILE_BYTES ? readFileSync(path, 'utf8') : undefined;
  } catch {
    return undefined;
  }
}

/** The names in a directory in order; none if it cannot be read. */
export function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory).toSorted();
  } catch {
    return [];
  }
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

export function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Whether a file could be made in a directory, which may have to be made first: not on a disk that is read-only. */
export function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    return isMissing && dirname(directory) !== directory && isWritable(dirname(directory));
  }
}

/** The first of some directories in which a program lies. */
export function findProgram(root: string, directories: readonly string[], name: string): string | undefined {
  return directories.map((directory) => join(directory, name)).find((path) => isExecutable(join(root, path)));
}

/** Waits until a file, or the names in a directory, would outlast a loss of power. @throws Error of the system */
export function synchronize(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
