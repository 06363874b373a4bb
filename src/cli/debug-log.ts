// The debug log: where the one line that clients sometimes lose can be found again.

import { pino } from 'pino';
import { OcicryptError } from '../base/errors.ts';
import type { Logger } from '../provider/audit.ts';
import { type LineFile, openLineFile } from './append-file.ts';

/** Opens the file of `--debugLog`. Fields are public values; errors are reduced to their codes and our own texts. */
export function openDebugLog(file: string): Logger {
  const lines = openLineFile(file);
  const logger = pino(
    {
      level: 'debug',
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: describeCause },
    },
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

/** A foreign error's text may hold a token or a body: only its name and system code are taken, of all its causes. */
function describeCause(error: unknown): unknown {
  if (!(error instanceof Error)) return typeof error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const cause = error.cause === undefined ? undefined : describeCause(error.cause);
  return error instanceof OcicryptError
    ? { code, message: error.message, hint: error.hint, cause }
    : { name: error.name, code, cause };
}
