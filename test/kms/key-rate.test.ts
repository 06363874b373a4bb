// The rate of one key by itself: when its calls come, and by how many timers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../src/base/clock.ts';
import { markCall } from '../../src/base/deadline.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import { KeyRateLimit } from '../../src/kms/key-rate.ts';
import { createTestClock } from '../fixtures/clock.ts';

test('one timer at a time serves all that wait, each at the moment of its token', async () => {
  const clock = createTestClock();
  const begin = clock.now();
  let timers = 0;
  const counting: Clock = {
    ...clock,
    after(milliseconds, run) {
      timers++;
      return clock.after(milliseconds, run);
    },
  };
  const limit = new KeyRateLimit('key', { perSecond: 1, burst: 2 }, counting);
  const moments: number[] = [];
  const take = async () => {
    await limit.take(new AbortController().signal, () => {});
    moments.push(clock.now() - begin);
  };
  const taken = Promise.all(Array.from({ length: 6 }, take));
  assert.equal(timers, 1);
  await clock.settle(taken);
  assert.deepEqual(moments, [0, 0, 1000, 2000, 3000, 4000]);
  assert.equal(timers, 4);
});

test('a call is refused at once if its token comes too late, or later if another client goes between', async () => {
  const clock = createTestClock();
  const begin = clock.now();
  const limit = new KeyRateLimit('key', { perSecond: 0.1, burst: 1 }, clock);
  /** One that has patience for 25 s, and the moment at which it has its token or how long it is told to wait. */
  const take = async (client: string) => {
    const { signal } = new AbortController();
    markCall(signal, 25_000 / 0.8, client);
    return limit
      .take(signal, () => {})
      .then(
        () => `has it after ${clock.now() - begin}`,
        (error) => `is to wait ${asOcicryptError(error).retryAfter}`,
      );
  };
  const first = [take('a'), take('a'), take('a'), take('a')];
  assert.equal(await first[3], 'is to wait 30000', 'two wait already');
  const other = take('b');
  assert.deepEqual(await clock.settle(Promise.all([...first, other])), [
    ...['has it after 0', 'has it after 10000', 'is to wait 20000', 'is to wait 30000'],
    'has it after 20000',
  ]);
});
