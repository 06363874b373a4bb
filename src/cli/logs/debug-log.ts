// The debug log: where the one line that clients sometimes lose can be found again.

import { pino } from 'pino';
import type { Logger } from '../../provider/audit.ts';
import { type LineFile, openLineFile } from './append-file.ts';

/** Opens the file of `--debugLog`. Fields are public values; errors come as their reports. */
export function openDebugLog(file: string): Logger {
  const lines = openLineFile(file);
  const logger = pino(
    { level: 'debug', base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
    { write: (line: string) => appendIfPossible(lines, line.trimEnd()) },
  );
  return {
    debug: (fields, message) => logger.debug(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
  };
}

/** A help for people, unlike the audit log: a full disk must not keep an image from being opened. */
function appendIfPossible(lines: LineFile, line: string): void {
  try {
    lines.append(line);
  } catch {
    // There is no better place to say it.
  }
}
