// Uncompresses a layer while it streams: a sink that stands before another one.

import type { Transform } from 'node:stream';
// Not by name: a Node that is too old could not load this, and so not say that it is.
import zlib from 'node:zlib';
import { OcicryptError, showSystemCode } from '../../base/errors.ts';
import { releaseBytes } from '../../base/memory.ts';
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

/** `bytesWritten` counts what it has taken of its input. */
type Engine = Transform & { readonly bytesWritten: number };

const FORMATS: readonly { readonly magic: readonly number[]; readonly create: () => Engine }[] = [
  { magic: [0x1f, 0x8b], create: () => zlib.createGunzip(AHEAD) },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], create: () => zlib.createZstdDecompress(AHEAD) },
  // A skippable frame, which may come first: RFC 8878 section 3.1.2.
  ...Array.from({ length: 16 }, (_, index) => ({
    magic: [0x50 + index, 0x2a, 0x4d, 0x18],
    create: () => zlib.createZstdDecompress(AHEAD),
  })),
];

/**
 * Passes on what a layer holds. How it is compressed is told by its first bytes, as containerd does, whatever its media
 * type says; what is not compressed passes as it is.
 */
export function createUncompressingSink(sink: ByteSink): UncompressingSink {
  let running: Running | undefined;
  let started = false;
  return {
    async write(bytes) {
      if (!started && bytes.length > 0) {
        started = true;
        running = start(bytes, sink);
      }
      await (running === undefined ? sink.write(bytes) : running.write(bytes));
    },
    finish: async () => running?.finish(),
    discard: () => running?.discard(),
  };
}

type Running = Pick<UncompressingSink, 'write' | 'finish' | 'discard'>;

function start(first: Uint8Array, sink: ByteSink): Running | undefined {
  const format = FORMATS.find(({ magic }) => magic.every((byte, index) => first[index] === byte));
  if (format === undefined) return undefined;
  const transform = format.create();
  const pumped = pump(transform, sink);
  pumped.catch(() => undefined);
  let given = 0;
  const push = (give: (done: () => void) => void) =>
    Promise.race([new Promise<void>(give), pumped.then(() => undefined)]);
  return {
    // The memory is free again once the engine has taken all of it.
    write(bytes) {
      given += bytes.length;
      return push((done) => transform.write(bytes, () => done()));
    },
    async finish() {
      transform.end();
      await pumped;
      // Go refuses what is behind the end of gzip. Node's zstd takes the end of the first frame for that of all.
      if (transform.bytesWritten < given) throw notUncompressed(' to its end');
    },
    discard: () => void transform.destroy(),
  };
}

async function pump(transform: Engine, sink: ByteSink): Promise<void> {
  const chunks: AsyncIterator<Uint8Array> = transform[Symbol.asyncIterator]();
  for (;;) {
    const next = await chunks.next().catch((cause: unknown) => {
      throw notUncompressed(showSystemCode(cause), cause);
    });
    if (next.done === true) return;
    await sink.write(next.value);
    releaseBytes(next.value);
  }
}

function notUncompressed(how: string, cause?: unknown): OcicryptError {
  return new OcicryptError('bad-input', `the layer cannot be uncompressed${how}`, {
    cause,
    hint: 'it was encrypted so: build the image again',
  });
}
