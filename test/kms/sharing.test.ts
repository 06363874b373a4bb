// What callers of one key share: its rate, what is known of its service, the processor. Outages and rates run on a clock of
// their own. Identical unwraps, and whole servers: test/server/limits.test.ts, test/executable/server/many.test.ts.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { markCall } from '../../src/base/deadline.ts';
import { asOcicryptError, type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { createKekSharing, type SharingEvent } from '../../src/kms/sharing.ts';
import { DEFAULT_LIMITS, withRetries } from '../../src/provider/attempts.ts';
import { createTestClock, type TestClock } from '../fixtures/clock.ts';

const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k';
const PLENTY = { perSecond: 1e6, burst: 1e6 };

function signalFor(client: unknown, milliseconds = 10_000): AbortSignal {
  const { signal } = new AbortController();
  markCall(signal, milliseconds, client);
  return signal;
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'ok',
    (error) => asOcicryptError(error).code,
  );

/** A service's key, which tells when it is called; it takes 10 ms for an answer, or to fail as `fails` says. */
function service(clock: TestClock, fails: () => ErrorCode | undefined) {
  const begun = clock.now();
  const calls: number[] = [];
  let [active, most] = [0, 0];
  const call = async () => {
    calls.push(clock.now() - begun);
    most = Math.max(most, ++active);
    const code = fails();
    await new Promise<void>((resolve) => clock.after(10, resolve));
    active--;
    if (code !== undefined) throw new OcicryptError(code, `it is ${code}`, { retryable: code === 'unavailable' });
    return { key: KEY, algorithm: 'NONE', wrapped: new Uint8Array(1) };
  };
  const kek: Kek = { local: false, key: KEY, wrap: call, unwrap: async () => (await call()).wrapped };
  return { kek, calls, most: () => most, since: () => clock.now() - begun };
}

const wrap = (kek: Kek, signal: AbortSignal) => kek.wrap(new Uint8Array(1), {}, signal);

describe('the rate of a key', () => {
  test('each call waits for its own moment, and none is lost', async () => {
    const clock = createTestClock();
    const events: SharingEvent[] = [];
    const { kek, calls } = service(clock, () => undefined);
    const share = createKekSharing(
      { rate: { perSecond: 200, burst: 1000 }, waiting: 128 },
      (e) => events.push(e),
      clock,
    );
    let left = 1500;
    const shared = share(kek);
    const caller = async () => {
      while (left-- > 0) await wrap(shared, signalFor('one'));
    };
    await clock.settle(Promise.all(Array.from({ length: 64 }, caller)));
    assert.equal(calls.length, 1500);
    assert.ok((calls.at(-1) ?? 0) >= 2490, `the last after ${calls.at(-1)} ms`);
    assert.ok(!events.includes('limited') && events.includes('waited'));
  });

  test('a call is refused only if its moment is too late for it, and told when to come again', async () => {
    const clock = createTestClock();
    const { kek } = service(clock, () => undefined);
    const shared = createKekSharing({ rate: { perSecond: 1, burst: 2 }, waiting: 128 }, undefined, clock)(kek);
    const ends = Array.from({ length: 12 }, () => wrap(shared, signalFor('one')).catch(asOcicryptError));
    // Two at once, and one more in each of the eight seconds after which nothing is begun.
    const outcomes = await clock.settle(Promise.all(ends));
    const refused = outcomes.filter((one) => one instanceof OcicryptError);
    // The call was marked a moment after the clock was made.
    assert.ok(refused.length >= 1 && refused.length <= 3, `${refused.length} refused`);
    assert.ok(outcomes.slice(-refused.length).every((one) => one instanceof OcicryptError));
    for (const { code, message, retryAfter = 0 } of refused) {
      assert.equal(code, 'throttled');
      assert.ok(message.includes(`for key ${KEY}`), message);
      assert.ok(retryAfter >= 7900 && retryAfter <= 10_000, `${retryAfter} ms`);
    }
  });

  test('keys that are counted as one have one rate together, whenever they were opened', async () => {
    const clock = createTestClock();
    const share = createKekSharing({ rate: { perSecond: 1, burst: 2 }, waiting: 128 }, undefined, clock);
    const calls: number[] = [];
    const call = async (index: number) => {
      const { kek, since } = service(clock, () => undefined);
      await wrap(share({ ...kek, key: `${KEY}${index}` }, 'gcpkms://projects/p/'), signalFor('one'));
      calls.push(since());
    };
    await clock.settle(Promise.all([0, 1, 2, 3].map(call)));
    const many = Array.from({ length: 12 }, (_, index) => call(index).catch(asOcicryptError));
    const refusal = (await clock.settle(Promise.all(many))).at(-1);
    assert.ok(refusal?.message.endsWith('for all keys that one prefix allows'), refusal?.message);
    calls.splice(4);
    assert.deepEqual(
      calls.map((time) => Math.round(time / 100) / 10),
      [0, 0, 1, 2],
    );
  });

  test('a client that floods waits behind itself, and no other client is refused', async () => {
    const clock = createTestClock();
    const { kek, since } = service(clock, () => undefined);
    const shared = createKekSharing({ rate: { perSecond: 10, burst: 10 }, waiting: 128 }, undefined, clock)(kek);
    const flood = Array.from({ length: 200 }, () => codeOf(wrap(shared, signalFor('flood'))));
    const good = Array.from({ length: 18 }, () =>
      codeOf(wrap(shared, signalFor('good'))).then((code) => [code, since()] as const),
    );
    const outcomes = await clock.settle(Promise.all(good));
    assert.deepEqual([...new Set(outcomes.map(([code]) => code))], ['ok']);
    // Every other turn is theirs.
    assert.ok(Math.max(...outcomes.map(([, time]) => time)) < 4000);
    const floods = await clock.settle(Promise.all(flood));
    assert.ok(floods.filter((code) => code === 'ok').length > 50);
  });
});

describe('a service that is down', () => {
  const outage = (clock: TestClock, from: number, until: number) => {
    const begun = clock.now();
    return () => {
      const time = clock.now() - begun;
      return time >= from && time < until ? ('unavailable' as const) : undefined;
    };
  };

  test('is asked by one call at a time, the others wait, and all succeed when it is back', async () => {
    const clock = createTestClock();
    const events: SharingEvent[] = [];
    const { kek, calls, since, most } = service(clock, outage(clock, 0, 5000));
    const shared = createKekSharing({ rate: PLENTY, waiting: 128 }, (event) => events.push(event), clock)(kek);
    const attempt = (signal: AbortSignal) => wrap(shared, signal);
    const callers = Array.from({ length: 64 }, (_, index) => retryOn(clock, signalFor(index), attempt));
    const outcomes = await clock.settle(Promise.all(callers.map(codeOf)));
    assert.deepEqual([...new Set(outcomes)], ['ok']);
    const during = calls.filter((time) => time > 200 && time < 5000).length;
    assert.ok(during >= 8 && during <= 25, `${during} calls while it is down`);
    assert.equal(most(), 64, 'those that found it out');
    assert.ok(since() < 5700, `all served ${since() - 5000} ms after it is back`);
    assert.ok(events.includes('held'));
  });

  test('is given all calls again little by little', async () => {
    const clock = createTestClock();
    const { kek, calls } = service(clock, outage(clock, 0, 2000));
    const shared = createKekSharing({ rate: PLENTY, waiting: 128 }, undefined, clock)(kek);
    const callers = Array.from({ length: 64 }, (_, index) =>
      retryOn(clock, signalFor(index), (signal) => wrap(shared, signal)),
    );
    await clock.settle(Promise.all(callers));
    const after = calls.filter((time) => time >= 2000);
    const first = after[0] ?? 0;
    const byTen = [0, 10, 20, 30].map((from) =>
      after.filter((time) => time - first >= from && time - first < from + 10),
    );
    assert.deepEqual(
      byTen.map(({ length }) => length),
      [1, 2, 4, 8],
    );
  });

  test('and stays down is said by its last failure, before the time is over', async () => {
    const clock = createTestClock();
    const { kek, since, calls } = service(clock, () => 'unavailable');
    const shared = createKekSharing({ rate: PLENTY, waiting: 128 }, undefined, clock)(kek);
    const callers = Array.from({ length: 20 }, (_, index) =>
      retryOn(clock, signalFor(index), (signal) => wrap(shared, signal)).catch(asOcicryptError),
    );
    const errors = await clock.settle(Promise.all(callers));
    for (const error of errors) {
      assert.ok(error instanceof OcicryptError && error.code === 'unavailable');
      assert.match(error.message, /^it is unavailable/);
    }
    assert.ok(since() <= 8800 && calls.length < 80, `${since()} ms, ${calls.length} calls`);
  });

  test('does not take the whole server: calls beyond its room end with its failure at once', async () => {
    const clock = createTestClock();
    const { kek } = service(clock, () => 'unavailable');
    const shared = createKekSharing({ rate: PLENTY, waiting: 10 }, undefined, clock)(kek);
    await clock.settle(Promise.all(Array.from({ length: 5 }, () => codeOf(wrap(shared, signalFor('first'))))));
    const waiting = Array.from({ length: 12 }, () => codeOf(wrap(shared, signalFor('flood'))));
    const good = codeOf(wrap(shared, signalFor('good')));
    await clock.advance(0);
    let ended = 0;
    for (const one of waiting) void one.then(() => ended++);
    await clock.advance(0);
    // Two had no room, and one made room for the other client.
    assert.equal(ended, 3);
    await clock.settle(Promise.all([...waiting, good]));
  });

  test('is one whose refusals are no outage, nor callers that leave or have no time', async () => {
    for (const code of ['refused', 'integrity', 'throttled', 'not-found'] as const) {
      const clock = createTestClock();
      const { kek, calls } = service(clock, () => code);
      const shared = createKekSharing({ rate: PLENTY, waiting: 1 }, undefined, clock)(kek);
      const ends = await clock.settle(
        Promise.all(Array.from({ length: 50 }, () => codeOf(wrap(shared, signalFor(1))))),
      );
      assert.deepEqual([new Set(ends).size, calls.length], [1, 50]);
    }
    let asked = 0;
    const hasty: Kek = {
      local: false,
      key: KEY,
      wrap: async () => {
        asked++;
        throw new OcicryptError('deadline-exceeded', 'not in time', { retryable: true });
      },
      unwrap: () => Promise.reject(new Error('not asked')),
    };
    const shared = createKekSharing({ rate: PLENTY, waiting: 1 })(hasty);
    await Promise.all(Array.from({ length: 50 }, () => codeOf(wrap(shared, signalFor(1)))));
    assert.equal(asked, 50);
  });

  /** As the provider does, on the test's clock. */
  function retryOn<Value>(clock: TestClock, signal: AbortSignal, run: (signal: AbortSignal) => Promise<Value>) {
    return withRetries(DEFAULT_LIMITS, signal, () => run(signal), clock);
  }
});

describe('local keys that cost processor time', () => {
  test('are used by one call at a time, and clients take turns', async () => {
    const order: string[] = [];
    let active = 0;
    const kek = (name: string): Kek => ({
      local: true,
      costly: true,
      key: name,
      wrap: () => Promise.reject(new Error('not asked')),
      unwrap: async ({ key }) => {
        assert.equal(++active, 1);
        await new Promise((resolve) => setImmediate(resolve));
        order.push(key);
        active--;
        return new Uint8Array(1);
      },
    });
    const share = createKekSharing({ rate: PLENTY, waiting: 1 });
    const [one, two] = [share(kek('one')), share(kek('two'))];
    const unwrap = (on: Kek, client: string) =>
      on.unwrap({ key: client, algorithm: 'X25519', wrapped: new Uint8Array(1) }, {}, signalFor(client));
    await Promise.all([
      ...Array.from({ length: 4 }, () => unwrap(one, 'flood')),
      unwrap(two, 'good'),
      unwrap(one, 'good'),
    ]);
    assert.deepEqual(order, ['flood', 'flood', 'good', 'flood', 'good', 'flood']);
  });

  test('leave the rest of a server its time, and what does not cost any is not held up', async () => {
    const share = createKekSharing({ rate: PLENTY, waiting: 1 });
    const cheap: Kek = {
      local: true,
      key: 'k',
      wrap: async () => assert.fail(),
      unwrap: async () => new Uint8Array(1),
    };
    assert.equal(share(cheap), cheap);
  });
});
