// Moves the bytes of a layer through its cipher: from a source, through stages, to a sink; a small one in this thread.

import { type LayerKey, type RunningStage, type Stage, startStage } from './passes.ts';
import { fill, type PipelineOptions, wrongSize } from './pipeline-input.ts';
import { SLOT_BYTES } from './ring.ts';
import type { ByteSink, ByteSource } from './streams.ts';

/** Below this the threads are not worth waking: one core makes all passes over it in about 4 ms. */
const SMALL = 2 * SLOT_BYTES;

/**
 * Runs every byte of `source` through `stages`, one thread each, into `sink`; in this thread alone if the layer is small,
 * or if a bundle lacks the code of the threads. Memory is one ring of at most 8 MiB whatever the size. The source is
 * read to its end, the sink is neither committed nor closed.
 *
 * @returns the results of all `digest` and `hmac` passes, in the order of the stages, which `check` has seen
 * @throws what the source, the sink or `check` throw, the signal's reason, or OcicryptError `integrity` for a wrong size
 */
export async function runPipeline(
  source: ByteSource,
  sink: ByteSink,
  stages: readonly Stage[],
  layer: LayerKey,
  options: PipelineOptions,
): Promise<readonly Uint8Array[]> {
  options.signal?.throwIfAborted();
  // Loading what makes threads is a tenth of a small layer's time.
  const threads = options.size <= SMALL ? undefined : (await import('./lane.ts')).startLane();
  return (threads ?? runHere)(source, sink, stages, layer, options);
}

/** In this thread, in two chunks: the last is still here when `check` decides. */
async function runHere(
  source: ByteSource,
  sink: ByteSink,
  stages: readonly Stage[],
  layer: LayerKey,
  options: PipelineOptions,
): Promise<readonly Uint8Array[]> {
  const createChunk = () => new Uint8Array(Math.min(options.size + 1, SLOT_BYTES));
  let [chunk, other] = [createChunk(), createChunk()];
  const running: RunningStage[] = stages.map((stage) => startStage(stage, layer));
  let left = options.size;
  let held: Uint8Array | undefined;
  for (;;) {
    const length = await fill(source, chunk, options);
    left -= length;
    if (left < 0 || (length === 0 && left > 0)) throw wrongSize(options.size);
    if (length === 0) break;
    const bytes = chunk.subarray(0, length);
    for (const stage of running) stage.apply(bytes);
    if (held !== undefined) await sink.write(held);
    held = bytes;
    [chunk, other] = [other, chunk];
  }
  const sums = running.flatMap((stage) => stage.finish());
  options.check(sums);
  options.signal?.throwIfAborted();
  if (held !== undefined) await sink.write(held);
  return sums;
}
