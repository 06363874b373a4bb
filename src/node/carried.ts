// Brings what the agents of a cluster carry to a machine, into one directory: this program, the policy, files of Secrets.

import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { asArray, asObject, asText, parseJson } from '../base/json.ts';
import { showPath } from '../base/shown.ts';
import { findWeakness, stepsTo } from '../base/trusted-path.ts';
import { namesIn, readText, synchronize } from './files.ts';

/** A file by its path below the directory. */
export type CarriedFile = { readonly path: string; readonly content: Uint8Array };

export type Carriage = {
  /** Whose files these are: one set of agents does not undo what another one does. */
  readonly owner: string;
  readonly directory: string;
};

/** Where the program lies below the directory. */
export const CARRIED_PROGRAM = 'bin/ocicrypt-kms';
/** Where the policy lies there, and in what an agent is given. */
export const CARRIED_POLICY = 'policy/config.yaml';
/** The lock of an agent at work. */
export const CARRIAGE_LOCK = 'lock';
/** What was brought, by whom, and the first directory that was made for it. */
const LIST = 'carried.json';
type List = { readonly owner: string; readonly paths: readonly string[]; readonly made: string | undefined };

/**
 * Makes the directory, for root alone to write.
 *
 * @throws OcicryptError `configuration` if others could replace what is in it or something else is in it, `refused` if
 * other agents bring their files there, `not-written`
 */
export function prepareDirectory({ directory, owner }: Carriage): void {
  let made: string | undefined;
  try {
    made = mkdirSync(directory, { recursive: true, mode: 0o755 });
  } catch (cause) {
    throw notWritten(directory, cause);
  }
  const weakness = findWeakness(stepsTo(directory), { users: new Set([0, process.geteuid?.() ?? 0]), sticky: false });
  if (weakness !== undefined)
    throw new OcicryptError('configuration', `${directory} is no place for a program: ${weakness.problem}`, {
      hint: weakness.hint,
    });
  if (made !== undefined) writeChanged(directory, LIST, listText({ owner, paths: [], made }));
  const before = readList(directory);
  if (before === undefined) refuseForeign(directory);
  if (before === undefined || before.owner === owner) return;
  throw new OcicryptError('refused', `this node is set up by other agents already: those of ${before.owner}`, {
    hint: 'remove one of the two, or have them select different nodes',
  });
}

/** What is brought would replace files of the same name, and remove them later. */
function refuseForeign(directory: string): void {
  // A run that was killed may have left these.
  const [foreign] = namesIn(directory).filter((name) => name !== CARRIAGE_LOCK && name !== `${LIST}.new`);
  if (foreign === undefined) return;
  throw new OcicryptError(
    'configuration',
    `${directory} is not empty, and not of node agent: it holds ${showPath(join(directory, foreign))}`,
    {
      hint: 'name a directory of its own, which need not be there',
    },
  );
}

/** Whose files were brought there; undefined if none were. */
export function carrierOf(directory: string): string | undefined {
  return readList(directory)?.owner;
}

/**
 * Writes what differs, and removes what was brought before and is no longer carried.
 *
 * @param program the file of this program
 * @returns whether anything was changed
 * @throws OcicryptError `not-written`
 */
export function bringFiles({ directory, owner }: Carriage, files: readonly CarriedFile[], program: string): boolean {
  const paths = [...files.map(({ path }) => path), CARRIED_PROGRAM];
  const before = readList(directory);
  const made = before?.made;
  const old = (before?.paths ?? []).filter((path) => !paths.includes(path));
  // First of all, so that also what is killed in the middle is known.
  let changed = writeChanged(directory, LIST, listText({ owner, paths: [...paths, ...old], made }));
  for (const { path, content } of files) changed = writeChanged(directory, path, content) || changed;
  if (digestOf(program) !== digestOf(join(directory, CARRIED_PROGRAM))) {
    writeWhole(directory, CARRIED_PROGRAM, (place) => copyFileSync(program, place), 0o755);
    changed = true;
  }
  for (const path of old) removeFile(directory, path);
  return writeChanged(directory, LIST, listText({ owner, paths, made })) || changed;
}

function listText(list: List): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(list)}\n`);
}

/** Where servers in pods have their socket: defaultSocketPath of root. */
export const SOCKET_DIRECTORY = '/run/ocicrypt-kms';

/**
 * Makes the directory of a socket, for a user who may be no other than root.
 *
 * @throws OcicryptError `not-written`, `configuration` if something else has it
 */
export function makeSocketDirectory(user: number, path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const { uid } = lstatSync(path);
    if (uid === user) return;
    if (readdirSync(path).length === 0) {
      chownSync(path, user, user);
      return;
    }
  } catch (cause) {
    throw notWritten(path, cause);
  }
  throw new OcicryptError('configuration', `${path} is in use, and not by the user ${user}`, {
    hint: 'a service of this node may have its socket there: stop it, or let pods have no server',
  });
}

/** Removes the directory of a socket if it is empty: a service of this node may have its own there. */
export function removeSocketDirectory(path: string): void {
  removeEmpty(path, dirname(path));
}

/** Removes all that was brought, and of the directories that were made for it those that are empty then. */
export function removeCarried({ directory }: Carriage): void {
  const list = readList(directory);
  for (const path of list?.paths ?? []) removeFile(directory, path);
  for (const path of [LIST, CARRIAGE_LOCK]) removeFile(directory, path);
  removeEmpty(directory, list?.made === undefined ? directory : dirname(list.made));
}

/** As a set of agents has noted it; undefined if nothing was brought here. */
function readList(directory: string): List | undefined {
  const text = readText(join(directory, LIST));
  if (text === undefined) return undefined;
  const list = asObject(parseJson(new TextEncoder().encode(text), join(directory, LIST)));
  const paths = asArray(list?.get('paths'))?.map(asText) ?? [];
  return {
    owner: asText(list?.get('owner')) ?? '',
    paths: paths.flatMap((path) => (path !== undefined && isBelow(path) ? [path] : [])),
    made: asText(list?.get('made')),
  };
}

/** Whether a path stays below the directory that it is joined to. */
export function isBelow(path: string): boolean {
  return path.split('/').every((part) => /^[\w.-]+$/.test(part) && part !== '.' && part !== '..');
}

/** @returns whether it was otherwise before */
function writeChanged(directory: string, path: string, content: Uint8Array): boolean {
  if (isSame(join(directory, path), content)) return false;
  writeWhole(directory, path, (place) => writeFileSync(place, content, { mode: 0o600 }));
  return true;
}

/** Another name first: what reads a file meanwhile sees the old one or the new one. */
function writeWhole(directory: string, path: string, write: (place: string) => void, mode = 0o600): void {
  const target = join(directory, path);
  const temporary = `${target}.new`;
  try {
    mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    rmSync(temporary, { force: true });
    write(temporary);
    chmodSync(temporary, mode);
    synchronize(temporary);
    renameSync(temporary, target);
    synchronize(dirname(target));
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw notWritten(target, cause);
  }
}

function notWritten(path: string, cause: unknown): OcicryptError {
  return new OcicryptError('not-written', `cannot write ${path}${showSystemCode(cause)}`, {
    cause,
    hint: 'its file system must be writable: name another directory of the node',
  });
}

function isSame(path: string, content: Uint8Array): boolean {
  try {
    const status = lstatSync(path);
    return status.isFile() && (status.mode & 0o777) === 0o600 && readFileSync(path).equals(content);
  } catch {
    return false;
  }
}

const CHUNK_BYTES = 1024 * 1024;

/** Of a program, which is too large to be read at once; undefined if it cannot be read or run. */
function digestOf(path: string): string | undefined {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, 'r');
    if ((fstatSync(descriptor).mode & 0o111) === 0) return undefined;
    const hash = createHash('sha256');
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let read = readSync(descriptor, chunk); read > 0; read = readSync(descriptor, chunk))
      hash.update(chunk.subarray(0, read));
    return hash.digest('hex');
  } catch {
    return undefined;
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function removeFile(directory: string, path: string): void {
  try {
    rmSync(join(directory, path), { force: true });
  } catch (cause) {
    throw notWritten(join(directory, path), cause);
  }
  removeEmpty(dirname(join(directory, path)), directory);
}

/** The directories from `here` up to `end`, but for `end`, as long as they are empty. */
function removeEmpty(here: string, end: string): void {
  for (let one = here; one !== end && one !== dirname(one); one = dirname(one)) {
    try {
      rmdirSync(one);
    } catch {
      return;
    }
  }
}
