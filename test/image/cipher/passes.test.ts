// The passes over a chunk: as they are named, and without memory of their own for each part.

import assert from 'node:assert/strict';
import { createCipheriv, createHash, createHmac } from 'node:crypto';
import { test } from 'node:test';
import { startStage } from '../../../src/image/cipher/passes.ts';

const LAYER = { key: new Uint8Array(32).fill(1), nonce: new Uint8Array(16).fill(2) };
const MIB = 1024 * 1024;

test('passes follow one another over the same bytes, and their sums stand in the same order', () => {
  const plain = new Uint8Array(MIB + 12_345).fill(3);
  const cipher = createCipheriv('aes-256-ctr', LAYER.key, LAYER.nonce).update(plain);
  const running = startStage(['digest', 'crypt', 'hmac', 'digest'], LAYER);
  const chunk = Uint8Array.from(plain);
  running.apply(chunk.subarray(0, MIB));
  running.apply(chunk.subarray(MIB));
  assert.ok(cipher.equals(chunk));
  assert.deepEqual(
    running.finish().map((sum) => Buffer.from(sum).toString('hex')),
    [
      createHash('sha256').update(plain).digest('hex'),
      createHmac('sha256', LAYER.key).update(cipher).digest('hex'),
      createHash('sha256').update(cipher).digest('hex'),
    ],
  );
});

test('a key that is wiped once the stage has started is still used, also from memory that threads share', () => {
  const shared = { key: new Uint8Array(new SharedArrayBuffer(32)), nonce: new Uint8Array(new SharedArrayBuffer(16)) };
  const running = startStage(['hmac'], shared);
  shared.key.fill(7);
  running.apply(new Uint8Array(5));
  const expected = createHmac('sha256', new Uint8Array(32)).update(new Uint8Array(5)).digest();
  assert.deepEqual(
    running.finish().map((sum) => Buffer.from(sum)),
    [expected],
  );
});

// On Bun it is freed later.
if (process.versions.bun === undefined) {
  test('what CTR makes of a part is freed at once', () => {
    const chunk = new Uint8Array(16 * MIB);
    const running = startStage(['crypt'], LAYER);
    const before = process.memoryUsage().arrayBuffers;
    running.apply(chunk);
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < MIB, `${grown} bytes`);
  });
}
