// Runs many pieces of work, a few at a time.

/** How many layer keys are asked for side by side: key services answer several as fast as one, and limit their callers. */
export const KEY_CALLS = 4;

/**
 * Runs `work` on every item, at most `limit` at a time, in order of their start. The first failure ends all others
 * through the signal that they are given; it is thrown when all have stopped.
 */
export async function forEachLimited<Item>(
  items: readonly Item[],
  limit: number,
  work: (item: Item, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const combined = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const queue = items.values();
  const run = async (): Promise<void> => {
    for (const item of queue) {
      combined.throwIfAborted();
      await work(item, combined);
    }
  };
  const runs = Array.from({ length: Math.min(limit, items.length) }, async () => {
    try {
      await run();
    } catch (error) {
      failed.abort(error);
    }
  });
  await Promise.all(runs);
  combined.throwIfAborted();
}
