// Keys of schemes of one's own: opened by the program's code alone, and held to what packets can store.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import type { Kek, WrappedKey } from '../../src/kms/kek.ts';
import { openKek } from '../../src/kms/open.ts';
import { parseAllowRule, selectForPacket } from '../../src/provider/policy.ts';
import { isCode } from '../fixtures/codes.ts';

const KEY = 'x-acme:images/app';
const SIGNAL = new AbortController().signal;

/** What wraps to `made`, in place of what a sound key would make. */
function opening(made: Partial<WrappedKey> = {}, key = KEY) {
  const kek: Kek = {
    key,
    local: false,
    wrap: async (plaintext) => ({ key: KEY, algorithm: 'ACME', wrapped: Uint8Array.from(plaintext), ...made }),
    unwrap: async ({ wrapped }) => wrapped,
  };
  return openKek(parseKeyUri(KEY), { own: { 'x-acme': () => kek } });
}

test('a sound key is passed on as it is', async () => {
  const kek = await opening({ version: 'v1' });
  const wrapped = await kek.wrap(Uint8Array.of(1, 2), {}, SIGNAL);
  assert.deepEqual(wrapped, { key: KEY, algorithm: 'ACME', version: 'v1', wrapped: Uint8Array.of(1, 2) });
  assert.deepEqual(await kek.unwrap(wrapped, {}, SIGNAL), Uint8Array.of(1, 2));
});

test('what no reader of packets would take is never written', async () => {
  const broken: readonly Partial<WrappedKey>[] = [
    { key: 'x-acme:images/other' },
    { key: 'x-other:images/app' },
    { algorithm: '' },
    { algorithm: 'with blank' },
    { algorithm: 'a'.repeat(65) },
    { version: '' },
    { version: 'ü' },
    { wrapped: new Uint8Array(0) },
    { wrapped: new Uint8Array(8193) },
  ];
  for (const made of broken) {
    const kek = await opening(made);
    await assert.rejects(kek.wrap(Uint8Array.of(1), {}, SIGNAL), isCode('internal'), JSON.stringify(made));
  }
  await assert.rejects(opening({}, 'x-acme:images/other'), isCode('internal'));
});

test('a scheme that nothing opens is a fault of the configuration, and says which', async () => {
  for (const own of [undefined, {}, { 'x-other': () => assert.fail('another scheme was opened') }]) {
    await assert.rejects(
      openKek(parseKeyUri(KEY), own === undefined ? {} : { own }),
      (error) => error instanceof OcicryptError && error.code === 'configuration' && error.message.includes('x-acme'),
    );
  }
});

test('policy compares such keys by their text, and knows no prefix of them', () => {
  const rule = parseAllowRule(KEY);
  assert.deepEqual(selectForPacket(rule, parseKeyUri(KEY), undefined, 'exact'), parseKeyUri(KEY));
  for (const other of ['x-acme:images/app2', 'x-acme:images/App', 'x-acme2:images/app', 'x-acme:/images/app']) {
    assert.equal(selectForPacket(rule, parseKeyUri(other), undefined, 'exact'), undefined, other);
  }
  assert.throws(() => parseAllowRule('x-acme:images/*'), isCode('configuration'));
});
