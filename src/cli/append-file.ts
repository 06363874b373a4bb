// The only code that appends lines to a file of the operator's: whole lines, mode 0600, never blocked by a full pipe.

import { constants, fdatasyncSync, openSync, writeSync } from 'node:fs';
import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';

/** An open file that takes whole lines. */
export type LineFile = {
  /** Appends one line, on disk when it returns. @throws OcicryptError `not-written` */
  readonly append: (line: string) => void;
};

/**
 * Opens `file` for appending, making it if it is missing. O_NONBLOCK: a FIFO that nobody reads is an error and not a
 * hang. O_NOFOLLOW: in a directory that others can write, a link could lead the lines into any file of ours.
 *
 * @throws OcicryptError `not-written`
 */
export function openLineFile(file: string): LineFile {
  return lineFile(file, openForAppending(file));
}

/** The lines of a file that is open: see {@link openForAppending}. */
export function lineFile(file: string, descriptor: number): LineFile {
  return { append: (line) => append(file, descriptor, line) };
}

/** The descriptor of {@link openLineFile}. @throws OcicryptError `not-written` */
export function openForAppending(file: string): number {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  try {
    return openSync(file, O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_WRONLY, 0o600);
  } catch (cause) {
    throw notWritten(file, cause);
  }
}

function append(file: string, descriptor: number, line: string): void {
  const bytes = new TextEncoder().encode(`${line}\n`);
  try {
    // One write, so that lines of several processes do not mix; a short one is a failure and not continued.
    if (writeSync(descriptor, bytes) !== bytes.length) throw new Error('short write');
    synchronize(descriptor);
  } catch (cause) {
    throw notWritten(file, cause);
  }
}

/** Pipes and terminals cannot be synchronized: EINVAL says that there is nothing to do. */
function synchronize(descriptor: number): void {
  try {
    fdatasyncSync(descriptor);
  } catch (cause) {
    if (!['EINVAL', 'ENOTSUP'].includes(systemCode(cause) ?? '')) throw cause;
  }
}

/** The error where a line cannot be put into `file`. */
export function notWritten(file: string, cause: unknown): OcicryptError {
  return new OcicryptError('not-written', `cannot append to ${file}${showSystemCode(cause)}`, {
    cause,
    hint: 'it must be a file of its own that this user can write, with room on its disk',
  });
}
