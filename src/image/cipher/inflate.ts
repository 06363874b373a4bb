// Uncompresses gzip and zstd by the runtime, and knows what runtimes do not say: whether all of the input was read, and
// whether it had come to its end.

import type { Transform, TransformOptions } from 'node:stream';
// Not by name: a Node that is too old could not load this, and so not say that it is.
import zlib from 'node:zlib';
import { beginsWith, GZIP, ZSTD, ZSTD_SKIPPABLE } from './magic.ts';
import { ZstdFrames } from './zstd-frames.ts';

/** What a runtime uncompresses. */
export type InflatedFormat = 'gzip' | 'zstd';

/** What content is compressed by that begins with these bytes; undefined for anything else. */
export function inflatedFormat(start: Uint8Array): InflatedFormat | undefined {
  if (beginsWith(start, GZIP)) return 'gzip';
  return [ZSTD, ...ZSTD_SKIPPABLE].some((magic) => beginsWith(start, magic)) ? 'zstd' : undefined;
}

/** Node drops what follows the end of a frame in what it is given, and begins with the next frame in what comes then. */
const READS_ONE_FRAME = process.versions.bun === undefined;

/** `bytesWritten` counts what it has taken of its input. */
type Engine = Transform & { readonly bytesWritten: number };

/** A stream of the runtime that uncompresses, and what is known of its input. */
export class Inflater {
  readonly stream: Transform;
  readonly #engine: Engine;
  readonly #frames: ZstdFrames | undefined;
  #given = 0;

  constructor(format: InflatedFormat, options: Pick<TransformOptions, 'highWaterMark'> & { chunkSize?: number } = {}) {
    this.#engine = format === 'gzip' ? zlib.createGunzip(options) : zlib.createZstdDecompress(options);
    this.#frames = format === 'zstd' ? new ZstdFrames() : undefined;
    this.stream = this.#engine;
  }

  /**
   * Writes the next bytes of the input. Their memory is free again once this resolves; it does not if the stream has come
   * to its end or failed, which the stream says.
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.#given += bytes.length;
    let written = 0;
    for (let at = 0; at < bytes.length; ) {
      at += this.#frames?.pass(bytes.subarray(at)) ?? bytes.length;
      if (at < bytes.length && !READS_ONE_FRAME) continue;
      const part = bytes.subarray(written, at);
      await new Promise<void>((resolve) => this.#engine.write(part, () => resolve()));
      written = at;
    }
  }

  /**
   * Whether what came out is all that readers in Go find in the input; to be asked at the stream's end. Both runtimes end
   * gzip at a zero behind it, and Bun ends zstd that is cut as if it was whole.
   */
  get isWhole(): boolean {
    return this.#engine.bytesWritten >= this.#given && (this.#frames?.isWhole ?? true);
  }
}
