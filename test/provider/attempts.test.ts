import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDeadline } from '../../src/base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import {
  AllFailed,
  DEFAULT_LIMITS,
  firstSuccess,
  type Limits,
  limitsWithin,
  withRetries,
} from '../../src/provider/attempts.ts';

const LIMITS: Limits = { total: 2000, attempt: 100, attempts: 3, stagger: 20 };
const never = () => new Promise<never>(() => {});
const failure = (details: ConstructorParameters<typeof OcicryptError>[2] = {}) =>
  new OcicryptError('unavailable', 'gone', details);
const caught = (work: Promise<unknown>) => work.then(() => assert.fail('it succeeded'), asOcicryptError);
const unending = () => new AbortController().signal;

test('an attempt has a third of the whole, and 3 s where there is room for them', () => {
  assert.deepEqual(DEFAULT_LIMITS, { total: 10_000, attempt: 3333, attempts: 3, stagger: 300 });
  const attempts = [500, 3000, 4000, 9000, 60_000].map((total) => limitsWithin(total).attempt);
  assert.deepEqual(attempts, [500, 3000, 3000, 3000, 20_000]);
});

test('a deadline ends what ignores its signal, names it, and says what to do', async () => {
  let signal: AbortSignal | undefined;
  const error = await caught(
    withDeadline(20, undefined, 'key k', (given) => {
      signal = given;
      return never();
    }),
  );
  assert.deepEqual([error.code, error.retryable], ['deadline-exceeded', true]);
  assert.match(error.message, /^key k: /);
  assert.ok(error.hint !== undefined && signal?.aborted);
});

test('a deadline passes results and errors on, and leaves no timer behind', async () => {
  assert.equal(await withDeadline(60_000, undefined, 'x', async () => 1), 1);
  assert.equal(
    (await caught(withDeadline(60_000, undefined, 'x', () => Promise.reject(failure())))).code,
    'unavailable',
  );
  const thrown = withDeadline(30, undefined, 'x', () => {
    throw failure();
  });
  assert.equal((await caught(thrown)).code, 'unavailable', 'thrown at once');
  // A timer left behind would reject here with nobody to take it, which ends the process.
  await new Promise((resolve) => setTimeout(resolve, 60));
});

test('an outer signal ends it, before or while it runs', async () => {
  const ran = await caught(withDeadline(60_000, AbortSignal.abort(), 'x', () => assert.fail('it ran')));
  assert.equal(ran.code, 'deadline-exceeded');
  const controller = new AbortController();
  const work = caught(withDeadline(60_000, controller.signal, 'x', never));
  controller.abort(failure());
  assert.equal((await work).code, 'unavailable', 'the reason is kept where it is one of ours');
  const timed = await caught(withDeadline(60_000, AbortSignal.timeout(5), () => 'lazily', never));
  assert.match(timed.message, /^lazily: no answer in time/);
});

test('only what is retryable is tried again, and at most three times', async () => {
  for (const [retryable, expected] of [
    [true, 3],
    [false, 1],
  ] as const) {
    let calls = 0;
    const error = await caught(
      withRetries(LIMITS, unending(), async () => {
        calls++;
        throw failure({ retryable });
      }),
    );
    assert.deepEqual([calls, error.code], [expected, 'unavailable']);
  }
});

test('an error of nobody’s is not tried again', async () => {
  let calls = 0;
  const error = await caught(
    withRetries(LIMITS, unending(), async () => {
      calls++;
      throw new TypeError('fetch failed');
    }),
  );
  assert.deepEqual([calls, error.code], [1, 'internal']);
});

test('a service is left alone as long as it asks, and not asked again where the call ends before', async () => {
  let calls = 0;
  const started = performance.now();
  await withRetries(LIMITS, unending(), async () => {
    if (calls++ === 0) throw failure({ retryable: true, retryAfter: 150 });
  });
  assert.ok(performance.now() - started >= 145);
  calls = 0;
  const error = await caught(
    withRetries(LIMITS, unending(), async () => {
      calls++;
      throw new OcicryptError('throttled', 'later', { retryable: true, retryAfter: 60_000 });
    }),
  );
  assert.deepEqual([calls, error.code], [1, 'throttled']);
});

test('a signal ends the pause between attempts', async () => {
  const controller = new AbortController();
  const work = caught(
    withRetries({ ...LIMITS, total: 60_000 }, controller.signal, () =>
      Promise.reject(failure({ retryable: true, retryAfter: 30_000 })),
    ),
  );
  setTimeout(() => controller.abort(failure()), 10);
  assert.equal((await work).code, 'unavailable');
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
  const slow = () => new Promise<string>((resolve) => setTimeout(() => resolve('slow'), 200));
  await firstSuccess([at(slow), at(() => Promise.reject(failure())), at(slow)], 60, unending());
  const [first = 0, second = 0, third = 0] = started;
  assert.ok(second - first >= 55, `${second - first} ms to the second`);
  assert.ok(third - second < 50, `${third - second} ms to the third, though the second had failed`);
});

test('where all fail, every error is kept in order', async () => {
  const errors = ['unavailable', 'throttled', 'integrity'] as const;
  const work = firstSuccess(
    errors.map((code, index) => async () => {
      await new Promise((resolve) => setTimeout(resolve, 20 - index * 8));
      throw new OcicryptError(code, code);
    }),
    1,
    unending(),
  );
  await assert.rejects(
    work,
    (error) => error instanceof AllFailed && error.errors.map(({ code }) => code).join() === errors.join(),
  );
});
