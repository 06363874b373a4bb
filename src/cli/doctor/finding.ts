// What the doctor finds, and how it is written for people.

import type { Finding, FindingLevel } from '../../node/finding.ts';

/** A line of a block: its name and what it says. */
export type FindingRow = readonly [name: string, value: string | undefined];

/** What was looked at, and below it what was found; rows without a value are left out. */
export function showBlock(level: FindingLevel, head: string, rows: readonly FindingRow[]): string {
  const mark = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' }[level];
  const lines = rows.flatMap(([name, value]) => (value === undefined ? [] : [`      ${name.padEnd(10)}${value}\n`]));
  return `${mark}  ${head}\n${lines.join('')}`;
}

export function showFinding({ level, subject, message, hint }: Finding): string {
  return showBlock(level, `${subject}: ${message}`, [['to do', hint]]);
}

/** A post-quantum recipient of age has two thousand characters. */
export function shortenKey(key: string): string {
  return key.length > 300 ? `${key.slice(0, 60)}…` : key;
}
