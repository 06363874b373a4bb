// The runtimes that run on this machine, as Linux shows them.

import { readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ourselves } from '../base/trusted-path.ts';
import { namesIn } from './files.ts';

export type RunningProcess = {
  readonly pid: number;
  /** Its program, as a path that has the name. */
  readonly program: string;
  readonly words: readonly string[];
  /** All variables that it was started with; undefined if they may not be read. */
  readonly environment: Readonly<Record<string, string>> | undefined;
  /** When it was started, in milliseconds since 1970, to the second. */
  readonly started: number;
  /** The service of systemd that it runs in. */
  readonly service: string | undefined;
};

/**
 * The processes whose program has this name, but for those that see other files: they are of a container.
 *
 * @param users whose processes count. Their programs are run, with their variables, and files are written where they say:
 * and any user may have a program of this name
 */
export function findProcesses(
  name: string,
  users: ReadonlySet<number> = ourselves() ?? new Set(),
): readonly RunningProcess[] {
  return namesIn('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry) || readLines(`/proc/${entry}/comm`)[0] !== name) return [];
    const program = isOf(entry, users) && hasOurRoot(entry) ? programOf(entry, name) : undefined;
    return program === undefined ? [] : [describe(Number(entry), program)];
  });
}

/**
 * By the real user and by all others: who starts a program that has root's rights chooses its words and variables. Not by
 * the owner of what is in `/proc`: root owns that of any process that is not to be read.
 */
function isOf(pid: string, users: ReadonlySet<number>): boolean {
  const line = readLines(`/proc/${pid}/status`).find((one) => one.startsWith('Uid:')) ?? '';
  const [, ...numbers] = line.split(/\s+/);
  return numbers.length > 0 && numbers.every((number) => users.has(Number(number)));
}

/**
 * The file that has the name, also with something behind it: of one that was put aside for a new version. Undefined if there
 * is none, and the process took the name by itself. k3s is one program, which is containerd if it is called so: by a link
 * beside it.
 */
function programOf(pid: string, name: string): string | undefined {
  const program = readLink(`/proc/${pid}/exe`);
  if (basename(program).startsWith(name)) return program;
  const beside = join(dirname(program), name);
  try {
    return realpathSync(beside) === program ? beside : undefined;
  } catch {
    return undefined;
  }
}

function hasOurRoot(pid: string): boolean {
  try {
    const [theirs, ours] = [statSync(`/proc/${pid}/root/`), statSync('/')];
    return theirs.dev === ours.dev && theirs.ino === ours.ino;
  } catch {
    return false;
  }
}

function describe(pid: number, program: string): RunningProcess {
  const variables = split(`/proc/${pid}/environ`);
  const environment = variables?.map((one): [string, string] => {
    const equals = one.indexOf('=');
    return [one.slice(0, equals), one.slice(equals + 1)];
  });
  return {
    pid,
    program,
    words: split(`/proc/${pid}/cmdline`) ?? [],
    environment: environment === undefined ? undefined : Object.fromEntries(environment),
    started: startOf(pid),
    service: serviceOf(readLines(`/proc/${pid}/cgroup`)),
  };
}

/**
 * The innermost service that the lines of `/proc/PID/cgroup` name, as systemd calls control groups of all hierarchies; not
 * one of a user's own systemd. systemd.unit(5)
 */
export function serviceOf(lines: readonly string[]): string | undefined {
  const [found] = lines.flatMap((line) => {
    const path = line.split(':').slice(2).join(':');
    const service = path.split('/').findLast((part) => part.endsWith('.service'));
    return service === undefined || path.includes('/user@') ? [] : [service];
  });
  return found;
}

/** proc_pid_stat(5): the twenty-second field, in ticks since the machine was started; user space has 100 of them a second. */
function startOf(pid: number): number {
  const [line = ''] = readLines(`/proc/${pid}/stat`);
  const ticks = Number(line.slice(line.lastIndexOf(')') + 2).split(' ')[19] ?? 0);
  const boot = Number(
    readLines('/proc/stat')
      .find((one) => one.startsWith('btime '))
      ?.slice('btime '.length) ?? 0,
  );
  return (boot + ticks / TICKS_PER_SECOND) * 1000;
}

const TICKS_PER_SECOND = 100;

/** Whether a file was changed after a process was started, which may be known to the second only. */
export function isNewer(path: string, { started }: RunningProcess): boolean {
  const changed = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return changed > started + 2000;
}

function readLink(path: string): string {
  try {
    return readlinkSync(path).replace(/ \(deleted\)$/, '');
  } catch {
    return '';
  }
}

function readLines(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** Texts that each end in a zero. */
function split(path: string): readonly string[] | undefined {
  try {
    return readFileSync(path, 'utf8').split('\0').slice(0, -1);
  } catch {
    return undefined;
  }
}
