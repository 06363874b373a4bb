// Uncompresses archives: gzip and zstd by the runtime, xz and bzip2 by the programs of those names,
// which no runtime replaces, as GNU tar does.

import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import type { Readable } from 'node:stream';
import { OcicryptError } from '../../base/errors.ts';
import { endGroup } from '../../base/helper.ts';
import { showImagePath } from '../../base/shown.ts';
import { type InflatedFormat, Inflater, inflatedFormat } from './inflate.ts';
import { BZIP2, beginsWith, XZ } from './magic.ts';

/** Starts to uncompress a stream; `end` stops it wherever it is. */
export type Decompressor = (compressed: Readable) => { readonly output: AsyncIterable<Uint8Array>; end(): void };

/** How many bytes of a file tell what it is compressed by. */
export const MAGIC_LENGTH = XZ.length;

const PROGRAMS = [
  { magic: XZ, name: 'xz' },
  { magic: BZIP2, name: 'bzip2' },
] as const;

/**
 * A header of xz may ask for 4 GiB of memory, and `xz -9` asks for 65 MiB. Said by a variable, because the xz of busybox
 * does not know the option.
 */
const XZ_OPT = '--threads=1 --memlimit-decompress=256MiB';

/**
 * Finds what uncompresses a file.
 *
 * @param start its first bytes
 * @param path for errors
 * @returns undefined if the file is not compressed
 * @throws OcicryptError `configuration` if the program for it is not in PATH
 */
export async function findDecompressor(start: Uint8Array, path: string): Promise<Decompressor | undefined> {
  const format = inflatedFormat(start);
  if (format !== undefined) return (compressed) => uncompress(compressed, format);
  const name = PROGRAMS.find(({ magic }) => beginsWith(start, magic))?.name;
  if (name === undefined) return undefined;
  const program = await findProgram(name);
  if (program !== undefined) return (compressed) => uncompressBy(program, compressed);
  throw new OcicryptError(
    'configuration',
    `${showImagePath(path)} is compressed by ${name}, and no ${name} is in PATH`,
    {
      hint: `install ${name}, or uncompress the file first: ${name} -dk ${showImagePath(path)}`,
    },
  );
}

function uncompress(compressed: Readable, format: InflatedFormat): ReturnType<Decompressor> {
  const inflater = new Inflater(format);
  const { stream } = inflater;
  void feed(compressed, inflater);
  return { output: wholeOf(stream, inflater), end: () => stream.destroy() };
}

async function feed(compressed: AsyncIterable<Uint8Array>, inflater: Inflater): Promise<void> {
  try {
    for await (const chunk of compressed) await inflater.write(chunk);
    inflater.stream.end();
  } catch (error) {
    inflater.stream.destroy(error instanceof Error ? error : new Error('it cannot be read', { cause: error }));
  }
}

async function* wholeOf(output: AsyncIterable<Uint8Array>, inflater: Inflater): AsyncGenerator<Uint8Array> {
  yield* output;
  if (!inflater.isWhole) throw new Error('it ends too early, or something follows its end');
}

/** The program gets the bytes and nothing else: no file, no terminal, no variable that may hold a secret. */
function uncompressBy(program: string, compressed: Readable): ReturnType<Decompressor> {
  const child = spawn(program, ['-dc'], {
    env: { PATH: process.env.PATH, LC_ALL: 'C', XZ_OPT },
    // A terminal's interrupt is for us; whatever a program starts in turn ends with it.
    detached: true,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const { promise: ended, resolve } = Promise.withResolvers<Error | undefined>();
  child.on('error', resolve);
  child.on('close', (status, signal) =>
    resolve(status === 0 ? undefined : new Error(`${program} ended with ${signal ?? `status ${status}`}`)),
  );
  const end = () => {
    if (child.exitCode === null && child.signalCode === null) endGroup(child);
    child.stdout.destroy();
  };
  compressed.on('error', (error) => {
    resolve(error);
    end();
  });
  // It ended before its input did: its status says why.
  child.stdin.on('error', () => undefined);
  compressed.pipe(child.stdin);
  return { output: outputOf(child.stdout, ended), end };
}

/** What is damaged or cut off is known by the status only, when all that could be read of it has been given out. */
async function* outputOf(
  output: AsyncIterable<Uint8Array>,
  ended: Promise<Error | undefined>,
): AsyncGenerator<Uint8Array> {
  yield* output;
  const error = await ended;
  if (error !== undefined) throw error;
}

/** @returns the first in PATH; directories that depend on where this process runs are passed over */
async function findProgram(name: string): Promise<string | undefined> {
  for (const directory of (process.env.PATH ?? '').split(delimiter).filter(isAbsolute)) {
    const path = join(directory, name);
    const found = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  return undefined;
}
