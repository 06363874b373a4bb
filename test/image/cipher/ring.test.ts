// The ring that threads share: who waits for whom, and what a wait costs.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { createSharedRing, Ring, SLOT_BYTES } from '../../../src/image/cipher/ring.ts';

test('a party waits until the one before has passed the chunk, and no longer', { timeout: 10_000 }, async () => {
  const ring = new Ring(createSharedRing(2));
  let isDone = false;
  const waiting = ring.wait(1, 1).then((hasPassed) => {
    isDone = true;
    return hasPassed;
  });
  ring.pass(1, 0);
  ring.pass(0, 5);
  await turn();
  assert.ok(!isDone);
  ring.pass(1, 1);
  assert.ok(await waiting);
  for (const chunk of [0, 1]) {
    assert.ok(await ring.wait(1, chunk));
    assert.ok(ring.waitSync(1, chunk));
  }
  assert.ok(await ring.waitEmpty(2, 1), 'both slots are empty at first');
  let isEmpty = false;
  const emptied = ring.waitEmpty(2, 2).then(() => {
    isEmpty = true;
  });
  await turn();
  assert.ok(!isEmpty);
  ring.pass(2, 0);
  await emptied;
});

test('a party that stops is waited for no longer, and the next layer begins anew', { timeout: 10_000 }, async () => {
  const ring = new Ring(createSharedRing(2));
  const waiting = ring.wait(1, 0);
  ring.stop(1);
  assert.equal(await waiting, false);
  assert.equal(ring.waitSync(1, 0), false);
  ring.setLength(0, 5);
  ring.stopAll();
  for (let party = 0; party < 5; party++) assert.equal(await ring.wait(party, 0), false);
  assert.equal(ring.chunk(0).length, 5);
  ring.reset();
  ring.pass(0, 0);
  assert.ok(await ring.wait(0, 0));
  assert.equal(ring.chunk(0).length, 0);
});

test('chunks lie in the slots in turn, each with its length', () => {
  const shared = createSharedRing(2);
  const [ring, other] = [new Ring(shared), new Ring(shared)];
  for (const [chunk, length] of [
    [0, 3],
    [1, SLOT_BYTES],
  ] as const) {
    ring.slot(chunk).fill(chunk + 1);
    ring.setLength(chunk, length);
    assert.equal(ring.slot(chunk).length, SLOT_BYTES);
  }
  assert.deepEqual([...other.chunk(2)], [1, 1, 1]);
  assert.ok(other.chunk(3).length === SLOT_BYTES && other.chunk(3).every((byte) => byte === 2));
});

test('a thread that waits sleeps', { timeout: 20_000 }, async () => {
  const shared = createSharedRing(1);
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    const control = new Int32Array(workerData);
    parentPort.on('message', () => {
      setTimeout(() => {
        Atomics.store(control, 0, 1);
        Atomics.notify(control, 0);
      }, 300);
    });
    parentPort.postMessage('ready');`;
  const worker = new Worker(code, { eval: true, workerData: shared.control });
  await once(worker, 'message');
  worker.postMessage('go');
  const before = process.cpuUsage();
  assert.ok(new Ring(shared).waitSync(0, 0));
  const { user, system } = process.cpuUsage(before);
  await worker.terminate();
  assert.ok(user + system < 150_000, `${user + system} µs`);
});
