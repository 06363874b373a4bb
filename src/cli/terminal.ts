// The only code that touches standard input, standard output and standard error.

import { read, writeSync } from 'node:fs';
import { OcicryptError } from '../base/errors.ts';

export interface Terminal {
  /** Standard input to its end, or `maximum + 1` bytes of it, whichever is less. */
  read(maximum: number): Promise<Uint8Array>;
  /** Writes data, all of it. @throws OcicryptError `not-written` */
  write(data: Uint8Array | string): void;
  /** Writes one line to standard error; that it cannot be written is nobody's fault and ends nothing. */
  say(line: string): void;
}

/** The process's own three streams, without the runtime's stream objects: they cost a third of a cold start. */
export const processTerminal: Terminal = {
  async read(maximum) {
    const buffer = new Uint8Array(maximum + 1);
    let length = 0;
    while (length < buffer.length) {
      const count = await readSome(buffer, length);
      if (count === 0) break;
      length += count;
    }
    return buffer.subarray(0, length);
  },
  write(data) {
    writeAll(1, typeof data === 'string' ? new TextEncoder().encode(data) : data);
  },
  say(line) {
    try {
      writeAll(2, new TextEncoder().encode(`${line}\n`));
    } catch {
      // Nowhere is left to say it.
    }
  },
};

/** Asynchronous, so that a caller that never ends its request meets the deadline. */
function readSome(buffer: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(0, buffer, offset, buffer.length - offset, null, (cause, count) => {
      if (cause === null) resolve(count);
      else if (cause.code === 'EAGAIN') setTimeout(() => readSome(buffer, offset).then(resolve, reject), 5);
      else reject(new OcicryptError('bad-input', 'cannot read standard input', { cause }));
    });
  });
}

/** How long a reader that does not read is waited for. */
const WRITE_PATIENCE = 5000;

function writeAll(descriptor: number, data: Uint8Array): void {
  const started = performance.now();
  for (let offset = 0; offset < data.length; ) {
    try {
      offset += writeSync(descriptor, data, offset);
    } catch (cause) {
      const again = cause instanceof Error && 'code' in cause && cause.code === 'EAGAIN';
      if (again && performance.now() - started < WRITE_PATIENCE) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        continue;
      }
      throw new OcicryptError('not-written', 'cannot write to standard output', { cause });
    }
  }
}
