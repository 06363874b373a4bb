// Frames of zstd are followed to their ends, in parts of any size.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { constants, zstdCompressSync } from 'node:zlib';
import { ZstdFrames } from '../../../src/image/cipher/zstd-frames.ts';

/** Bytes that do not compress, so that blocks are stored as they are. */
const noise = Buffer.concat(
  Array.from({ length: 10_000 }, (_, index) => createHash('sha256').update(String(index)).digest()),
);
const SKIPPABLE = Buffer.concat([Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0]), Buffer.from('toc')]);

/** Without content. */
const LAST_BLOCK = Buffer.from([1, 0, 0]);

function follow(...parts: readonly Uint8Array[]): boolean {
  const frames = new ZstdFrames();
  for (const part of parts) for (let at = 0; at < part.length; ) at += frames.pass(part.subarray(at));
  return frames.isWhole;
}

function frame(content: Uint8Array, checksum: 0 | 1 = 0, size: 0 | 1 = 1): Buffer {
  return zstdCompressSync(content, {
    params: { [constants.ZSTD_c_checksumFlag]: checksum, [constants.ZSTD_c_contentSizeFlag]: size },
  });
}

/** Of each size that a header writes in another way; raw, repeated and compressed blocks. */
const FRAMES = [0, 1, 200, 300, 70_000, 300_000].flatMap((length) =>
  [noise.subarray(0, length), Buffer.alloc(length), Buffer.from('layer '.repeat(length / 6))].flatMap((content) => [
    frame(content),
    frame(content, 1),
    frame(content, 0, 0),
    frame(content, 1, 0),
  ]),
);

test('a frame is whole at its end, and at no byte before', () => {
  for (const whole of [...FRAMES, SKIPPABLE]) {
    assert.equal(follow(whole), true);
    assert.equal(follow(...[...whole.subarray(0, 40)].map((byte) => Uint8Array.of(byte)), whole.subarray(40)), true);
    const ends = [1, 2, 3, 4, 5, 6, 7, 8, whole.length / 2, whole.length - 5, whole.length - 4, whole.length - 1];
    for (const end of ends.map(Math.floor).filter((at) => at > 0 && at < whole.length))
      assert.equal(follow(whole.subarray(0, end)), false, `${end} of ${whole.length}`);
  }
});

test('several frames are whole at the end of each, and nothing else may follow', () => {
  const frames = new ZstdFrames();
  let rest = Buffer.concat([...FRAMES, SKIPPABLE]);
  for (const { length } of [...FRAMES, SKIPPABLE]) {
    assert.equal(frames.pass(rest), length);
    rest = rest.subarray(length);
  }
  assert.equal(follow(...FRAMES, SKIPPABLE, ...FRAMES), true);
  for (const more of [Buffer.from('x'), Buffer.alloc(4), Buffer.alloc(512), SKIPPABLE.subarray(0, -1)])
    assert.equal(follow(frame(noise), more), false);
  // A block of no kind: nothing that follows makes it whole.
  const head = [0x28, 0xb5, 0x2f, 0xfd, 0, 0];
  assert.equal(follow(Buffer.from(head), LAST_BLOCK), true);
  for (const more of [[], [LAST_BLOCK]]) assert.equal(follow(Buffer.from([...head, 7, 0, 0]), ...more), false);
});

test('a header has a window, the number of a dictionary and the size of the content, of each length', () => {
  for (const isSingle of [false, true]) {
    for (const [dictionaryFlag, dictionary] of [0, 1, 2, 4].entries()) {
      for (const [sizeFlag, size] of [isSingle ? 1 : 0, 2, 4, 8].entries()) {
        const descriptor = (sizeFlag << 6) | (isSingle ? 0x20 : 0) | dictionaryFlag;
        const rest = Buffer.alloc((isSingle ? 0 : 1) + dictionary + size, 7);
        const head = Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, descriptor]), rest]);
        assert.equal(follow(head, LAST_BLOCK), true, `descriptor ${descriptor}`);
        assert.equal(follow(head.subarray(0, -1), LAST_BLOCK), false, `descriptor ${descriptor}`);
      }
    }
  }
});
