// Changes files of a node, all of them or none, and keeps what was there before, so that it can be brought back.

import { createHash } from 'node:crypto';
import { existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import { asArray, asNumber, asObject, asText, type JsonValue, readObject } from '../base/json.ts';
import { showPath } from '../base/shown.ts';
import { lockFile } from '../image/transports/layout-lock.ts';
import { removeAbandoned } from '../image/transports/temporary.ts';
import { isWithin, placeOf, refuseOutside } from './root.ts';
import { type FileChange, makeDirectories, notWritten, readBytes, unfinishedIn, writeWhole } from './whole-file.ts';

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
  const unlock = await lockFile(lock, { patience: PATIENCE_MILLISECONDS }).catch((error: unknown) => {
    const known = asOcicryptError(error);
    throw known.code === 'not-written' && known.cause !== undefined ? notWritten('write', lock, known.cause) : known;
  });
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
 * Lets no installation overwrite what an operator has written into a file of ours since.
 *
 * @throws OcicryptError `configuration`
 */
export function refuseEdited(root: string, changes: readonly FileChange[]): void {
  const kept = new Map(readKept(root).map((one) => [one.path, one]));
  const edited = changes.find(({ path, content, isAddition = false }) => {
    const [known, now] = [kept.get(path), readBytes(root, path)];
    if (known === undefined || now === undefined || isAddition || typeof content !== 'string') return false;
    const before = known.before === undefined ? undefined : readBytes(root, known.before);
    return !known.digests.includes(sha256(now)) && before?.equals(now) !== true;
  });
  if (edited === undefined) return;
  throw new OcicryptError(
    'configuration',
    `${showPath(edited.path)} was changed since it was written; nothing was changed now`,
    {
      hint: 'keep elsewhere what is yours in it, remove the file, and run this again',
    },
  );
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
  for (const one of kept) refuseLost(root, one);
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

/** @throws OcicryptError `configuration` if there is no copy to bring back, where one is needed */
function refuseLost(root: string, { path, before, digests }: Kept): void {
  if (before === undefined || existsSync(placeOf(root, before))) return;
  const now = readBytes(root, path);
  if (now !== undefined && !digests.includes(sha256(now))) return;
  throw new OcicryptError('configuration', `the copy of ${showPath(path)} as it was before is gone: ${before}`, {
    hint: `take what is ours out of ${path} by hand, and run this again`,
  });
}

/** Forgets an installation all of whose files were brought back. */
export function forgetInstalled(root: string): void {
  const directory = join(root, KEPT_DIRECTORY);
  refuseOutside(root, directory);
  // The list first: without it, copies that are left mean nothing.
  rmSync(join(root, LIST), { force: true });
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
  const files = asArray(readObject(bytes)?.get('files'));
  if (files === undefined) {
    throw new OcicryptError('configuration', `${LIST} is not the list that node install wrote`, {
      hint: `what was there before is in ${KEPT_DIRECTORY}: put it back by hand, then remove that directory`,
    });
  }
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

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
