// Standard input and output as a stream processor has them: the bytes of a whole layer. And what was handed over beside
// them on another descriptor.

import { fstatSync, read, readFileSync, write } from 'node:fs';
import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';
import type { ByteSink, ByteSource } from '../image/cipher/streams.ts';
import { readAtMost } from '../image/transports/store.ts';

export type StandardStreams = {
  readonly input: ByteSource;
  /** @throws OcicryptError `not-written` */
  readonly output: ByteSink;
  /**
   * All that a pipe or socket gives that the caller of this process has opened on a descriptor.
   *
   * @param maximum longer content is cut to one byte more, for the caller to notice
   * @returns undefined if there is no such descriptor, or the runtime itself opened it
   * @throws OcicryptError `bad-input`
   */
  inherited(descriptor: number, maximum: number): Promise<Uint8Array | undefined>;
};

export const STANDARD_STREAMS: StandardStreams = {
  input: { read: (into) => readSome(0, into) },
  output: {
    async write(bytes) {
      for (let done = 0; done < bytes.length; ) done += await writeSome(bytes.subarray(done));
    },
  },
  async inherited(descriptor, maximum) {
    if (!isInherited(descriptor)) return undefined;
    return readAtMost({ read: (into) => readSome(descriptor, into) }, maximum + 1);
  },
};

/** Runtimes open everything with O_CLOEXEC, which no descriptor that was inherited can have. */
function isInherited(descriptor: number): boolean {
  try {
    const status = fstatSync(descriptor);
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))?.[1];
    return (status.isFIFO() || status.isSocket()) && (Number.parseInt(flags ?? '', 8) & CLOSED_ON_EXEC) === 0;
  } catch {
    return false;
  }
}

/** O_CLOEXEC of Linux. */
const CLOSED_ON_EXEC = 0o2000000;

function readSome(descriptor: number, into: Uint8Array): Promise<number> {
  return retryAgain((done) => read(descriptor, into, 0, into.length, null, done)).catch((cause: unknown) => {
    throw new OcicryptError('bad-input', `cannot read descriptor ${descriptor}${showSystemCode(cause)}`, { cause });
  });
}

function writeSome(bytes: Uint8Array): Promise<number> {
  return retryAgain((done) => write(1, bytes, 0, bytes.length, null, done)).catch((cause: unknown) => {
    throw new OcicryptError('not-written', `cannot write to standard output${showSystemCode(cause)}`, { cause });
  });
}

/** In the runtime's threads, so that a pipe that is empty or full holds nothing else up. */
function retryAgain(start: (done: (cause: Error | null, count: number) => void) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    start((cause, count) => {
      if (cause === null) resolve(count);
      else if (systemCode(cause) !== 'EAGAIN') reject(cause);
      else setTimeout(() => retryAgain(start).then(resolve, reject), PAUSE_MILLISECONDS);
    });
  });
}

/** Milliseconds between attempts at a pipe that does not block. */
const PAUSE_MILLISECONDS = 1;
