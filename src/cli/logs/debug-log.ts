// The debug log: where the one line that clients sometimes lose can be found again.

import type { Logger } from '../../provider/audit.ts';
import { LineFile } from './append-file.ts';
import { formatLogLine } from './log-line.ts';

/** A debug log that can be rotated. */
export interface DebugLog extends Logger {
  /** Goes on in the file that has the name now. @throws OcicryptError `not-written` */
  reopen(): void;
}

/** Opens the file of `--debugLog`. Fields are public values; errors come as their reports. */
export function openDebugLog(file: string): DebugLog {
  const lines = new LineFile(file, 'help');
  return {
    debug: (fields, message) => appendIfPossible(lines, formatLogLine('debug', fields, message)),
    warn: (fields, message) => appendIfPossible(lines, formatLogLine('warn', fields, message)),
    reopen: () => lines.reopen(),
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
