// Uncompresses a layer while it streams: a sink that stands before another one.

// Not by name: a Node that is too old could not load this, and so not say that it is.
import zlib from 'node:zlib';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { releaseBytes } from '../../base/memory.ts';
import { type InflatedFormat, Inflater, inflatedFormat } from './inflate.ts';
import type { ByteSink } from './streams.ts';

/** Takes the bytes of a layer as they are stored. */
export interface UncompressingSink extends ByteSink {
  /** Resolves when everything has been written, after the last byte. @throws OcicryptError `bad-input`, and what the sink throws */
  finish(): Promise<void>;
  /** Stops. Harmless after {@link finish}. */
  discard(): void;
}

/** What comes out at once. Measured: below 256 KiB the threads wait for each other, above 1 MiB memory grows and nothing else. */
const CHUNK_BYTES = 512 * 1024;
/** So that one chunk can be made while the one before is written. */
const AHEAD = { chunkSize: CHUNK_BYTES, highWaterMark: 2 * CHUNK_BYTES };

/**
 * gzip of at most so many bytes is uncompressed at once, if it does not become too much: setting up a stream is a sixth
 * of the time of a process that decrypts a small layer. Not zstd: Bun takes a part of a frame for the whole.
 */
const SMALL_BYTES = 2 * 1024 * 1024;
const MAXIMUM_AT_ONCE = 32 * 1024 * 1024;

/**
 * Passes on what a layer holds. How it is compressed is told by its first bytes, as containerd does, whatever its media
 * type says; what is not compressed passes as it is.
 *
 * @param size of the layer as it is stored, in bytes
 */
export function createUncompressingSink(sink: ByteSink, size: number): UncompressingSink {
  let running: Running | undefined;
  let started = false;
  return {
    async write(bytes) {
      if (!started && bytes.length > 0) {
        started = true;
        running = start(bytes, sink, size);
      }
      await (running === undefined ? sink.write(bytes) : running.write(bytes));
    },
    finish: async () => running?.finish(),
    discard: () => running?.discard(),
  };
}

type Running = Pick<UncompressingSink, 'write' | 'finish' | 'discard'>;

function start(first: Uint8Array, sink: ByteSink, size: number): Running | undefined {
  const format = inflatedFormat(first);
  if (format === undefined) return undefined;
  return format === 'gzip' && size <= SMALL_BYTES ? atOnce(sink, size) : streamed(format, sink);
}

/** Keeps what comes until its end. @param size the most that comes, in bytes */
function atOnce(sink: ByteSink, size: number): Running {
  const whole = new Uint8Array(size);
  let length = 0;
  return {
    async write(bytes) {
      whole.set(bytes, length);
      length += bytes.length;
    },
    async finish() {
      const gzip = whole.subarray(0, length);
      const plain = gunzipAtOnce(gzip);
      if (plain !== undefined) return sink.write(plain);
      const running = streamed('gzip', sink);
      try {
        await running.write(gzip);
        await running.finish();
      } finally {
        running.discard();
      }
    },
    discard: () => {},
  };
}

/** Undefined if it is too much for once. */
function gunzipAtOnce(bytes: Uint8Array): Uint8Array | undefined {
  try {
    const told = gunzip(bytes);
    if ('engine' in told && told.engine.bytesWritten === bytes.length) return told.buffer;
  } catch (cause) {
    if (systemCode(cause) === 'ERR_BUFFER_TOO_LARGE') return undefined;
    throw notUncompressed(showSystemCode(cause), cause);
  }
  throw notUncompressed(' to its end');
}

/** What comes back with `info`, which the types of Node do not know. */
type Informed = { readonly buffer: Uint8Array; readonly engine: { readonly bytesWritten: number } };

function gunzip(bytes: Uint8Array): Uint8Array | Informed {
  const chunkSize = Math.min(Math.max(toldSize(bytes) + 1, CHUNK_BYTES), MAXIMUM_AT_ONCE);
  return zlib.gunzipSync(bytes, { info: true, maxOutputLength: MAXIMUM_AT_ONCE, chunkSize });
}

/** What comes out, as the last bytes of gzip have it (RFC 1952, ISIZE): right for all but what is damaged or forged. */
function toldSize(bytes: Uint8Array): number {
  return bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4).getUint32(0, true);
}

function streamed(format: InflatedFormat, sink: ByteSink): Running {
  const inflater = new Inflater(format, AHEAD);
  const { stream } = inflater;
  const pumped = pump(stream, sink);
  return {
    write: (bytes) => Promise.race([inflater.write(bytes), pumped]),
    async finish() {
      stream.end();
      await pumped;
      if (!inflater.isWhole) throw notUncompressed(' to its end');
    },
    discard: () => void stream.destroy(),
  };
}

async function pump(stream: AsyncIterable<Uint8Array>, sink: ByteSink): Promise<void> {
  const chunks = stream[Symbol.asyncIterator]();
  for (;;) {
    const next = await chunks.next().catch((cause: unknown) => {
      throw notUncompressed(showSystemCode(cause), cause);
    });
    if (next.done === true) return;
    await sink.write(next.value);
    releaseBytes(next.value);
  }
}

const LARGE_WINDOW = 'ZSTD_error_frameParameter_windowTooLarge';

function notUncompressed(how: string, cause?: unknown): OcicryptError {
  return new OcicryptError('bad-input', `the layer cannot be uncompressed${how}`, {
    cause,
    hint:
      systemCode(cause) === LARGE_WINDOW
        ? 'a window of zstd is 128 MiB at most: compress it without --long, or with --long=27'
        : 'it was encrypted so: build the image again',
  });
}
