// Appends lines to a file of the operator's: whole lines, mode 0600, never blocked by a full pipe, and to the file that has
// the name now, whatever rotates it.

import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type Stats,
  writeSync,
} from 'node:fs';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';
import { ourselves } from '../../base/trusted-path.ts';

/** What the lines are for. Evidence is kept in no file that another user could change. */
export type LinePurpose = 'evidence' | 'help';

/** One write: the bytes that are to be written at once, and where. */
export type LineBatch = { readonly descriptor: number; readonly bytes: Uint8Array };

/**
 * A file that takes whole lines. Each batch is begun, written by the caller, and finished. A file that is renamed away is
 * followed: lines go on into it until another one has its name, and into that one from then on.
 */
export class LineFile {
  readonly #file: string;
  readonly #purpose: LinePurpose;
  #descriptor: number;
  /** The file of the same name that {@link reopen} has found, until no line is being written to the old one. */
  #next: number | undefined;
  /** Whether a line was cut off, by a full disk or a crash, so that the next must not become a part of it. */
  #isCut: boolean;
  #isWriting = false;

  /** Opens `file`, or makes it. @throws OcicryptError `not-written` */
  constructor(file: string, purpose: LinePurpose) {
    this.#file = file;
    this.#purpose = purpose;
    this.#descriptor = openForAppending(file, purpose);
    this.#isCut = endsInTheMiddle(file, this.#descriptor);
  }

  /** Only a file takes any number of bytes as one: a pipe may take a part of them. */
  isRegular(): boolean {
    return fstatSync(this.#descriptor).isFile();
  }

  /** Opens what has the name now, which may be the same. @throws OcicryptError `not-written`: the old one stays */
  reopen(): void {
    const next = openForAppending(this.#file, this.#purpose);
    if (this.#next !== undefined) closeSync(this.#next);
    this.#next = next;
    if (!this.#isWriting) this.#turnToNext();
  }

  /**
   * What is to be written for these lines, in one write so that those of several processes do not mix.
   *
   * @throws OcicryptError `not-written` where the file has been removed, or another that cannot be used has its name
   */
  begin(lines: readonly string[]): LineBatch {
    this.#follow();
    this.#isWriting = true;
    const text = `${this.#isCut ? '\n' : ''}${lines.map((line) => `${line}\n`).join('')}`;
    return { descriptor: this.#descriptor, bytes: new TextEncoder().encode(text) };
  }

  /** Takes note of what was written; a short write is a failure and not continued. @throws Error */
  written({ bytes }: LineBatch, count: number): void {
    if (count > 0) this.#isCut = count < bytes.length;
    if (count !== bytes.length) throw new Error('short write');
  }

  /** @throws OcicryptError `not-written` where the file was removed while the lines were written: nobody will read them */
  finish({ descriptor }: LineBatch): void {
    if (fstatSync(descriptor).nlink === 0) throw removed(this.#file);
  }

  /** The batch is over, whatever came of it. */
  end(): void {
    this.#isWriting = false;
    this.#turnToNext();
  }

  /** Appends one line, on disk when it returns. @throws OcicryptError `not-written` */
  append(line: string): void {
    try {
      const batch = this.begin([line]);
      this.written(batch, writeSync(batch.descriptor, batch.bytes));
      synchronize(batch.descriptor);
      this.finish(batch);
    } catch (cause) {
      throw notWritten(this.#file, cause);
    } finally {
      this.end();
    }
  }

  #follow(): void {
    const open = fstatSync(this.#descriptor, { bigint: true });
    const named = lstatSync(this.#file, { bigint: true, throwIfNoEntry: false });
    if (named?.ino === open.ino && named.dev === open.dev) return;
    if (named !== undefined) this.reopen();
    else if (open.nlink === 0n) throw removed(this.#file);
  }

  #turnToNext(): void {
    if (this.#next === undefined) return;
    closeSync(this.#descriptor);
    this.#descriptor = this.#next;
    this.#next = undefined;
    this.#isCut = endsInTheMiddle(this.#file, this.#descriptor);
  }
}

/**
 * O_NONBLOCK: a FIFO that nobody reads is an error and not a hang. O_NOFOLLOW: in a directory that others can write, a
 * link could lead the lines into any file of ours.
 */
function openForAppending(file: string, purpose: LinePurpose): number {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_WRONLY, 0o600);
    const status = fstatSync(descriptor);
    if (purpose === 'evidence') checkOwner(file, status);
    checkContent(file, status);
    return descriptor;
  } catch (cause) {
    if (descriptor !== undefined) closeSync(descriptor);
    throw notWritten(file, cause);
  }
}

/** A device is nobody's to change. @throws OcicryptError `not-written` */
function checkOwner(file: string, status: Stats): void {
  const users = ourselves();
  if (users === undefined || !(status.isFile() || status.isFIFO())) return;
  if (!users.has(status.uid)) {
    throw new OcicryptError('not-written', `${showPath(file)} belongs to another user, who could change the lines`, {
      hint: 'name a file of this user, or one that is not there yet',
    });
  }
  if ((status.mode & 0o022) !== 0) {
    throw new OcicryptError('not-written', `other users may write to ${showPath(file)}, and could change the lines`, {
      hint: `chmod go-w ${showPath(file)}`,
    });
  }
}

/** How our lines begin, and those that the reference provider has left in its debug log. */
const BEGINNING = /^\s*(?:\{"(?:time|level)":|\d{4}\/\d\d\/\d\d )/;
const BEGINNING_BYTES = 64;
/** The same of a line that was cut off. */
const CUT_BEGINNING = /^\s*(?:\{(?:"[a-z]{0,5}"?)?)?$/;
/** What is left of the first line after a log was trimmed from the front. No line of a key in PEM, base64 or hex is like it. */
const CUT_END = /^[ -~]*["}][ -~]*$/;
/** Far more than a line of ours has, so that a whole one begins in it. */
const SEARCHED_BYTES = 1024 * 1024;
/** Fewer zero bytes are no line of ours that was lost, and may be a key. */
const LOST_BYTES = 64;

/**
 * A name in the wrong place, or a hard link of another user's, must not have lines put behind a key or a configuration:
 * that file would be one no more.
 *
 * @throws OcicryptError `not-written`
 */
function checkContent(file: string, status: Stats): void {
  if (!status.isFile()) return;
  const read = (position: number, length: number) =>
    new TextDecoder('latin1').decode(readPart(file, status, position, Math.min(status.size, length)));
  if (BEGINNING.test(read(0, BEGINNING_BYTES))) return;
  const start = read(0, SEARCHED_BYTES);
  // A power loss leaves zero bytes in the place of what was not on disk yet.
  const isLost = status.size > SEARCHED_BYTES && /^\0*$/.test(start);
  if (isLog(isLost ? read(status.size - SEARCHED_BYTES, SEARCHED_BYTES) : start)) return;
  throw new OcicryptError('not-written', `${showPath(file)} holds something else than lines of a log`, {
    hint: 'move it away, or name a file of its own; nothing was changed',
  });
}

/** Whether the first whole line is ours, and what stands before it can be what is left of others. */
function isLog(text: string): boolean {
  const rest = text.replace(/^\0+/, '');
  const [first, second] = rest.split('\n').filter((line) => !CUT_BEGINNING.test(line));
  if (first === undefined) return rest.length === text.length || text.length >= LOST_BYTES;
  if (BEGINNING.test(first)) return true;
  return second !== undefined && BEGINNING.test(second) && CUT_END.test(first) && !isJson(first);
}

/** A line that is whole JSON, a key in a JWK for example, is no part of ours. */
function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

function endsInTheMiddle(file: string, descriptor: number): boolean {
  const status = fstatSync(descriptor);
  const [last = LINE_FEED] = readPart(file, status, status.size - 1, 1);
  return last !== LINE_FEED;
}

/** A part of the file that was opened; nothing if this user may not read it, or if another file has its name by now. */
function readPart(file: string, { dev, ino, size }: Stats, position: number, length: number): Uint8Array {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
  const bytes = new Uint8Array(length);
  if (size === 0) return bytes.subarray(0, 0);
  let reader: number | undefined;
  try {
    reader = openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const read = fstatSync(reader);
    if (read.ino !== ino || read.dev !== dev) return bytes.subarray(0, 0);
    return bytes.subarray(0, readSync(reader, bytes, 0, length, position));
  } catch {
    return bytes.subarray(0, 0);
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

function removed(file: string): OcicryptError {
  return new OcicryptError('not-written', `${showPath(file)} was removed: its lines would be lost`, {
    hint: 'send SIGHUP to a server to have it made anew; rotation renames the file and sends SIGHUP',
  });
}

/** The error where a line cannot be put into `file`. */
export function notWritten(file: string, cause: unknown): OcicryptError {
  if (cause instanceof OcicryptError) return cause;
  const isAway = systemCode(cause) === 'ENOENT';
  return new OcicryptError('not-written', `cannot append to the file ${showPath(file)}${showSystemCode(cause)}`, {
    cause,
    hint: isAway
      ? 'make its directory'
      : 'it must be a file of its own that this user can write, with room on its disk',
  });
}
