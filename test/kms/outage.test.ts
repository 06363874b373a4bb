// What one call finds out of an outage. Many callers at once: sharing.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { OutageGuard } from '../../src/kms/outage.ts';
import { createTestClock } from '../fixtures/clock.ts';

const down = () => Promise.reject(new OcicryptError('unavailable', 'it is down', { retryable: true }));

function guarded() {
  const clock = createTestClock();
  const guard = new OutageGuard('key', { size: 10, taken: 0 }, clock);
  let waits = 0;
  const run = (call: () => Promise<string>, signal: AbortSignal = new AbortController().signal) =>
    guard.run(signal, { onWait: () => void waits++, ready: async () => {}, call });
  const fail = async (times: number) => {
    for (let time = 0; time < times; time++) await assert.rejects(run(down), { code: 'unavailable' });
  };
  return { clock, run, fail, waits: () => waits };
}

test('five failures in a row are an outage, and an answer between them makes the count begin anew', async () => {
  const { clock, run, fail, waits } = guarded();
  await fail(4);
  assert.equal(await run(async () => 'an answer'), 'an answer');
  await fail(5);
  assert.equal(waits(), 0);
  assert.equal(await clock.settle(run(async () => 'back')), 'back');
  assert.equal(waits(), 1);
});

test('a call whose caller has left says nothing of the service', async () => {
  const { clock, run, fail, waits } = guarded();
  await fail(4);
  const left = new AbortController();
  left.abort();
  await assert.rejects(
    run(async () => {
      throw new Error('ended');
    }, left.signal),
  );
  await fail(1);
  await clock.settle(run(async () => 'back'));
  assert.equal(waits(), 1);
});

test('after the pause a call enters at once, and a failure begins the next pause', async () => {
  const { clock, run, fail, waits } = guarded();
  await fail(5);
  const moments: number[] = [];
  const begun = clock.now();
  for (let time = 0; time < 3; time++) {
    await assert.rejects(
      clock.settle(
        run(() => {
          moments.push(clock.now() - begun);
          return down();
        }),
      ),
    );
  }
  assert.deepEqual(moments, [75, 225, 525]);
  assert.equal(waits(), 3);
  await clock.advance(1000);
  assert.equal(await run(async () => 'back'), 'back');
  assert.equal(waits(), 3);
});
