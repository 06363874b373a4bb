// Writes one file of a node as a whole: it is old or new at any moment.

import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';
import { temporaryName } from '../image/transports/temporary.ts';
import { synchronize } from './files.ts';
import { placeOf } from './root.ts';

/** A file as it is to be, by its path on the node. */
export type FileChange = {
  readonly path: string;
  readonly content: string | Uint8Array;
  readonly mode: number;
  /** Whether it is the text that is there, and ours added to it. */
  readonly isAddition?: boolean;
};

/**
 * @param owner of a file that is not there
 * @returns what puts the file back as it was
 */
export function writeWhole(root: string, { path, content, mode }: FileChange, owner?: Owner): () => void {
  const target = placeOf(root, path);
  if (!existsSync(target) && lstatSync(target, { throwIfNoEntry: false }) !== undefined) {
    throw new OcicryptError('not-written', `${showPath(target)} is a link to a file that is not there`, {
      hint: 'make that file, or remove the link, and run this again',
    });
  }
  const made = makeDirectories(dirname(target));
  const old = readBytes(root, path);
  const status = statSync(target, { throwIfNoEntry: false });
  try {
    writeNew(target, Buffer.from(content), status?.mode ?? mode, status ?? owner);
  } catch (cause) {
    removeDirectories(made);
    throw notWritten('write', join(root, path), cause);
  }
  return () => {
    if (old === undefined) rmSync(target, { force: true });
    else writeNew(target, old, status?.mode ?? mode, status);
    removeDirectories(made);
  };
}

/** Root is refused by an attribute, or by a security module. */
const DENIED =
  process.geteuid?.() === 0 ? 'see lsattr, and what the kernel logs of denials (journalctl -k)' : 'run this as root';
/** What helps if a file system refuses. */
const ADVICE: Readonly<Record<string, string>> = {
  EACCES: DENIED,
  EPERM: DENIED,
  EDQUOT: 'make room, and run this again',
  ENOSPC: 'make room (df, df -i), and run this again',
  EROFS: 'build this into the image of this host, whose disk is read-only',
};

/** That a file or a directory of a node could not be made. */
export function notWritten(what: 'make' | 'write', path: string, cause: unknown): OcicryptError {
  return new OcicryptError('not-written', `cannot ${what} ${showPath(path)}${showSystemCode(cause)}`, {
    cause,
    hint: ADVICE[systemCode(cause) ?? ''] ?? 'see what is at this path, and what the kernel logs (journalctl -k)',
  });
}

/**
 * Where a file of a directory lies until it is whole. CRI-O reads every file of `crio.conf.d`, whatever its name: so beside
 * such a directory, if that is the same disk.
 */
export function unfinishedIn(directory: string): string {
  const parent = dirname(directory);
  return directory.endsWith('.d') && statSync(parent).dev === statSync(directory).dev ? parent : directory;
}

type Owner = { readonly uid: number; readonly gid: number };

function writeNew(target: string, bytes: Uint8Array, mode: number, owner: Owner | undefined): void {
  const temporary = join(unfinishedIn(dirname(target)), temporaryName());
  try {
    writeFileSync(temporary, bytes, { mode: mode & 0o7777, flag: 'wx', flush: true });
    chmodSync(temporary, mode & 0o7777);
    if (owner !== undefined) chownSync(temporary, owner.uid, owner.gid);
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  synchronize(dirname(target));
}

/** @returns those that were made, the innermost first */
export function makeDirectories(directory: string): readonly string[] {
  const missing: string[] = [];
  for (let one = directory; !existsSync(one) && dirname(one) !== one; one = dirname(one)) missing.push(one);
  try {
    for (const one of missing.toReversed()) mkdirSync(one, { mode: 0o755 });
  } catch (cause) {
    removeDirectories(missing);
    throw notWritten('make', directory, cause);
  }
  return missing;
}

/** Those that are empty. */
function removeDirectories(directories: readonly string[]): void {
  for (const one of directories) {
    try {
      rmdirSync(one);
    } catch {
      return;
    }
  }
}

/** @throws OcicryptError `not-written` if it leads out of the root: what is read may be shown, and written elsewhere in it */
export function readBytes(root: string, path: string): Buffer | undefined {
  const place = placeOf(root, path);
  try {
    return statSync(place).isFile() ? readFileSync(place) : undefined;
  } catch {
    return undefined;
  }
}
