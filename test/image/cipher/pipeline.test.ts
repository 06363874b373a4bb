// Which layers go through threads, and how a source is read.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runPipeline } from '../../../src/image/cipher/pipeline.ts';
import { fill } from '../../../src/image/cipher/pipeline-input.ts';
import type { ByteSource } from '../../../src/image/cipher/streams.ts';
import { isCode } from '../../fixtures/codes.ts';

const MIB = 1024 * 1024;
const LAYER = { key: new Uint8Array(32), nonce: new Uint8Array(16) };

/** So many bytes, as many at a time as there is room for. */
function zerosOf(length: number): ByteSource {
  let left = length;
  return {
    read: async (into) => {
      const part = Math.min(left, into.length);
      left -= part;
      return part;
    },
  };
}

test('a layer of at most 2 MiB stays in this thread; a larger one is read into memory that threads share', async () => {
  for (const [size, isShared] of [
    [0, false],
    [2 * MIB, false],
    [2 * MIB + 1, true],
  ] as const) {
    const zeros = zerosOf(size);
    const seen = new Set<boolean>();
    const source = {
      read: (into: Uint8Array) => {
        seen.add(into.buffer instanceof SharedArrayBuffer);
        return zeros.read(into);
      },
    };
    let written = 0;
    const write = async ({ length }: Uint8Array) => {
      written += length;
    };
    const sums = await runPipeline(source, { write }, [['digest']], LAYER, { size, check: () => {} });
    assert.deepEqual([sums.length, written], [1, size]);
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
  const options = { size: plain.length, check: () => {}, onProgress };
  await runPipeline(source, sink, [], LAYER, options);
  assert.deepEqual([written, told], [[...plain], plain.length]);
  at = 0;
  const part = new Uint8Array(7);
  assert.equal(await fill(source, part, options), 7);
  assert.deepEqual(part, plain.subarray(0, 7));
});

test('a source that gives more or fewer bytes than the manifest says is refused, and nothing is checked', async () => {
  for (const size of [1000, 2 * MIB + 1]) {
    for (const given of [0, size - 1, size + 1, 2 * size]) {
      let written = 0;
      const write = async ({ length }: Uint8Array) => {
        written += length;
      };
      const check = () => assert.fail('it was checked');
      const run = runPipeline(zerosOf(given), { write }, [['digest']], LAYER, { size, check });
      await assert.rejects(run, isCode('integrity'));
      assert.ok(written < size, `${given} bytes for ${size}`);
    }
  }
});
