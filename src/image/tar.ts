// The only code that reads tar files, as hostile input: members are taken by name, and no name is ever a path.

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { ReadableStream } from 'node:stream/web';
import { createGunzip } from 'node:zlib';
import { createTarDecoder } from 'modern-tar';
import { OcicryptError } from '../base/errors.ts';
import { notWritten } from './files.ts';

const MAXIMUM_ENTRIES = 20_000;
const GZIP = [0x1f, 0x8b];

/**
 * Visits every plain file of a tar, which may be gzipped; links, devices and directories are passed over.
 *
 * @param damaged makes the error for what is no tar, or one of more than 20,000 members or of none
 * @param visit may read the member's bytes or leave them
 * @throws OcicryptError what `damaged` makes, or what `visit` throws
 */
export async function forEachMember(
  path: string,
  damaged: (cause?: unknown) => OcicryptError,
  visit: (name: string, body: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const tar = await openTar(path);
  let entries = 0;
  try {
    for await (const { header, body } of tar.bytes.pipeThrough(createTarDecoder({ strict: true }))) {
      if (++entries > MAXIMUM_ENTRIES) throw damaged();
      if (header.type === undefined || header.type === 'file') await visit(header.name, body);
      // What was not read must be given up for the next member to come.
      if (!body.locked) await body.cancel();
    }
  } catch (error) {
    throw error instanceof OcicryptError ? error : damaged(error);
  } finally {
    await tar.close();
  }
  if (entries === 0) throw damaged();
}

/** Writes a file that is not there yet. @throws OcicryptError `not-written` */
export async function writeNewFile(path: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const file = await open(path, flags, 0o600).catch(notWritten(path));
  try {
    for await (const chunk of bytes) await file.write(chunk).catch(notWritten(path));
  } finally {
    await file.close();
  }
}

async function openTar(path: string): Promise<{ bytes: ReadableStream<Uint8Array>; close: () => Promise<void> }> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw new OcicryptError('not-found', `no file ${path}`, { cause, hint: 'check the path' });
  });
  const start = new Uint8Array(2);
  await file.read(start, 0, 2, 0);
  const raw = file.createReadStream({ start: 0, autoClose: false, highWaterMark: 1024 * 1024 });
  const source = GZIP.every((byte, index) => start[index] === byte) ? raw.pipe(createGunzip()) : raw;
  raw.on('error', (error) => source.destroy(error));
  const chunks = source[Symbol.asyncIterator]();
  const bytes = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await chunks.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
  });
  return {
    bytes,
    close: async () => {
      source.destroy();
      raw.destroy();
      await file.close();
    },
  };
}
