// Layers uncompressed while they stream: whole, or refused.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { asOcicryptError, OcicryptError } from '../../../src/base/errors.ts';
import { createUncompressingSink } from '../../../src/image/cipher/uncompress.ts';
import { isCode } from '../../fixtures/codes.ts';

const content = Buffer.alloc(200_000, 'layer');
/** Of several blocks, and none of them compressed. */
const noise = Buffer.concat(
  Array.from({ length: 10_000 }, (_, index) => createHash('sha256').update(String(index)).digest()),
);
const SKIPPABLE = Buffer.concat([Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('toc!')]);

/** A large layer streams; a small one is kept until its end if it is gzip. */
async function uncompress(parts: readonly Uint8Array[]): Promise<Buffer> {
  const size = parts.reduce((sum, { length }) => sum + length, 0);
  const [streamed, kept] = await Promise.allSettled([100_000_000, size].map((told) => uncompressAs(parts, told)));
  if (streamed?.status !== 'fulfilled') {
    assert.equal(kept?.status, 'rejected');
    throw streamed?.reason;
  }
  assert.ok(kept?.status === 'fulfilled' && kept.value.equals(streamed.value));
  return streamed.value;
}

async function uncompressAs(parts: readonly Uint8Array[], size: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const sink = createUncompressingSink({ write: async (bytes) => void chunks.push(Buffer.from(bytes)) }, size);
  // The memory belongs to the caller again after each write.
  const memory = new Uint8Array(new SharedArrayBuffer(Math.max(...parts.map(({ length }) => length), 1)));
  for (const part of parts) {
    memory.set(part);
    await sink.write(memory.subarray(0, part.length));
    memory.fill(0xff);
  }
  await sink.finish();
  return Buffer.concat(chunks);
}

function cut(bytes: Uint8Array, length: number): readonly Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / length) }, (_, index) =>
    bytes.subarray(index * length, (index + 1) * length),
  );
}

const isRefused = isCode('bad-input');

test('what is compressed comes out whole, in whatever parts it comes; the rest passes as it is', async () => {
  const gzip = gzipSync(content);
  for (const bytes of [gzip, zstdCompressSync(content), content]) {
    for (const length of [11, 1000, 1024 * 1024]) assert.ok(content.equals(await uncompress(cut(bytes, length))));
  }
  assert.equal((await uncompress([])).length, 0);
  assert.ok(Buffer.concat([content, content]).equals(await uncompress([Buffer.concat([gzip, gzip])])), 'two members');
});

test('zstd of several frames comes out whole, in whatever parts it comes', async () => {
  const frame = zstdCompressSync(content);
  const chunked = Buffer.concat([SKIPPABLE, frame, SKIPPABLE, frame, SKIPPABLE]);
  for (const length of [11, frame.length, 1024 * 1024])
    assert.ok(Buffer.concat([content, content]).equals(await uncompress(cut(chunked, length))));
});

test('many frames wait for who takes what they hold', async () => {
  const frames = Buffer.concat(Array.from({ length: 100 }, () => zstdCompressSync(Buffer.alloc(1_000_000))));
  const gate = Promise.withResolvers<void>();
  let [taken, isGiven] = [0, false];
  const write = async ({ length }: Uint8Array) => {
    await gate.promise;
    taken += length;
  };
  const sink = createUncompressingSink({ write }, frames.length);
  const given = sink.write(frames).then(() => {
    isGiven = true;
  });
  await sleep(100);
  assert.equal(isGiven, false);
  gate.resolve();
  await given;
  await sink.finish();
  assert.equal(taken, 100_000_000);
});

test('what is cut, changed, or has something behind its end is refused', async () => {
  const gzip = gzipSync(content);
  // Bun ends zstd that is cut as if it was whole.
  const zstd = zstdCompressSync(noise);
  const changed = Buffer.from(gzip);
  changed[changed.length - 6] = (changed[changed.length - 6] ?? 0) ^ 1;
  for (const bytes of [
    gzip.subarray(0, -9),
    changed,
    Buffer.concat([gzip, Buffer.alloc(512)]),
    Buffer.concat([gzip, Buffer.from('x')]),
    ...[5, zstd.length / 2, zstd.length - 1].map((length) => zstd.subarray(0, length)),
    Buffer.concat([SKIPPABLE, zstd]).subarray(0, 10),
    Buffer.concat([zstd, SKIPPABLE.subarray(0, -1)]),
    Buffer.concat([zstd, Buffer.alloc(512)]),
    Buffer.concat([zstd, Buffer.from('x')]),
  ]) {
    await assert.rejects(uncompress(cut(bytes, 4096)), isRefused);
  }
});

test('what the sink throws ends it', async () => {
  const failure = new OcicryptError('not-written', 'no room');
  for (const size of [content.length, 100_000_000]) {
    const sink = createUncompressingSink({ write: () => Promise.reject(failure) }, size);
    await assert.rejects(async () => {
      for (const part of cut(gzipSync(content), 100)) await sink.write(part);
      await sink.finish();
    }, failure);
  }
});

test('what a layer holds is told by its first bytes alone, and no bytes are not the first', async () => {
  const gzip = gzipSync(content);
  assert.ok(content.equals(await uncompress([Buffer.alloc(0), gzip])));
  const late = [content.subarray(0, 1), gzip];
  assert.ok(Buffer.concat(late).equals(await uncompress(late)));
});

test('a frame of zstd that is skipped may come first; what looks nearly like one passes as it is', async () => {
  const frame = zstdCompressSync(content);
  for (const [index, isFrame] of [
    [-1, false],
    ...Array.from({ length: 16 }, (_, low) => [low, true] as const),
    [16, false],
  ] as const) {
    const bytes = Buffer.concat([SKIPPABLE, frame]);
    bytes[0] = 0x50 + index;
    assert.ok((await uncompress([bytes])).equals(isFrame ? content : bytes));
  }
});

/** A sink that keeps the lengths of what it gets, and how it is told of the first. */
function measuringSink() {
  const lengths: number[] = [];
  const { promise: begun, resolve } = Promise.withResolvers<void>();
  const write = async ({ length }: Uint8Array) => {
    lengths.push(length);
    resolve();
  };
  return { lengths, begun, write };
}

test('gzip of 2 MiB is uncompressed at its end, and more as it comes', { timeout: 20_000 }, async () => {
  const gzip = gzipSync(Buffer.alloc(2 * 1024 * 1024));
  const kept = measuringSink();
  const small = createUncompressingSink(kept, 2 * 1024 * 1024);
  await small.write(gzip);
  await sleep(20);
  assert.deepEqual(kept.lengths, []);
  await small.finish();
  assert.deepEqual(kept.lengths, [2 * 1024 * 1024]);
  const streamed = measuringSink();
  const large = createUncompressingSink(streamed, 2 * 1024 * 1024 + 1);
  await large.write(gzip);
  await streamed.begun;
  await large.finish();
});

test('a small layer that is damaged gives nothing out', async () => {
  const gzip = gzipSync(content);
  for (const bytes of [
    gzip.subarray(0, -1),
    Buffer.concat([gzip, Buffer.from('x')]),
    Buffer.from(gzip).fill(0, gzip.length - 9),
  ]) {
    const kept = measuringSink();
    const sink = createUncompressingSink(kept, bytes.length);
    await sink.write(bytes);
    await assert.rejects(sink.finish(), isRefused);
    assert.deepEqual(kept.lengths, []);
  }
});

test('a small layer that becomes larger than 32 MiB is streamed, and what was written is freed', async () => {
  const largest = 32 * 1024 * 1024;
  const whole = gzipSync(Buffer.alloc(largest), { level: 1 });
  const more = gzipSync(Buffer.alloc(largest + 1), { level: 1 });
  for (const [bomb, lengths] of [
    [whole, [largest]],
    [more, [...Array(64).fill(512 * 1024), 1]],
  ] as const) {
    const given: Uint8Array[] = [];
    const seen: number[] = [];
    const write = async (bytes: Uint8Array) => {
      await turn();
      given.push(bytes);
      seen.push(bytes.length);
    };
    const sink = createUncompressingSink({ write }, bomb.length);
    await sink.write(bomb);
    await sink.finish();
    assert.deepEqual(seen, lengths);
    if (seen.length > 1) assert.equal(given[0]?.length, 0);
  }
  const behind = Buffer.concat([more, Buffer.from('x')]);
  const sink = createUncompressingSink({ write: async () => {} }, behind.length);
  await sink.write(behind);
  await assert.rejects(sink.finish(), isRefused);
});

test('zstd that asks for more memory than readers have by default says so', async () => {
  // A frame of one empty block: the window is 2 to the power of 10 and these five bits, in bytes.
  const frame = (exponent: number) => Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, (exponent - 10) << 3, 1, 0, 0);
  assert.equal((await uncompress([frame(27)])).length, 0);
  await assert.rejects(
    uncompress([frame(28)]),
    (error) => isRefused(error) && /--long=27/.test(String(asOcicryptError(error).hint)),
  );
});
