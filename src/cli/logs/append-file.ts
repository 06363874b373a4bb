// Appends lines to a file of the operator's: whole lines, mode 0600, never blocked by a full pipe.

import { closeSync, constants, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';

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
  const end = new LineEnd(file, descriptor);
  return { append: (line) => append(file, descriptor, line, end) };
}

/** Knows whether a line was cut off, by a full disk or a crash, so that the next does not become a part of it. */
export class LineEnd {
  #isCut: boolean;

  constructor(file: string, descriptor: number) {
    this.#isCut = endsInTheMiddle(file, descriptor);
  }

  /** What is to be written for these lines, in one write so that those of several processes do not mix. */
  encode(lines: readonly string[]): Uint8Array {
    return new TextEncoder().encode(`${this.#isCut ? '\n' : ''}${lines.map((line) => `${line}\n`).join('')}`);
  }

  /** Takes note of what was written; a short write is a failure and not continued. @throws Error */
  check(bytes: Uint8Array, written: number): void {
    if (written > 0) this.#isCut = written < bytes.length;
    if (written !== bytes.length) throw new Error('short write');
  }
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

function append(file: string, descriptor: number, line: string, end: LineEnd): void {
  const bytes = end.encode([line]);
  try {
    end.check(bytes, writeSync(descriptor, bytes));
    synchronize(descriptor);
  } catch (cause) {
    throw notWritten(file, cause);
  }
}

/** Only of a file that may be read it can be known. */
function endsInTheMiddle(file: string, descriptor: number): boolean {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
  const { size } = fstatSync(descriptor);
  if (size === 0) return false;
  let reader: number | undefined;
  try {
    reader = openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const last = new Uint8Array(1);
    return readSync(reader, last, 0, 1, size - 1) === 1 && last[0] !== LINE_FEED;
  } catch {
    return false;
  } finally {
    if (reader !== undefined) closeSync(reader);
  }
}

const LINE_FEED = 0x0a;

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
  return new OcicryptError('not-written', `cannot append to ${showPath(file)}${showSystemCode(cause)}`, {
    cause,
    hint: 'it must be a file of its own that this user can write, with room on its disk',
  });
}
