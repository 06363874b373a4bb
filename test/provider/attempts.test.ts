import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDeadline } from '../../src/base/deadline.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { DEFAULT_LIMITS, firstSuccess, type Limits, limitsWithin, withRetries } from '../../src/provider/attempts.ts';
import { createTestClock } from '../fixtures/clock.ts';
import { failureOf } from '../fixtures/codes.ts';

const LIMITS: Limits = { total: 2000, attempt: 100, attempts: 3, stagger: 20 };
const never = () => new Promise<never>(() => {});
const failure = (details: ConstructorParameters<typeof OcicryptError>[2] = {}) =>
  new OcicryptError('unavailable', 'gone', details);
const unending = () => new AbortController().signal;

test('an attempt has a third of the whole, and 3 s where there is room for them', () => {
  assert.deepEqual(DEFAULT_LIMITS, { total: 10_000, attempt: 3333, attempts: 5, stagger: 300 });
  const attempts = [500, 3000, 4000, 9000, 60_000].map((total) => limitsWithin(total).attempt);
  assert.deepEqual(attempts, [500, 3000, 3000, 3000, 20_000]);
});

test('a deadline ends what ignores its signal, names it, and says what to do', async () => {
  let signal: AbortSignal | undefined;
  const error = await failureOf(
    withDeadline(20, undefined, 'key k', (given) => {
      signal = given;
      return never();
    }),
  );
  assert.deepEqual([error.code, error.retryable], ['deadline-exceeded', false]);
  assert.match(error.message, /^key k: /);
  assert.ok(error.hint !== undefined && signal?.aborted);
});

test('a deadline passes results and errors on, and leaves no timer behind', async () => {
  assert.equal(await withDeadline(60_000, undefined, 'x', async () => 1), 1);
  assert.equal(
    (await failureOf(withDeadline(60_000, undefined, 'x', () => Promise.reject(failure())))).code,
    'unavailable',
  );
  const thrown = withDeadline(30, undefined, 'x', () => {
    throw failure();
  });
  assert.equal((await failureOf(thrown)).code, 'unavailable', 'thrown at once');
  // A timer left behind would reject here with nobody to take it, which ends the process.
  await new Promise((resolve) => setTimeout(resolve, 60));
});

test('an outer signal ends it, before or while it runs', async () => {
  const ran = await failureOf(withDeadline(60_000, AbortSignal.abort(), 'x', () => assert.fail('it ran')));
  assert.equal(ran.code, 'deadline-exceeded');
  const controller = new AbortController();
  const work = failureOf(withDeadline(60_000, controller.signal, 'x', never));
  controller.abort(failure());
  assert.equal((await work).code, 'unavailable', 'the reason is kept where it is one of ours');
  const timed = await failureOf(withDeadline(60_000, AbortSignal.timeout(5), () => 'lazily', never));
  assert.match(timed.message, /^lazily: no answer in time/);
});

/** When `error` is tried again by a call of ten seconds, and what it ends with. */
async function patienceFor(error: OcicryptError, limits: Partial<Limits> = {}, random = 1) {
  const clock = createTestClock(random);
  const begun = clock.now();
  const times: number[] = [];
  const run = async () => {
    times.push(clock.now() - begun);
    throw error;
  };
  const ended = await clock.settle(failureOf(withRetries({ ...DEFAULT_LIMITS, ...limits }, unending(), run, clock)));
  return { times, calls: times.length, last: times.at(-1), ended };
}

test('what is unavailable is tried after pauses that grow, until four fifths of the time have passed, and then says so', async () => {
  const { times, ended } = await patienceFor(failure({ retryable: true }));
  assert.deepEqual(times, [0, 100, 300, 700, 1500, 3100, 5100, 7100, 8000]);
  assert.deepEqual([ended.code, ended.message], ['unavailable', 'gone, tried 9 times in 8.0 s']);
  // With less than the shortest pause left none begins.
  for (const [total, last] of [
    [30_000, 24_000],
    [9000, 7200],
    [8990, 7100],
  ] as const)
    assert.equal((await patienceFor(failure({ retryable: true }), { total })).last, last);
});

test('throttling and damaged answers are counted, and an outage between them is not', async () => {
  for (const code of ['throttled', 'integrity'] as const) {
    assert.equal((await patienceFor(new OcicryptError(code, 'no', { retryable: true }))).calls, 5);
  }
  const clock = createTestClock();
  const codes = ['throttled', 'unavailable', 'integrity', 'unavailable', 'throttled'] as const;
  let calls = 0;
  const run = async () => {
    const code = codes[calls++];
    if (code !== undefined) throw new OcicryptError(code, 'no', { retryable: true });
    return 'at last';
  };
  assert.equal(await clock.settle(withRetries(DEFAULT_LIMITS, unending(), run, clock)), 'at last');
});

test('an address at which nothing answers is given three seconds, however long the call may take', async () => {
  for (const total of [10_000, 50_000]) {
    const { last, ended } = await patienceFor(failure({ retryable: true, unreached: true }), { total });
    assert.equal(last, 3000);
    assert.equal(ended.code, 'unavailable');
  }
});

test('only what is retryable is tried again, and nothing at all if there is one attempt', async () => {
  assert.equal((await patienceFor(failure())).calls, 1);
  assert.equal((await patienceFor(failure({ retryable: true }), { attempts: 1 })).calls, 1);
});

test('a service that asks for more time than there is is not waited for', async () => {
  const { calls, ended } = await patienceFor(
    new OcicryptError('throttled', 'later', { retryable: true, retryAfter: 60_000 }),
  );
  assert.deepEqual([calls, ended.code], [1, 'throttled']);
});

test('a service that asks for all the time in which an attempt may begin is given it', async () => {
  const later = (retryAfter: number) =>
    patienceFor(new OcicryptError('throttled', 'later', { retryable: true, retryAfter }), {}, 0);
  // It is given 50 ms more than it asks for.
  assert.deepEqual([(await later(7950)).last, (await later(7950)).calls], [8000, 2]);
  assert.equal((await later(7951)).calls, 1);
});

test('the patience is that of the whole call, whatever of it has passed', async () => {
  const clock = createTestClock();
  await clock.advance(40_000);
  let calls = 0;
  // Of a minute 48 s are for beginning something, and of those 8 are left.
  const work = withDeadline(60_000, undefined, 'x', (signal) =>
    withRetries(
      { ...LIMITS, total: 600_000 },
      signal,
      async () => {
        calls++;
        throw failure({ retryable: true, retryAfter: 20_000 });
      },
      clock,
    ),
  );
  assert.equal((await clock.settle(failureOf(work))).code, 'unavailable');
  assert.equal(calls, 1);
});

test('the first success wins, and the others are ended', async () => {
  const signals: AbortSignal[] = [];
  const hang = (signal: AbortSignal) => {
    signals.push(signal);
    return never();
  };
  assert.equal(await firstSuccess([hang, async () => 'two', hang], 10, unending()), 'two');
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(signals.length, 1, 'the third was never started');
  assert.ok(signals[0]?.aborted);
});

test('attempts start one after the other, or at once when one fails', async () => {
  const started: number[] = [];
  const begin = performance.now();
  const at = (result: () => Promise<string>) => () => {
    started.push(performance.now() - begin);
    return result();
  };
  const second = async () => 'second';
  await firstSuccess([at(never), at(second)], 60, unending());
  const [first = 0, later = 0] = started.splice(0);
  assert.ok(later - first >= 55, `${later - first} ms to the second`);
  // The pause is longer than the test may take.
  await firstSuccess([at(() => Promise.reject(failure())), at(second)], 600_000, unending());
  assert.equal(started.length, 2);
});

test('one that makes way is not waited for, and may still win', async () => {
  const begin = performance.now();
  const patient = (_: AbortSignal, makeWay: () => void) => {
    makeWay();
    makeWay();
    return new Promise<string>((resolve) => setTimeout(() => resolve('patient'), 30));
  };
  let third = 0;
  const won = await firstSuccess(
    [
      patient,
      () => never(),
      () => {
        third = performance.now() - begin;
        return never();
      },
    ],
    10,
    unending(),
  );
  assert.equal(won, 'patient');
  assert.ok(third >= 9, `${third} ms to the third: way was made once`);
});

test('if all fail, or there are none, there is no success, and nothing is waited for any longer', async () => {
  const failing = [20, 12, 4].map((delay) => async () => {
    await new Promise((resolve) => setTimeout(resolve, delay));
    throw failure();
  });
  assert.equal(await firstSuccess(failing, 1, unending()), undefined);
  assert.equal(await firstSuccess([], 600_000, unending()), undefined);
});
