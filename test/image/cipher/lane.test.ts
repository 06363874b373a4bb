// Which layers have all threads and the long ring: one at a time, and after it has failed the next.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runPipeline } from '../../../src/image/cipher/pipeline.ts';
import type { ByteSink, ByteSource } from '../../../src/image/cipher/streams.ts';

const MIB = 1024 * 1024;
const SIZE = 12 * MIB;

/** A layer that is at work until it is told to go on: its sink takes nothing before. */
function startLayer(signal: AbortSignal) {
  const go = Promise.withResolvers<Error | undefined>();
  const waiting = new Map<number, () => void>();
  let left = SIZE;
  const source: ByteSource = {
    read: async (into) => {
      const length = Math.min(left, into.length);
      left -= length;
      waiting.get((SIZE - left) / MIB)?.();
      return length;
    },
  };
  const sink: ByteSink = {
    write: async () => {
      const error = await go.promise;
      if (error !== undefined) throw error;
    },
  };
  const layer = { key: new Uint8Array(32), nonce: new Uint8Array(16) };
  const done = runPipeline(source, sink, [['digest'], ['crypt']], layer, { size: SIZE, check: () => {}, signal });
  const outcome = done.then(
    () => undefined,
    (error: unknown) => error,
  );
  return {
    /** Until so many chunks are read. */
    filled: (chunks: number) =>
      new Promise<void>((resolve) => (SIZE - left >= chunks * MIB ? resolve() : waiting.set(chunks, resolve))),
    end: async (error?: Error) => {
      go.resolve(error);
      assert.equal(await outcome, error);
    },
  };
}

test('the layer after one that failed has the long ring, also while another is at work', {
  timeout: 20_000,
}, async (t) => {
  const first = startLayer(t.signal);
  await first.filled(8);
  const further = startLayer(t.signal);
  await further.filled(4);
  await first.end(new Error('broken'));
  const next = startLayer(t.signal);
  await next.filled(8);
  await next.end();
  await further.end();
  // Both are idle now, and the one with the short ring is so last.
  const alone = startLayer(t.signal);
  await alone.filled(8);
  await alone.end(new Error('broken'));
  const last = startLayer(t.signal);
  await last.filled(8);
  await last.end();
});
