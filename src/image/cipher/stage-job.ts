// What the layer cipher and its worker threads tell each other.

import type { Stage } from './passes.ts';
import type { SharedRing } from './ring.ts';

/** What a worker is started with; `secrets` holds the layer key and nonce while a layer runs, and zeros between. */
export type WorkerStart = { readonly ring: SharedRing; readonly secrets: SharedArrayBuffer };

/** One stage of one layer: the passes to make, and which party of the ring makes them. */
export type StageJob = { readonly stage: Stage; readonly party: number };

/** The results of the passes. There is none if the layer was given up. */
export type StageReply = { readonly sums: readonly Uint8Array[] };

export function isWorkerStart(value: unknown): value is WorkerStart {
  return typeof value === 'object' && value !== null && 'ring' in value && 'secrets' in value;
}

export function isStageJob(value: unknown): value is StageJob {
  return typeof value === 'object' && value !== null && 'stage' in value && 'party' in value;
}

export function isStageReply(value: unknown): value is StageReply {
  return typeof value === 'object' && value !== null && 'sums' in value;
}
