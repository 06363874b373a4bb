// Changes files of a node, all of them or none, and keeps what was there before, so that it can be brought back.

import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { asArray, asNumber, asObject, asText, type JsonValue, parseJson } from '../base/json.ts';
import { showPath } from '../base/shown.ts';
import { lockFile } from '../image/transports/layout-lock.ts';
import { removeAbandoned, temporaryName } from '../image/transports/temporary.ts';
import { synchronize } from './files.ts';
import { isWithin, placeOf, refuseOutside } from './root.ts';

/** A file as it is to be, by its path on the node. */
export type FileChange = { readonly path: string; readonly content: string | Uint8Array; readonly mode: number };

/** A file that was written, and what was there before: a copy, or nothing. */
type Kept = {
  readonly path: string;
  readonly before: string | undefined;
  /** What a copy does not say of it; lists of earlier versions do not have it. */
  readonly status: FileStatus | undefined;
  /** Of what we wrote, and of what we were about to write: a run that was killed may have left either. */
  readonly digests: readonly string[];
};

type FileStatus = { readonly mode: number; readonly uid: number; readonly gid: number };

/** Where the copies are, with a list of them. */
export const KEPT_DIRECTORY = '/var/lib/ocicrypt-kms/node';
const LIST = join(KEPT_DIRECTORY, 'installed.json');
const LOCK = '/var/lib/ocicrypt-kms/node.lock';
/** Another run may wait for services that it restarts, each of them for minutes. */
const PATIENCE_MILLISECONDS = 900_000;

/**
 * Waits until no other run changes this node, and removes what one that was killed has left of `paths`.
 *
 * @returns ends it
 * @throws OcicryptError `not-written`
 */
export async function lockNode(root: string, paths: readonly string[]): Promise<() => Promise<void>> {
  const lock = join(root, LOCK);
  refuseOutside(root, lock);
  makeDirectories(dirname(lock));
  const unlock = await lockFile(lock, { patience: PATIENCE_MILLISECONDS });
  const places = [KEPT_DIRECTORY, ...paths.map((path) => dirname(path))].map((path) => join(root, path));
  const found = places.filter((path) => existsSync(path) && isWithin(root, join(path, 'any')));
  for (const place of new Set(found.map((path) => unfinishedIn(realpathSync(path))))) await removeAbandoned(place);
  return unlock;
}

/** The changes that are still to be made: files that are otherwise than they should be. */
export function pendingChanges(root: string, changes: readonly FileChange[]): readonly FileChange[] {
  return changes.filter(({ path, content }) => {
    const now = readBytes(root, path);
    return now === undefined || !now.equals(Buffer.from(content));
  });
}

/**
 * Writes all files, or none. What was there the first time is kept.
 *
 * @returns what brings back the state before this call
 * @throws OcicryptError `not-written`; the files are as before then
 */
export function applyChanges(root: string, changes: readonly FileChange[]): () => void {
  const known = readKept(root);
  const undo: (() => void)[] = [];
  const undoAll = () => {
    for (const one of undo.splice(0).reverse()) one();
  };
  try {
    const kept = new Map(known.map((one) => [one.path, one]));
    for (const { path, content } of changes) kept.set(path, keep(root, path, content, kept.get(path), undo));
    // First of all, so that also what is killed in the middle can be brought back.
    undo.push(writeWhole(root, { path: LIST, content: listText([...kept.values()]), mode: 0o600 }));
    for (const change of changes) undo.push(writeWhole(root, change));
  } catch (error) {
    undoAll();
    throw error;
  }
  return undoAll;
}

/** What became of the files of an installation that is undone. */
export type Restored = { readonly restored: readonly string[]; readonly changedSince: readonly string[] };

/**
 * Brings back what was there before the first installation. A file that was changed since is handed to `adapt`, which may
 * know what to take out of it; else it stays.
 *
 * @param adapt gives back the text without what is ours, as it is if nothing in it is; undefined if that is not known
 */
export function restoreAll(root: string, adapt: (path: string, text: string) => string | undefined): Restored {
  const restored: string[] = [];
  const changedSince: string[] = [];
  const kept = readKept(root);
  for (const { path, before, status, digests } of kept.toReversed()) {
    const now = readBytes(root, path);
    const old = before === undefined ? undefined : readBytes(root, before);
    if (now === undefined ? old === undefined : old?.equals(now)) continue;
    if (now !== undefined && !digests.includes(sha256(now))) {
      const adapted = adapt(path, now.toString());
      if (adapted === undefined) changedSince.push(path);
      else if (adapted !== now.toString()) {
        writeWhole(root, { path, content: adapted, mode: 0o644 });
        restored.push(path);
      }
      continue;
    }
    if (old === undefined) rmSync(join(root, path), { force: true });
    else writeWhole(root, { path, content: old, mode: status?.mode ?? 0o644 }, status);
    restored.push(path);
  }
  return { restored, changedSince };
}

/** Forgets an installation all of whose files were brought back. */
export function forgetInstalled(root: string): void {
  const directory = join(root, KEPT_DIRECTORY);
  refuseOutside(root, directory);
  rmSync(directory, { recursive: true, force: true });
}

/** The files that were written here, or none. */
export function installedPaths(root: string): readonly string[] {
  return readKept(root).map(({ path }) => path);
}

function keep(
  root: string,
  path: string,
  content: string | Uint8Array,
  known: Kept | undefined,
  undo: (() => void)[],
): Kept {
  const digest = sha256(Buffer.from(content));
  const old = readBytes(root, path);
  if (known !== undefined) {
    const isOurs = old !== undefined && known.digests.includes(sha256(old));
    return { ...known, digests: isOurs ? [sha256(old), digest] : [digest] };
  }
  if (old === undefined) return { path, before: undefined, status: undefined, digests: [digest] };
  const before = join(KEPT_DIRECTORY, sha256(Buffer.from(path)).slice(0, 16));
  undo.push(writeWhole(root, { path: before, content: old, mode: 0o600 }));
  const { mode, uid, gid } = statSync(join(root, path));
  return { path, before, status: { mode: mode & 0o7777, uid, gid }, digests: [digest] };
}

function listText(kept: readonly Kept[]): string {
  const files = kept.map(({ path, before, status, digests }) => ({
    ...{ path, before: before ?? null, status: status ?? null, digests },
  }));
  return `${JSON.stringify({ files }, null, 2)}\n`;
}

function readKept(root: string): readonly Kept[] {
  const bytes = readBytes(root, LIST);
  if (bytes === undefined) return [];
  const files = asArray(asObject(parseJson(bytes, LIST))?.get('files')) ?? [];
  return files.flatMap((value) => {
    const one = asObject(value);
    const path = asText(one?.get('path'));
    const digests = (asArray(one?.get('digests')) ?? []).flatMap((digest) => asText(digest) ?? []);
    return path === undefined
      ? []
      : [{ path, before: asText(one?.get('before')), status: statusOf(one?.get('status')), digests }];
  });
}

function statusOf(value: JsonValue | undefined): FileStatus | undefined {
  const [mode, uid, gid] = ['mode', 'uid', 'gid'].map((name) => asNumber(asObject(value)?.get(name)));
  return mode === undefined || uid === undefined || gid === undefined ? undefined : { mode, uid, gid };
}

/**
 * @param owner of a file that is not there
 * @returns what puts the file back as it was
 */
function writeWhole(root: string, { path, content, mode }: FileChange, owner?: Owner): () => void {
  const target = placeOf(root, path);
  const made = makeDirectories(dirname(target));
  const old = readBytes(root, path);
  const status = statSync(target, { throwIfNoEntry: false });
  try {
    writeNew(target, Buffer.from(content), status?.mode ?? mode, status ?? owner);
  } catch (cause) {
    removeDirectories(made);
    throw new OcicryptError('not-written', `cannot write ${showPath(join(root, path))}${showSystemCode(cause)}`, {
      cause,
      hint: 'run this as root; if the disk of this host is read-only, build this into the image of the host',
    });
  }
  return () => {
    if (old === undefined) rmSync(target, { force: true });
    else writeNew(target, old, status?.mode ?? mode, status);
    removeDirectories(made);
  };
}

/**
 * Where a file of a directory lies until it is whole. CRI-O reads every file of `crio.conf.d`, whatever its name: so beside
 * such a directory, if that is the same disk.
 */
function unfinishedIn(directory: string): string {
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
function makeDirectories(directory: string): readonly string[] {
  const missing: string[] = [];
  for (let one = directory; !existsSync(one) && dirname(one) !== one; one = dirname(one)) missing.push(one);
  try {
    for (const one of missing.toReversed()) mkdirSync(one, { mode: 0o755 });
  } catch (cause) {
    removeDirectories(missing);
    throw new OcicryptError('not-written', `cannot make ${showPath(directory)}${showSystemCode(cause)}`, {
      cause,
      hint: 'run this as root; if the disk of this host is read-only, build this into the image of the host',
    });
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
function readBytes(root: string, path: string): Buffer | undefined {
  const place = placeOf(root, path);
  try {
    return statSync(place).isFile() ? readFileSync(place) : undefined;
  } catch {
    return undefined;
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
