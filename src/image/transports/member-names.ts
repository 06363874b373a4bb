// Says which file of an unpacked archive a tar member is, as containers/storage pkg/archive does: no two may be one.

import { posix } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';

/** What a tar says of a member, before its content. */
export type ArchiveMember = {
  readonly name: string;
  readonly kind: 'file' | 'directory' | 'hard-link' | 'symbolic-link' | 'other';
  /** What a link points to. */
  readonly target?: string | undefined;
};

/** PATH_MAX of Linux, and what keeps a name of a million slashes from costing a million steps. */
const MAXIMUM_NAME_CHARACTERS = 4096;
/** Of all names, of which one may lie in 2,000 directories: what archives of images need a hundred times over. */
const MAXIMUM_DIRECTORIES = 20_000;
const MAXIMUM_CHARACTERS = 4 * 1024 * 1024;
/** Linux gives up after 40 (path_resolution(7)). */
const MAXIMUM_LINKS = 40;

/**
 * Where a member lies in its archive: `./x`, `/x`, `//x` and `a/../x` are all `x`. The root is the empty path.
 *
 * @returns undefined for a name that leaves the archive
 */
export function memberPath(name: string): string | undefined {
  if (name.length > MAXIMUM_NAME_CHARACTERS || name.includes('\0')) return undefined;
  const path = posix.normalize(name === '' ? '.' : name).replace(/^\/+|\/+$/g, '');
  if (path === '..' || path.startsWith('../')) return undefined;
  return path === '.' ? '' : path;
}

/**
 * Where a link points to: a hard link from the root of the archive, a symbolic link from where it lies.
 *
 * @param path of the link, as {@link memberPath} gives it
 * @returns undefined if that is outside of the archive, and if a symbolic link goes up from a name: if that is a
 *   link itself, up from it is not where it is written
 */
export function linkedPath(path: string, kind: 'hard-link' | 'symbolic-link', target: string): string | undefined {
  if (kind === 'hard-link') return memberPath(target);
  // An absolute symbolic link names a file of the machine that unpacks it.
  if (target.startsWith('/') || goesUpFromName(target)) return undefined;
  return memberPath(posix.join(posix.dirname(path), target));
}

function goesUpFromName(target: string): boolean {
  const steps = target.split('/').filter((step) => step !== '' && step !== '.');
  const name = steps.findIndex((step) => step !== '..');
  return name !== -1 && steps.includes('..', name);
}

/**
 * The names of one archive, collected in its order. Tools that unpack keep the last of two members with one path and
 * follow links on the way to a file; tools that search take the first and do not. So both are refused.
 */
export class MemberNames {
  readonly #archive: string;
  readonly #kinds = new Map<string, ArchiveMember['kind']>();
  readonly #links = new Map<string, string>();
  /** Every path that another lies under. */
  readonly #parents = new Set<string>();
  #characters = 0;

  /** @param archive names it in an error */
  constructor(archive: string) {
    this.#archive = archive;
  }

  /**
   * Adds a member.
   *
   * @returns its path in the archive
   * @throws OcicryptError `bad-input` for a name or a link that leaves the archive, for a second member with this path
   *   (directories may be named again), for one that lies under anything but a directory, and for too many or too long names
   */
  add(member: ArchiveMember): string {
    const { name, kind, target = '' } = member;
    const path = memberPath(name);
    if (path === undefined) throw this.#refusal(name, 'is outside of the archive');
    this.#characters += name.length + target.length;
    if (this.#characters > MAXIMUM_CHARACTERS)
      throw this.#excess(`names of more than ${MAXIMUM_CHARACTERS} characters`);
    const before = this.#kinds.get(path);
    const isDirectory = kind === 'directory';
    if (before !== undefined && !(isDirectory && before === kind)) throw this.#refusal(name, 'is there twice');
    if (!isDirectory && (path === '' || this.#parents.has(path))) throw this.#refusal(name, 'is a directory too');
    for (let parent = parentOf(path); parent !== undefined && !this.#parents.has(parent); parent = parentOf(parent)) {
      if ((this.#kinds.get(parent) ?? 'directory') !== 'directory')
        throw this.#refusal(name, 'is below a name that is not a directory');
      this.#parents.add(parent);
      if (this.#parents.size > MAXIMUM_DIRECTORIES) throw this.#excess(`more than ${MAXIMUM_DIRECTORIES} directories`);
    }
    if (kind === 'hard-link' || kind === 'symbolic-link') {
      const linked = linkedPath(path, kind, target);
      if (linked === undefined) throw this.#refusal(name, 'is a link that leaves the archive or goes up from a name');
      this.#links.set(path, linked);
    }
    this.#kinds.set(path, kind);
    return path;
  }

  /**
   * Follows links to the path of a file. A hard link to a symbolic link is one itself, and leads elsewhere.
   *
   * @param path as {@link memberPath} gives it
   * @returns undefined if there is no such file
   */
  resolve(path: string): string | undefined {
    let found = path;
    for (let count = 0; count < MAXIMUM_LINKS; count++) {
      const linked = this.#links.get(found);
      if (linked === undefined) return this.#kinds.get(found) === 'file' ? found : undefined;
      if (this.#kinds.get(found) === 'hard-link' && this.#kinds.get(linked) === 'symbolic-link') return undefined;
      found = linked;
    }
    return undefined;
  }

  #excess(what: string): OcicryptError {
    return new OcicryptError('bad-input', `${this.#archive} has ${what}`, { hint: 'no archive of images needs them' });
  }

  #refusal(name: string, reason: string): OcicryptError {
    return new OcicryptError('bad-input', `${this.#archive}: member ${JSON.stringify(name.slice(0, 200))} ${reason}`, {
      hint: 'readers disagree about what such an archive holds: pack it again with a current tool',
    });
  }
}

/** The directory that a path lies in, or undefined if that is the root. */
function parentOf(path: string): string | undefined {
  const slash = path.lastIndexOf('/');
  return slash === -1 ? undefined : path.slice(0, slash);
}
