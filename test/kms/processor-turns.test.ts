// Turns at the processor: who waits is told of, and everything else goes first. That clients take turns: sharing.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as pause } from 'node:timers/promises';
import { markCall } from '../../src/base/deadline.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { ProcessorTurns } from '../../src/kms/processor-turns.ts';

const NAME = `${'k'.repeat(79)}xyz`;

function computing(compute: () => void | Promise<void>): Kek {
  const unwrap = async () => {
    await compute();
    return new Uint8Array(1);
  };
  return { local: true, costly: true, key: NAME, wrap: () => assert.fail('not asked'), unwrap };
}

const unwrap = (kek: Kek, signal: AbortSignal = new AbortController().signal) =>
  kek.unwrap({ key: NAME, algorithm: 'X25519', wrapped: new Uint8Array(1) }, {}, signal);

test('what was due before a call is done before it computes', async () => {
  const order: string[] = [];
  setImmediate(() => order.push('another call'));
  await unwrap(
    new ProcessorTurns().share(
      computing(() => void order.push('computed')),
      assert.fail,
    ),
  );
  assert.deepEqual(order, ['another call', 'computed']);
});

test('a call that has to wait is told of, once, and refused if its time ends before its turn comes', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let waits = 0;
  const kek = new ProcessorTurns().share(
    computing(() => promise),
    () => waits++,
  );
  const first = unwrap(kek);
  assert.equal(waits, 0);
  const { signal } = new AbortController();
  markCall(signal, 10);
  const refused = await unwrap(kek, signal).catch(asOcicryptError);
  assert.ok(refused instanceof Error);
  assert.deepEqual([refused.code, refused.retryable, waits], ['throttled', true, 1]);
  assert.ok(refused.message.startsWith(`key ${'k'.repeat(79)}x is asked`), refused.message);
  resolve();
  await first;
  await pause();
  await unwrap(kek);
  assert.equal(waits, 1, 'nobody waits if nobody is before');
});
