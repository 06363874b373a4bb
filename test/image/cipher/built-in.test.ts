// Forms that the runtime uncompresses by itself, known by their first bytes. Programs: decompress.test.ts.

import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { findDecompressor, MAGIC_LENGTH } from '../../../src/image/cipher/decompress.ts';

const PLAIN = Buffer.alloc(100_000, 'plain');

test('gzip and zstd are uncompressed, and another text is taken as it is', async () => {
  for (const compressed of [gzipSync(PLAIN), zstdCompressSync(PLAIN)]) {
    const start = await findDecompressor(compressed.subarray(0, MAGIC_LENGTH), 'a');
    assert.ok(start !== undefined);
    const { output } = start(Readable.from([compressed]));
    assert.deepEqual(await buffer(output), PLAIN);
  }
  assert.equal(await findDecompressor(PLAIN.subarray(0, MAGIC_LENGTH), 'a'), undefined);
});
