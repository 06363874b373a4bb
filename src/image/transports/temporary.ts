// Names temporary files and directories after the run that makes them, and removes those of runs that
// were killed: they may hold plain layers.

import { createHash, randomUUID } from 'node:crypto';
import { constants, readFileSync, readlinkSync } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, rmdir, unlink } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemCode } from '../../base/errors.ts';
import { notWritten } from '../not-written.ts';

/** What names of temporary files and directories begin with. */
const PREFIX = '.ocicrypt-kms-';
/** The run that a name tells of: where its process numbers count, its number, and when it was started. */
const NAME = /^\.ocicrypt-kms-([0-9a-f]{12})-([0-9]{1,10})-([0-9]{1,20})-/;
/** For names of which nothing else is known: another machine's on a shared disk. */
const FOREIGN_MILLISECONDS = 7 * 24 * 60 * 60 * 1000;

/** A name that no file has, which tells later runs whether this one still lives. */
export function temporaryName(): string {
  return `${PREFIX}${ownRun()}-${randomUUID()}`;
}

/**
 * Whether the run that a temporary name tells of still lives; undefined if that cannot be known from here: it ran on
 * another machine or in another container.
 */
export function isRunning(name: string): boolean | undefined {
  const [, where, pid, start] = NAME.exec(name) ?? [];
  if (where === undefined || where !== scope()) return undefined;
  const now = startOf(Number(pid));
  return now !== undefined && (start === '0' || now === start);
}

/**
 * Makes a directory that only we can enter; those of runs that were killed are removed beside it first. It holds files and
 * no directories.
 *
 * @param parent the system's directory for such if it is left out
 * @throws OcicryptError `not-written`
 */
export async function createTemporaryDirectory(parent: string = tmpdir()): Promise<string> {
  await removeAbandoned(parent);
  const path = join(parent, temporaryName());
  await mkdir(path, { mode: 0o700 }).catch(notWritten(parent));
  return path;
}

/** Removes a directory of {@link createTemporaryDirectory}. */
export async function removeTemporaryDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW).catch(
    () => undefined,
  );
  if (directory === undefined) return;
  try {
    await removeOwnDirectory(path, directory);
  } finally {
    await directory.close();
  }
}

/**
 * Removes what runs that were killed have left in a directory: only files and directories of our own user, by no link,
 * and of no run that lives. What cannot be removed stays.
 */
export async function removeAbandoned(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  for (const name of names) {
    if (name.startsWith(PREFIX)) await removeIfAbandoned(join(directory, name), name).catch(() => undefined);
  }
}

async function removeIfAbandoned(path: string, name: string): Promise<void> {
  const status = await lstat(path);
  if (status.uid !== process.geteuid?.()) return;
  const running = isRunning(name);
  if (running === true || (running === undefined && status.mtimeMs > Date.now() - FOREIGN_MILLISECONDS)) return;
  // unlink removes a name and follows nothing, whatever stands there by now.
  if (status.isFile()) return unlink(path);
  if (status.isDirectory()) await removeTemporaryDirectory(path);
}

/** Through its open descriptor, so that a directory that is swapped for a link leads nowhere else. */
async function removeOwnDirectory(path: string, directory: FileHandle): Promise<void> {
  if ((await directory.stat()).uid !== process.geteuid?.()) return;
  const inside = process.platform === 'linux' ? `/proc/self/fd/${directory.fd}` : path;
  for (const name of await readdir(inside)) await unlink(join(inside, name)).catch(() => undefined);
  await rmdir(path).catch(() => undefined);
}

/** Which run this is. */
function ownRun(): string {
  return `${scope()}-${process.pid}-${startOf(process.pid) ?? 0}`;
}

let knownScope: string | undefined;

/** One boot of one machine and one space of process numbers. */
function scope(): string {
  knownScope ??= createHash('sha256')
    .update(
      `${hostname()}\n${readText('/proc/sys/kernel/random/boot_id') ?? ''}\n${readLink('/proc/self/ns/pid') ?? ''}`,
    )
    .digest('hex')
    .slice(0, 12);
  return knownScope;
}

/** When a process was started, in the kernel's ticks: another one may have its number by now. Undefined if it is gone. */
function startOf(pid: number): string | undefined {
  const status = readText(`/proc/${pid}/stat`);
  if (status !== undefined) {
    // The second field is the program's name in parentheses, which may hold anything.
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    // Dead, and its exit status was not read yet: containers often have no process that does.
    return /^[ZXx]$/.test(fields[0] ?? '') ? undefined : fields[19];
  }
  if (readText('/proc/self/stat') !== undefined) return undefined;
  try {
    process.kill(pid, 0);
    return '0';
  } catch (error) {
    return systemCode(error) === 'EPERM' ? '0' : undefined;
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
