// Sources: from a file, from a stream, and with bytes before them that were read already.

import assert from 'node:assert/strict';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ByteSource, sourceAfter, sourceFromFile, sourceFromStream } from '../../../src/image/cipher/streams.ts';
import { scratch } from '../harness.ts';

/** What each read gives, into memory of `length` bytes, until the source ends. */
async function readBy(source: ByteSource, length: number): Promise<readonly string[]> {
  const read: string[] = [];
  for (;;) {
    const into = Buffer.alloc(length, '-');
    const count = await source.read(into);
    if (count === 0) return read;
    assert.ok(into.subarray(count).every((byte) => byte === '-'.charCodeAt(0)));
    read.push(into.toString('utf8', 0, count));
  }
}

function streamOf(...chunks: readonly string[]): ByteSource {
  return sourceFromStream(
    (async function* () {
      for (const chunk of chunks) yield Buffer.from(chunk);
    })(),
  );
}

test('a file is read from where it stands', async (t) => {
  const path = join(await scratch(t), 'file');
  await writeFile(path, 'abcdefg');
  const file = await open(path);
  await file.read(Buffer.alloc(1), 0, 1, null);
  assert.deepEqual(await readBy(sourceFromFile(file), 4), ['bcde', 'fg']);
  await file.close();
});

test('chunks of a stream are given as they come, cut to what there is room for; empty ones are not its end', async () => {
  assert.deepEqual(await readBy(streamOf('', 'abc', '', 'd', 'efghi'), 2), ['ab', 'c', 'd', 'ef', 'gh', 'i']);
  assert.deepEqual(await readBy(streamOf(), 2), []);
});

test('bytes that were read come first, and then the rest', async () => {
  const head = Buffer.from('abc');
  assert.deepEqual(await readBy(sourceAfter(head, streamOf('def')), 2), ['ab', 'c', 'de', 'f']);
  assert.deepEqual(await readBy(sourceAfter(Buffer.alloc(0), streamOf('d')), 2), ['d']);
});
