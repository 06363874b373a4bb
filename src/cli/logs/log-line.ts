// A line of the debug log, and of what a server writes to standard error: JSON, in the form of pino, which log tools know.

import { asciiJson } from '../text.ts';

const LEVELS = { debug: 20, info: 30, warn: 40 } as const;

/** @param fields public values; those that are undefined are left out */
export function formatLogLine(
  level: keyof typeof LEVELS,
  fields: Readonly<Record<string, unknown>>,
  message: string,
): string {
  const head = { level: LEVELS[level], time: new Date().toISOString(), pid: process.pid };
  return asciiJson({ ...head, ...fields, msg: message });
}
