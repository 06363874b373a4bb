// What a run of the cipher is told, and how it reads the bytes of a layer: exactly as many as the manifest says.

import { OcicryptError } from '../../base/errors.ts';
import type { ByteSource } from './streams.ts';

/** What to do with a layer, and what to be told on the way. */
export type PipelineOptions = {
  /** How many bytes the source will give, as the manifest says. Another number is an error. */
  readonly size: number;
  /**
   * Called with the results of all `digest` and `hmac` passes, in the order of the stages, before the last bytes are
   * given to the sink: what it throws ends the run, and the sink never gets the whole.
   */
  readonly check: (sums: readonly Uint8Array[]) => void;
  /** Bytes read since the last call. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
};

/** Reads until `into` is full or the source ends; resolves with the number of bytes. */
export async function fill(
  source: ByteSource,
  into: Uint8Array,
  { signal, onProgress }: Pick<PipelineOptions, 'signal' | 'onProgress'>,
): Promise<number> {
  let length = 0;
  while (length < into.length) {
    signal?.throwIfAborted();
    const read = await source.read(into.subarray(length));
    if (read === 0) break;
    length += read;
    onProgress?.(read);
  }
  return length;
}

export function wrongSize(size: number): OcicryptError {
  return new OcicryptError('integrity', `layer is not the ${size} bytes that the manifest says`, {
    hint: 'the image is damaged: fetch or build it again',
  });
}
