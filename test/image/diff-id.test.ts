// The digest of a layer once it is uncompressed: of the whole of it, as readers in Go have it, or none.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { createDiffIdSink } from '../../src/image/diff-id.ts';
import type { Compression } from '../../src/image/model/annotations.ts';
import { isCode } from '../fixtures/codes.ts';
import { digestOf } from './harness.ts';

const content = Buffer.alloc(200_000, 'layer');

async function diffId(compression: Compression, bytes: Uint8Array): Promise<string> {
  const sink = createDiffIdSink(compression);
  try {
    for (let at = 0; at < bytes.length; at += 4096) await sink.write(bytes.subarray(at, at + 4096));
    return await sink.finish();
  } finally {
    sink.discard();
  }
}

test('a layer has the digest of all that it holds', async () => {
  const two = digestOf(Buffer.concat([content, content]));
  const [gzip, zstd] = [gzipSync(content), zstdCompressSync(content)];
  for (const [compression, bytes] of [
    ['none', content],
    ['gzip', gzip],
    ['zstd', zstd],
  ] as const)
    assert.equal(await diffId(compression, bytes), digestOf(content));
  assert.equal(await diffId('gzip', Buffer.concat([gzip, gzip])), two);
  assert.equal(await diffId('zstd', Buffer.concat([zstd, zstd])), two);
});

test('what is cut, or has something behind its end, has none', async () => {
  for (const [compression, whole] of [
    ['gzip', gzipSync(content)],
    ['zstd', zstdCompressSync(content)],
  ] as const) {
    for (const bytes of [
      whole.subarray(0, -1),
      whole.subarray(0, whole.length / 2),
      Buffer.concat([whole, Buffer.alloc(512)]),
      Buffer.concat([whole, Buffer.from('x')]),
    ])
      await assert.rejects(diffId(compression, bytes), isCode('integrity'), `${compression} ${bytes.length}`);
  }
});
