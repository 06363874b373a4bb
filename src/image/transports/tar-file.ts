// Opens archives as files: plain tars to be read at any place, compressed ones from their start.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import { type Decompressor, findDecompressor, MAGIC_LENGTH } from '../cipher/decompress.ts';
import { sourceFromStream } from '../cipher/streams.ts';
import type { TarInput } from './tar.ts';

/** An archive that is open. */
export interface TarFile {
  /** Whether its content can only be had from the start. */
  readonly compressed: boolean;
  /** Its uncompressed bytes from their start. To be closed before another is begun. */
  start(signal?: AbortSignal): TarInput & { close(): void };
  /** Bytes of an archive that is not compressed. @returns how many there were; 0 is the end */
  readAt(into: Uint8Array, offset: number): Promise<number>;
  close(): Promise<void>;
}

/**
 * Opens an archive: tar, or tar compressed by gzip, zstd, xz or bzip2, as its first bytes say.
 *
 * @throws OcicryptError `not-found`, `bad-input` for what is no file, `configuration` if the program is missing that
 *   uncompresses it
 */
export async function openTarFile(path: string): Promise<TarFile> {
  const file = await openArchiveFile(path);
  try {
    const start = new Uint8Array(MAGIC_LENGTH);
    await file.read(start, 0, start.length, 0);
    const decompressor = await findDecompressor(start, path);
    return {
      compressed: decompressor !== undefined,
      start: (signal) => (decompressor === undefined ? plainInput(file) : streamInput(file, decompressor, signal)),
      readAt: async (into, offset) => (await file.read(into, 0, into.length, offset)).bytesRead,
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens the file of an archive, never waiting for the other end of a pipe. @throws OcicryptError `not-found`, `bad-input` */
async function openArchiveFile(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    if (systemCode(cause) === 'ENOENT')
      throw new OcicryptError('not-found', `no file ${showImagePath(path)}`, { cause, hint: 'check the path' });
    throw new OcicryptError('not-found', `cannot open ${showImagePath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'check that this user may read it',
    });
  });
  try {
    checkArchiveKind(path, await file.stat());
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

type FileKind = { isFile(): boolean; isDirectory(): boolean };

/** @throws OcicryptError `bad-input` for a directory, a pipe, a device in an archive's place */
export function checkArchiveKind(path: string, status: FileKind): void {
  if (status.isFile()) return;
  if (status.isDirectory()) {
    throw new OcicryptError('bad-input', `${showImagePath(path)} is a directory and no archive`, {
      hint: `an image layout is named oci:${showImagePath(path)}`,
    });
  }
  throw new OcicryptError('bad-input', `${showImagePath(path)} is a pipe or a device: archives are files`, {
    hint: 'write it to a file first',
  });
}

/** Of what is read. Larger chunks of what is uncompressed are quicker, but Bun collects them late: 190 MiB for 176. */
const CHUNK_BYTES = 256 * 1024;

function plainInput(file: FileHandle): TarInput & { close(): void } {
  let position = 0;
  return {
    async read(into) {
      let length = 0;
      while (length < into.length) {
        const { bytesRead } = await file.read(into, length, into.length - length, position);
        if (bytesRead === 0) break;
        length += bytesRead;
        position += bytesRead;
      }
      return length;
    },
    async skip(count) {
      const { size } = await file.stat();
      const skipped = Math.max(0, Math.min(count, size - position));
      position += skipped;
      return skipped;
    },
    close() {},
  };
}

function streamInput(
  file: FileHandle,
  decompressor: Decompressor,
  signal: AbortSignal | undefined,
): TarInput & { close(): void } {
  // Streams of a file handle close it, and it is read again.
  const raw = Readable.from(chunksOf(file), { objectMode: false });
  const { output, end } = decompressor(raw);
  // A program that hangs gives nothing that could be read, so that the signal would be looked at.
  signal?.addEventListener('abort', end, { once: true });
  const source = sourceFromStream(damagedAsInput(output, signal));
  const passed = new Uint8Array(64 * 1024);
  const read = async (into: Uint8Array): Promise<number> => {
    let length = 0;
    while (length < into.length) {
      signal?.throwIfAborted();
      const count = await source.read(into.subarray(length));
      if (count === 0) break;
      length += count;
    }
    return length;
  };
  return {
    read,
    async skip(count) {
      let left = count;
      while (left > 0) {
        const part = await read(passed.subarray(0, Math.min(left, passed.length)));
        if (part === 0) break;
        left -= part;
      }
      return count - left;
    },
    close() {
      signal?.removeEventListener('abort', end);
      end();
      raw.destroy();
    },
  };
}

async function* chunksOf(file: FileHandle): AsyncGenerator<Uint8Array> {
  for (let position = 0; ; ) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

/** A decompressor's errors are about the archive. */
async function* damagedAsInput(
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    yield* bytes;
  } catch (cause) {
    signal?.throwIfAborted();
    throw new OcicryptError('bad-input', 'it cannot be uncompressed', { cause });
  }
}
