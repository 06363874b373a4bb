// The threads of large layers: which layers have all of them and the long ring, which threads are used again, how they end.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { runPipeline } from '../../../src/image/cipher/pipeline.ts';
import type { ByteSink, ByteSource } from '../../../src/image/cipher/streams.ts';
import { isCode } from '../../fixtures/codes.ts';

const MIB = 1024 * 1024;
const SIZE = 12 * MIB;
const LAYER = { key: new Uint8Array(32), nonce: new Uint8Array(16) };

/** Every thread that was started, and those of them that have ended. */
const threads: Worker[] = [];
const ended = new Set<Worker>();
const notice = (thread: Worker) => {
  threads.push(thread);
  thread.once('exit', () => ended.add(thread));
};
process.on('worker', notice);
after(() => process.off('worker', notice));

/** A layer whose sink takes nothing until it is told to. */
function startLayer(signal: AbortSignal) {
  const waiting = new Map<number, () => void>();
  const released = Promise.withResolvers<void>();
  let failure: Error | undefined;
  let [left, written, allowed, ahead] = [SIZE, 0, 0, 0];
  let resume = () => {};
  const source: ByteSource = {
    read: async (into) => {
      const length = Math.min(left, into.length);
      left -= length;
      const filled = (SIZE - left) / MIB;
      ahead = Math.max(ahead, filled - written);
      waiting.get(filled)?.();
      return length;
    },
  };
  const sink: ByteSink = {
    write: async () => {
      while (written >= allowed) {
        const more = new Promise<void>((resolve) => {
          resume = resolve;
        });
        await Promise.race([more, released.promise]);
      }
      if (failure !== undefined) throw failure;
      written++;
    },
  };
  const done = runPipeline(source, sink, [['digest'], ['crypt']], LAYER, { size: SIZE, check: () => {}, signal });
  const outcome = done.then(
    () => undefined,
    (error: unknown) => error,
  );
  const take = (chunks: number) => {
    allowed += chunks;
    resume();
  };
  return {
    outcome,
    take,
    /** The most chunks that were read and not yet written. */
    ahead: () => ahead,
    /** Until so many chunks are read. */
    filled: (chunks: number) =>
      new Promise<void>((resolve) => (SIZE - left >= chunks * MIB ? resolve() : waiting.set(chunks, resolve))),
    end: async (error?: Error) => {
      failure = error;
      take(SIZE);
      assert.equal(await outcome, error);
    },
  };
}

test('four rings are kept for later layers, whose threads are used again', { timeout: 20_000 }, async (t) => {
  const layers = Array.from({ length: 6 }, () => startLayer(t.signal));
  for (const [index, layer] of layers.entries()) await layer.filled(index === 0 ? 8 : 4);
  await turn();
  assert.equal(threads.length, 7, 'two for the first layer, one for each other');
  const [first, ...others] = layers;
  for (const layer of others) await layer.end();
  const sixth = threads[6];
  assert.ok(sixth !== undefined);
  if (!ended.has(sixth)) await once(sixth, 'exit');
  await first?.end();
  const ends = threads.slice(0, 2).map((thread) => (ended.has(thread) ? undefined : once(thread, 'exit')));
  await Promise.all(ends);
  const again = [startLayer(t.signal), startLayer(t.signal), startLayer(t.signal)];
  for (const [index, layer] of again.entries()) await layer.filled(index === 0 ? 8 : 4);
  for (const layer of again) await layer.end();
  assert.equal(threads.length, 9, 'the long ring is new');
  assert.deepEqual(
    threads.flatMap((thread, index) => (ended.has(thread) ? [index] : [])),
    [0, 1, 6],
  );
  for (const thread of threads) assert.equal(thread.listenerCount('message') + thread.listenerCount('error'), 0);
});

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

test('a layer is read as far ahead as its ring is long, and a further one that fails leaves the long ring alone', {
  timeout: 20_000,
}, async (t) => {
  const first = startLayer(t.signal);
  await first.filled(8);
  const failing = startLayer(t.signal);
  await failing.filled(4);
  await failing.end(new Error('broken'));
  const further = startLayer(t.signal);
  await further.filled(4);
  await turn();
  first.take(1);
  await first.filled(9);
  further.take(1);
  await further.filled(5);
  await turn();
  await first.end();
  await further.end();
  assert.deepEqual([first.ahead(), further.ahead()], [8, 4]);
});

test('a thread that fails ends its layer', { timeout: 20_000 }, async (t) => {
  const layer = startLayer(t.signal);
  await layer.filled(8);
  await turn();
  const atWork = threads.find((thread) => thread.listenerCount('error') > 0);
  const cause = new Error('out of memory');
  atWork?.emit('error', cause);
  const error = await layer.outcome;
  assert.ok(isCode('internal')(error) && error instanceof Error && error.cause === cause);
});

test('a thread that replies with something else ends its layer', { timeout: 20_000 }, async (t) => {
  const listening = () => threads.filter((thread) => thread.listenerCount('error') > 0 && !ended.has(thread));
  // Those of layers that failed.
  await Promise.all(listening().map((thread) => once(thread, 'exit')));
  const layer = startLayer(t.signal);
  await layer.filled(8);
  await turn();
  listening()[0]?.emit('message', {});
  await turn();
  layer.take(SIZE);
  assert.ok(isCode('internal')(await layer.outcome));
});

test('nothing more is read once the sink has failed', { timeout: 20_000 }, async () => {
  const broken = new Error('broken');
  const gate = Promise.withResolvers<void>();
  let reads = 0;
  const source: ByteSource = {
    read: async (into) => {
      if (++reads > 2) await gate.promise;
      return into.length;
    },
  };
  const sink: ByteSink = { write: () => Promise.reject(broken) };
  await assert.rejects(runPipeline(source, sink, [['digest']], LAYER, { size: SIZE, check: () => {} }), broken);
  gate.resolve();
  await turn();
  await turn();
  assert.equal(reads, 3);
});

test('a bundle that lacks the code of the threads does without, compiled or not', async () => {
  for (const place of ['bundled', '/$bunfs/']) {
    const url = new URL(`../../../src/image/cipher/lane.ts?${place}`, import.meta.url).href;
    const bundled: { readonly startLane: () => unknown } = await import(url);
    assert.equal(bundled.startLane(), undefined);
  }
});

test('a program that Node takes from its command line has the threads too', () => {
  const pipeline = new URL('../../../src/image/cipher/pipeline.ts', import.meta.url);
  const program = `
    import { runPipeline } from ${JSON.stringify(pipeline.href)};
    let left = ${SIZE};
    const read = async (into) => { const length = Math.min(left, into.length); left -= length; return length; };
    const layer = { key: new Uint8Array(32), nonce: new Uint8Array(16) };
    await runPipeline({ read }, { write: async () => {} }, [['digest'], ['crypt']], layer, { size: ${SIZE}, check() {} });
    process.stdout.write('done', () => process.exit());`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
  });
  assert.equal(stdout, 'done', stderr);
});
