// What Linux says of a process that is measured.

import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Clock ticks of /proc, which Linux fixes for programs. */
const TICKS = 100;

/** Memory that a process has now, in MiB. */
export function residentMiB({ pid }: ChildProcess): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** What it has used of all processors together. */
export function processorSeconds({ pid }: ChildProcess): number {
  const fields = readStat(String(pid));
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** The same of our own children that have ended, and of theirs. In ticks, which even out over some runs. */
export function childrenSeconds(): number {
  const fields = readStat('self');
  return (Number(fields[13]) + Number(fields[14])) / TICKS;
}

function readStat(process: string): readonly string[] {
  const [, after = ''] = readFileSync(`/proc/${process}/stat`, 'utf8').split(') ');
  return after.split(' ');
}
