// The runtimes that run on this machine, as Linux shows them.

import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { namesIn } from './files.ts';

export type RunningProcess = {
  readonly pid: number;
  /** Its program, as a path. */
  readonly program: string;
  readonly words: readonly string[];
  /** All variables that it was started with; undefined if they may not be read. */
  readonly environment: Readonly<Record<string, string>> | undefined;
  /** When it was started, in milliseconds since 1970, to the second. */
  readonly started: number;
};

/** The processes whose program has this name, but for those that see other files: they are of a container. */
export function findProcesses(name: string): readonly RunningProcess[] {
  return namesIn('/proc')
    .filter((entry) => /^\d+$/.test(entry) && hasOurRoot(entry))
    .flatMap((pid) => (readLines(`/proc/${pid}/comm`)[0] === name ? [describe(Number(pid))] : []));
}

function hasOurRoot(pid: string): boolean {
  try {
    const [theirs, ours] = [statSync(`/proc/${pid}/root/`), statSync('/')];
    return theirs.dev === ours.dev && theirs.ino === ours.ino;
  } catch {
    return false;
  }
}

function describe(pid: number): RunningProcess {
  const variables = split(`/proc/${pid}/environ`);
  const environment = variables?.map((one): [string, string] => {
    const equals = one.indexOf('=');
    return [one.slice(0, equals), one.slice(equals + 1)];
  });
  return {
    pid,
    program: readLink(`/proc/${pid}/exe`),
    words: split(`/proc/${pid}/cmdline`) ?? [],
    environment: environment === undefined ? undefined : Object.fromEntries(environment),
    started: startOf(pid),
  };
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
