// A thread of the cipher by itself: what it does for a message that is not ours, and for a layer that is given up.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { createSharedRing, Ring } from '../../../src/image/cipher/ring.ts';
import type { StageJob } from '../../../src/image/cipher/stage-job.ts';

const WORKER = new URL('../../../src/image/cipher/worker.ts', import.meta.url);
const JOB: StageJob = { stage: ['digest'], party: 1 };

function startWorker(t: TestContext, secretBytes: number) {
  const shared = createSharedRing(2);
  const secrets = new SharedArrayBuffer(secretBytes);
  const worker = new Worker(WORKER, { workerData: { ring: shared, secrets } });
  t.after(() => worker.terminate());
  return { ring: new Ring(shared), worker };
}

test('a thread that was started by others has nothing to do', { timeout: 20_000 }, async () => {
  const worker = new Worker(WORKER, { workerData: { secrets: undefined } });
  assert.deepEqual(await once(worker, 'exit'), [0]);
});

test('a message that is no job is passed over, and a layer that is given up has no reply', {
  timeout: 20_000,
}, async (t) => {
  const { ring, worker } = startWorker(t, 48);
  const replies: unknown[] = [];
  worker.on('message', (reply) => replies.push(reply));
  worker.postMessage('hello');
  ring.stop(0);
  worker.postMessage(JOB);
  assert.equal(await ring.wait(1, 0), false, 'the party after it is told');
  ring.reset();
  ring.pass(0, 0);
  worker.postMessage(JOB);
  await once(worker, 'message');
  assert.deepEqual(replies, [{ sums: [Uint8Array.from(createHash('sha256').digest())] }]);
  assert.ok(await ring.wait(1, 0));
});

test('a thread that fails tells the party after it', { timeout: 20_000 }, async (t) => {
  const { ring, worker } = startWorker(t, 16);
  const failed = once(worker, 'error');
  const job: StageJob = { stage: ['crypt'], party: 1 };
  worker.postMessage(job);
  await failed;
  assert.equal(await ring.wait(1, 0), false);
});
