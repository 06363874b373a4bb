// The loop that repeats, with a clock of its own: no test here waits.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { retry } from '../../src/base/retry.ts';
import { createTestClock } from '../fixtures/clock.ts';

const PAUSES = { first: 100, longest: 2000 };
const unending = () => new AbortController().signal;
const passing = (details: ConstructorParameters<typeof OcicryptError>[2] = {}) =>
  new OcicryptError('unavailable', 'gone', { retryable: true, hint: 'later', ...details });

/** When each of `count` attempts began, all of which fail with `error`; and the error in the end. */
async function attemptsOf(count: number, error: OcicryptError, random: number) {
  const clock = createTestClock(random);
  const begun = clock.now();
  const times: number[] = [];
  let left = count;
  const run = async () => {
    times.push(clock.now() - begun);
    throw error;
  };
  const rules = {
    pauseAfter: (_: OcicryptError, usual: number) => (--left > 0 ? usual : undefined),
    pauses: PAUSES,
    signal: unending(),
    clock,
  };
  const ended = await clock.settle(retry(run, rules).then(() => assert.fail('it succeeded'), asOcicryptError));
  return { times, ended };
}

test('pauses grow up to the longest, and chance takes up to a half of each', async () => {
  assert.deepEqual((await attemptsOf(8, passing(), 1)).times, [0, 100, 300, 700, 1500, 3100, 5100, 7100]);
  assert.deepEqual((await attemptsOf(4, passing(), 0)).times, [0, 50, 150, 350]);
});

test('a service is left alone for as long as it asks, and its callers do not come back all at once', async () => {
  assert.deepEqual((await attemptsOf(3, passing({ retryAfter: 1000 }), 0)).times, [0, 1050, 2100]);
  assert.deepEqual((await attemptsOf(3, passing({ retryAfter: 1000 }), 1)).times, [0, 1200, 2400]);
});

test('a service that asks for no time at all is not asked without a pause', async () => {
  assert.deepEqual((await attemptsOf(3, passing({ retryAfter: 0 }), 0)).times, [0, 50, 100]);
});

test('the error in the end says how often and how long it was tried, keeps its cause, and is not for another loop', async () => {
  const { ended } = await attemptsOf(4, passing(), 1);
  assert.deepEqual(
    [ended.code, ended.message, ended.hint, ended.retryable],
    ['unavailable', 'gone, tried 4 times in 0.7 s', 'later', false],
  );
  const once = await attemptsOf(1, passing(), 1);
  assert.deepEqual([once.ended.message, once.ended.retryable], ['gone', false]);
});

test('a loop in a loop does not multiply', async () => {
  const clock = createTestClock();
  let calls = 0;
  const nested = (): Promise<unknown> => {
    let left = 3;
    const inner = async () => {
      calls++;
      throw passing();
    };
    return retry(inner, {
      pauseAfter: (_: OcicryptError, usual: number) => (--left > 0 ? usual : undefined),
      pauses: PAUSES,
      signal: unending(),
      clock,
    });
  };
  const outer = retry(nested, {
    pauseAfter: (_: OcicryptError, usual: number) => usual,
    pauses: PAUSES,
    signal: unending(),
    clock,
  });
  await assert.rejects(clock.settle(outer));
  assert.equal(calls, 3);
});

test('what is not retryable, and what nobody knows, is tried once', async () => {
  for (const error of [new OcicryptError('refused', 'no'), new TypeError('fetch failed')]) {
    let calls = 0;
    const run = async () => {
      calls++;
      throw error;
    };
    const rules = { pauseAfter: (_: OcicryptError, usual: number) => usual, pauses: PAUSES, signal: unending() };
    await assert.rejects(retry(run, rules), error);
    assert.equal(calls, 1);
  }
});

test('a signal ends the pause, and no attempt is made after it', async () => {
  const clock = createTestClock();
  const controller = new AbortController();
  let calls = 0;
  const run = async () => {
    calls++;
    throw passing({ retryAfter: 30_000 });
  };
  const rules = {
    pauseAfter: (_: OcicryptError, usual: number) => usual,
    pauses: PAUSES,
    signal: controller.signal,
    clock,
  };
  const work = retry(run, rules).catch(asOcicryptError);
  await clock.advance(10);
  controller.abort();
  assert.ok((await work) instanceof OcicryptError);
  assert.equal(calls, 1);
});
