// Standard input, standard output and standard error of the process; whole layers go through standard-streams.ts.

import { constants, fstatSync, openSync, read, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { wipe } from '../base/bytes.ts';
import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';
import type { StandardStreams } from './standard-streams.ts';

export interface Terminal {
  /** Standard input to its end, or `maximum + 1` bytes of it, whichever is less. */
  read(maximum: number): Promise<Uint8Array>;
  /**
   * Writes data, all of it.
   *
   * @param purpose `reply` for what a client waits for: it is not thrown away where that can be known
   * @throws OcicryptError `not-written`
   */
  write(data: Uint8Array | string, purpose?: 'reply'): void;
  /**
   * Writes one line to standard error; if that fails, the command goes on.
   *
   * @param weight `advice` for what --quiet leaves out: anything but errors and warnings
   */
  say(line: string, weight?: 'advice'): void;
  /** Standard input and output as streams, for a command whose input and output are a whole layer. */
  streams(): Promise<StandardStreams>;
  /** Standard error as a screen; there only if it is a terminal that obeys control sequences. */
  readonly screen?: TerminalScreen | undefined;
}

export interface TerminalScreen {
  /** Writes text with control sequences. */
  write(text: string): void;
  /** What fits on it now: people make windows larger and smaller. */
  size(): { readonly rows: number; readonly columns: number };
}

/** The process's own three streams, without the runtime's stream objects: they cost a third of a cold start. */
export const processTerminal: Terminal = {
  async read(maximum) {
    if (!isPipe() && isTerminal(0)) throw typedByPerson('this command answers a request on standard input');
    const readSome = openInput();
    let buffer = new Uint8Array(Math.min(USUAL_REQUEST_BYTES, maximum + 1));
    let length = 0;
    for (;;) {
      const count = await readSome(buffer, length);
      length += count;
      if (count === 0 || length > maximum) return buffer.subarray(0, length);
      if (length === buffer.length) buffer = enlarge(buffer, maximum + 1);
    }
  },
  write(data, purpose) {
    refuseClosedOutput(purpose === 'reply');
    try {
      writeAll(1, typeof data === 'string' ? new TextEncoder().encode(data) : data);
    } catch (error) {
      if (purpose !== 'reply' && error instanceof OcicryptError && systemCode(error.cause) === 'EPIPE') gone.add(error);
      throw error;
    }
  },
  say(line) {
    try {
      writeAll(2, new TextEncoder().encode(`${line}\n`));
    } catch {
      // Nowhere is left to say it.
    }
  },
  async streams() {
    refuseClosedOutput(true);
    if (isTerminal(0)) throw typedByPerson('this command decrypts a layer that it reads from standard input');
    return (await import('./standard-streams.ts')).STANDARD_STREAMS;
  },
  get screen() {
    const { TERM: kind } = process.env;
    return isTerminal(2) && kind !== undefined && kind !== '' && kind !== 'dumb' ? SCREEN : undefined;
  },
};

const gone = new WeakSet<Error>();

/**
 * Whether an error of {@link Terminal.write} says that the reader of standard output ended first, as `head` does once it has
 * its line: no fault of anybody's, and nothing to say. What a command makes of it, because it has done something that its
 * user must know, is another error.
 */
export function isReaderGone(error: unknown): boolean {
  return error instanceof Error && gone.has(error);
}

/** The exit status that shells show for programs that SIGPIPE ends. Runtimes ignore that signal. */
export const READER_GONE = 141;

/** A client would have written its request by now; a person waits for a word. */
function typedByPerson(purpose: string): OcicryptError {
  return new OcicryptError('usage', `${purpose}, which is a terminal`, {
    hint: 'clients run it, as ocicrypt-kms config ocicrypt prints; to try a key run ocicrypt-kms doctor KEY',
  });
}

const SCREEN: TerminalScreen = {
  write(text) {
    try {
      writeAll(2, new TextEncoder().encode(text));
    } catch {
      // There is no terminal to see it.
    }
  },
  size() {
    const [columns, rows] = process.stderr.getWindowSize?.() ?? [0, 0];
    // A serial line does not know its size.
    return { rows: rows > 0 ? rows : 24, columns: columns > 0 ? columns : 80 };
  },
};

function isTerminal(descriptor: number): boolean {
  return process.getBuiltinModule('node:tty').isatty(descriptor);
}

/** Requests have one or two kilobytes; the memory for the largest would take longer to get than to read them. */
const USUAL_REQUEST_BYTES = 16 * 1024;

/** The same bytes with four times the room; they may hold a key, so the old ones are wiped. */
function enlarge(full: Uint8Array, maximum: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.min(full.length * 4, maximum));
  larger.set(full);
  wipe(full);
  return larger;
}

/**
 * Reads what is there now, without a thread pool where standard input is a pipe: clients have written the request by
 * the time that we run. A descriptor of its own, which does not block, so that a caller that never ends its request
 * meets the deadline; other kinds of input are read in the background.
 */
function openInput(): (buffer: Uint8Array, offset: number) => Promise<number> {
  if (!isPipe()) return readInBackground;
  let descriptor: number;
  try {
    descriptor = openSync('/dev/stdin', constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    // No /dev here, or the pipe was made by another user (sudo).
    return readInBackground;
  }
  return async (buffer, offset) => {
    for (;;) {
      try {
        return readSync(descriptor, buffer, offset, buffer.length - offset, null);
      } catch (cause) {
        if (!isAgain(cause)) throw unreadable(cause);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  };
}

function isPipe(): boolean {
  try {
    return fstatSync(0).isFIFO();
  } catch (cause) {
    throw unreadable(cause);
  }
}

function readInBackground(buffer: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(0, buffer, offset, buffer.length - offset, null, (cause, count) => {
      if (cause === null) resolve(count);
      else if (isAgain(cause)) setTimeout(() => readInBackground(buffer, offset).then(resolve, reject), 5);
      else reject(unreadable(cause));
    });
  });
}

function isAgain(cause: unknown): boolean {
  return systemCode(cause) === 'EAGAIN';
}

function unreadable(cause: unknown): OcicryptError {
  return new OcicryptError('bad-input', 'cannot read standard input', { cause });
}

/**
 * Both runtimes open /dev/null in the place of a closed standard output, and data would be lost in silence. Bun's is
 * closed on exec, which none that was inherited can be. Node's is open for reading too, as a shell's is not, but that of
 * a program that wants no output may be: so only a reply, which somebody waits for, is not written there.
 */
function refuseClosedOutput(isReply: boolean): void {
  if (process.platform !== 'linux' || !isNullDevice(1)) return;
  const text = /^flags:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/fdinfo/1', 'utf8'))?.[1] ?? '0';
  const flags = Number.parseInt(text, 8);
  const isClosed =
    process.versions.bun === undefined
      ? isReply && (flags & ACCESS_MODE) === constants.O_RDWR
      : (flags & CLOSED_ON_EXEC) !== 0;
  if (isClosed) throw new OcicryptError('not-written', 'standard output is closed');
}

function isNullDevice(descriptor: number): boolean {
  const status = fstatSync(descriptor);
  return status.isCharacterDevice() && status.rdev === statSync('/dev/null').rdev;
}

/** O_CLOEXEC and O_ACCMODE of Linux. */
const CLOSED_ON_EXEC = 0o2000000;
const ACCESS_MODE = 0o3;

/** How long a reader that does not read is waited for. */
const WRITE_PATIENCE_MILLISECONDS = 5000;

function writeAll(descriptor: number, data: Uint8Array): void {
  const started = performance.now();
  for (let offset = 0; offset < data.length; ) {
    try {
      offset += writeSync(descriptor, data, offset);
    } catch (cause) {
      if (isAgain(cause) && performance.now() - started < WRITE_PATIENCE_MILLISECONDS) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        continue;
      }
      throw new OcicryptError('not-written', `cannot write to standard output${showSystemCode(cause)}`, { cause });
    }
  }
}
