// What images hold of memory while they are looked at, and which of them gives way.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { HeldMemory } from '../../src/admission/held-memory.ts';
import type { HttpStreams } from '../../src/base/http/stream.ts';
import { parseJson } from '../../src/base/json.ts';
import { memoryOfJson } from '../../src/base/json-room.ts';

const { signal } = new AbortController();

/** Looks at an image that takes so much, and ends with its signal alone. */
function look(memory: HeldMemory, client: string, bytes: number) {
  const end = new AbortController();
  const looked = memory.during(client, end.signal, async (running) => {
    memory.hold(bytes);
    if (!running.aborted) await once(running, 'abort');
    throw running.reason;
  });
  const state = { code: '', end: () => end.abort(new Error('the end')), looked: looked.catch(() => undefined) };
  looked.catch((error: Error) => {
    state.code = String(Reflect.get(error, 'code') ?? error.message);
  });
  return state;
}

test('the largest image of the namespace with the most gives way, until there is room', async () => {
  const memory = new HeldMemory(100);
  const images = [look(memory, 'a', 40), look(memory, 'a', 20), look(memory, 'b', 39)];
  const codes = async () => {
    await new Promise(setImmediate);
    return images.map(({ code }) => code);
  };
  assert.deepEqual(await codes(), ['', '', '']);
  images.push(look(memory, 'c', 2));
  assert.deepEqual(await codes(), ['throttled', '', '', '']);
  images.push(look(memory, 'c', 60));
  assert.deepEqual(await codes(), ['throttled', '', '', '', 'throttled'], 'the one that asks, if it has the most');
  images[2]?.end();
  await images[2]?.looked;
  images.push(look(memory, 'd', 78));
  assert.deepEqual(await codes(), ['throttled', '', 'the end', '', 'throttled', ''], 'what has ended counts no more');
  for (const { end } of images) end();
});

test('what comes of an answer counts for the image that asked, and for nothing where none did', async () => {
  const memory = new HeldMemory(100);
  async function* body() {
    for (let sent = 0; sent < 20; sent++) yield new Uint8Array(10);
  }
  const streams: HttpStreams = {
    open: async () => ({
      write: async () => undefined,
      answer: async () => ({ status: 200, headers: {}, body: body(), discard: () => undefined }),
      discard: () => undefined,
    }),
    close: () => undefined,
  };
  let read = 0;
  const fetchAll = async () => {
    const exchange = await memory
      .counting(streams)
      .open({ method: 'GET', url: new URL('https://registry.example/'), headers: {}, signal });
    for await (const chunk of (await exchange.answer()).body) read += chunk.length;
  };
  await assert.rejects(memory.during('a', signal, fetchAll), { code: 'throttled' });
  assert.equal(read, 100);
  await fetchAll();
  assert.equal(read, 300);
});

test('no document takes more than is said of it', () => {
  for (const [item, atMost] of [
    ['{"a":1}', 21],
    ['[0]', 7],
    ['0', 3],
    ['"a,b"', 6],
    ['{"a":{},"b":[[]]}', 50],
  ] as const) {
    const document = Buffer.from(`[${Array(1000).fill(item).join(',')}]`);
    const room = { weight: 1_000_000 };
    parseJson(document, 'it', room);
    const weight = memoryOfJson(document) / 60;
    assert.ok(1_000_000 - room.weight <= weight && weight <= 1000 * atMost + 30, `${item}: ${weight}`);
  }
  assert.equal(memoryOfJson(Buffer.alloc(1_000_000, '{')), 200_000 * 60);
});
