// Queues in which clients take turns, with a clock of their own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { markCall, withDeadline } from '../../src/base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { FairQueue } from '../../src/base/fair-queue.ts';
import { Turns } from '../../src/base/turns.ts';
import { createTestClock } from '../fixtures/clock.ts';

const refusal = () => new OcicryptError('throttled', 'too many');
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'ok',
    (error) => asOcicryptError(error).code,
  );

function signalOf(client: unknown, milliseconds = 60_000) {
  const controller = new AbortController();
  markCall(controller.signal, milliseconds, client);
  return { signal: controller.signal, leave: () => controller.abort(new OcicryptError('deadline-exceeded', 'left')) };
}

test('clients take turns, and each one’s own are served in their order', () => {
  const queue = new FairQueue<string>();
  for (const item of ['a1', 'a2', 'a3', 'b1', 'c1', 'c2']) queue.add(item[0], item);
  assert.deepEqual([queue.ahead('a'), queue.ahead('b'), queue.ahead('new')], [6, 5, 3]);
  const served = Array.from({ length: 7 }, () => queue.next());
  assert.deepEqual(served, ['a1', 'b1', 'c1', 'a2', 'c2', 'a3', undefined]);
  assert.equal(queue.size, 0);
});

test('the last of whoever has most makes room, and never for one that has as many', () => {
  const queue = new FairQueue<string>();
  for (const item of ['a1', 'a2', 'a3', 'b1']) queue.add(item[0], item);
  assert.equal(queue.giveWay('a'), undefined);
  assert.deepEqual([queue.giveWay('b'), queue.giveWay('b'), queue.size], ['a3', undefined, 3]);
  assert.deepEqual([queue.giveWay('new'), queue.giveWay('new')], ['a2', undefined]);
});

test('who leaves or is refused gets no turn', async () => {
  const clock = createTestClock();
  const turns = new Turns(clock);
  const wait = (signal: AbortSignal) => codeOf(turns.wait(signal, { name: 'a turn' }, refusal));
  const [one, two, three] = [signalOf('a'), signalOf('a', 1000), signalOf('b')];
  const ends = [one, two, three].map(({ signal }) => wait(signal));
  one.leave();
  assert.equal(turns.waiting, 2);
  await clock.advance(30_000);
  assert.equal(turns.waiting, 1);
  assert.deepEqual([turns.admit(), turns.admit()], [true, false]);
  assert.deepEqual(await Promise.all(ends), ['deadline-exceeded', 'throttled', 'ok']);
  one.leave();
  assert.equal(await wait(one.signal), 'deadline-exceeded');
});

test('whose call it is and how long it may take is known under every signal that is derived', async () => {
  const { signal } = signalOf('client', 100);
  const turns = new Turns();
  const begun = performance.now();
  const code = await withDeadline(60_000, signal, 'x', (derived) =>
    codeOf(turns.wait(derived, { name: 'a turn' }, refusal)),
  );
  assert.equal(code, 'throttled');
  assert.ok(performance.now() - begun >= 79);
});
