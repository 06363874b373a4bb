// Judges by whose hands a path leads: who else could put something else in its place.

import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { systemCode } from './errors.ts';
import { showPath } from './shown.ts';

/** Something on the way to a file by which others could put another one in its place, in words. */
export type Weakness = { readonly problem: string; readonly hint: string };

/** A directory, link or file on the way, and the file itself as the last. */
export type Step = { readonly path: string; readonly status: Stats };

/** Whose directories and links may stand on the way, and whether others may write in a directory that is sticky. */
export type Trust = { readonly users: ReadonlySet<number>; readonly sticky: boolean };

/** This user and root, who can do everything anyway; undefined if the system knows no users by numbers. */
export function ourselves(): ReadonlySet<number> | undefined {
  const us = process.geteuid?.();
  return us === undefined ? undefined : new Set([us, 0]);
}

/** As many links as Linux follows. */
const MAXIMUM_LINKS = 40;

/**
 * Every directory and link by which the system finds `path`, in its order; what is missing is left out.
 *
 * @throws Error of the system where a directory may not be looked into
 */
export function stepsTo(path: string): readonly Step[] {
  const steps: Step[] = [{ path: '/', status: lstatSync('/') }];
  let here = '/';
  let links = 0;
  // Not put in order first: what `..` leads to is known where it stands.
  const whole = isAbsolute(path) ? path : `${process.cwd()}/${path}`;
  const rest = whole.split('/').filter(isName);
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    if (name === '..') {
      here = dirname(here);
      continue;
    }
    const next = join(here, name);
    const status = lookAt(next);
    if (status === undefined) return steps;
    steps.push({ path: next, status });
    if (!status.isSymbolicLink()) here = next;
    else if (++links <= MAXIMUM_LINKS) {
      const target = readlinkSync(next);
      if (isAbsolute(target)) here = '/';
      rest.unshift(...target.split('/').filter(isName));
    } else return steps;
  }
  return steps;
}

/** The first step at which others than `trust` permits could put something else. */
export function findWeakness(steps: readonly Step[], { users, sticky }: Trust): Weakness | undefined {
  for (const { path, status } of steps) {
    if (!users.has(status.uid)) {
      return {
        problem: `another user (uid ${status.uid}) owns ${showPath(path)} and can replace what is there`,
        hint: 'every directory above must belong to this user or to root: use another place',
      };
    }
    // Every link has the mode 0777, which means nothing.
    if (!status.isDirectory() || (status.mode & 0o022) === 0 || (sticky && (status.mode & 0o1000) !== 0)) continue;
    const who = (status.mode & 0o002) === 0 ? 'the users of its group' : 'all users';
    return {
      problem: `${who} can replace files in ${showPath(path)}`,
      hint: `chmod go-w ${showPath(path)}, or use another place`,
    };
  }
  return undefined;
}

function isName(part: string): boolean {
  return part !== '' && part !== '.';
}

function lookAt(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return undefined;
    throw error;
  }
}
