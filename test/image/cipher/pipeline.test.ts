// Which layers go through threads, and how a source is read.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runPipeline } from '../../../src/image/cipher/pipeline.ts';

const MIB = 1024 * 1024;
const LAYER = { key: new Uint8Array(32), nonce: new Uint8Array(16) };

test('a layer of at most 2 MiB stays in this thread; a larger one is read into memory that threads share', async () => {
  for (const [size, isShared] of [
    [0, false],
    [2 * MIB, false],
    [2 * MIB + 1, true],
  ] as const) {
    let left = size;
    const seen = new Set<boolean>();
    const source = {
      read: async (into: Uint8Array) => {
        seen.add(into.buffer instanceof SharedArrayBuffer);
        const length = Math.min(left, into.length);
        left -= length;
        return length;
      },
    };
    const sums = await runPipeline(source, { write: async () => {} }, [['digest']], LAYER, { size, check: () => {} });
    assert.equal(sums.length, 1);
    assert.deepEqual([...seen], [isShared], `${size} bytes`);
  }
});

test('a source may give a byte at a time, and is never asked for none; each byte is told', async () => {
  const plain = Uint8Array.from({ length: 20 }, (_, index) => index);
  let [at, told] = [0, 0];
  const source = {
    read: async (into: Uint8Array) => {
      assert.ok(into.length > 0);
      if (at === plain.length) return 0;
      into.set(plain.subarray(at, ++at));
      return 1;
    },
  };
  const written: number[] = [];
  const sink = { write: async (bytes: Uint8Array) => void written.push(...bytes) };
  const onProgress = (bytes: number) => {
    told += bytes;
  };
  await runPipeline(source, sink, [], LAYER, { size: plain.length, check: () => {}, onProgress });
  assert.deepEqual([written, told], [[...plain], plain.length]);
});
