// What the doctor finds out of a key: each phase that it came to, what failed, and that the probe is wiped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { DEFAULT_LIMITS } from '../../src/provider/attempts.ts';
import { probeKey } from '../../src/provider/probe.ts';

const URI = parseKeyUri('hashivault://k');

/** A key that keeps its probes in sight; `changes` make it another one. */
function keyInSight(changes: Partial<Kek> = {}) {
  const given: Uint8Array[] = [];
  const kek: Kek = {
    local: false,
    key: formatKeyUri(URI),
    async wrap(plaintext) {
      given.push(plaintext);
      assert.equal(plaintext.length, 32, 'as many bytes as a packet wraps');
      return { key: 'hashivault://k', algorithm: 'A', version: '1', wrapped: Uint8Array.from(plaintext) };
    },
    async unwrap({ wrapped }) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const unwrapped = Uint8Array.from(wrapped);
      given.push(unwrapped);
      return unwrapped;
    },
    ...changes,
  };
  const probe = (openKek = async () => kek) => probeKey(URI, { openKek, labels: {}, limits: DEFAULT_LIMITS });
  return { given, probe };
}

test('a sound key has three phases with their times, and its probe is wiped', async () => {
  const { given, probe } = keyInSight();
  const started = performance.now();
  const { phases, failure, ...found } = await probe();
  assert.equal(failure, undefined);
  assert.deepEqual(found, {
    key: 'hashivault://k',
    backend: 'hashivault',
    wrapped: { key: 'hashivault://k', algorithm: 'A', version: '1' },
    wrapsOnly: undefined,
  });
  assert.deepEqual(
    phases.map(({ phase }) => phase),
    ['open', 'wrap', 'unwrap'],
  );
  const [open, wrap, unwrap] = phases.map(({ milliseconds }) => milliseconds);
  assert.ok((unwrap ?? 0) >= 15 && (open ?? 0) + (wrap ?? 0) + (unwrap ?? 0) <= performance.now() - started + 1);
  for (const time of [open, wrap, unwrap]) assert.match(String(time), /^\d+(?:\.\d{1,2})?$/);
  assert.equal(given.length, 2);
  for (const bytes of given) assert.deepEqual(Uint8Array.from(bytes), new Uint8Array(32));
});

test('a phase that fails is the last, and nothing is said of what did not come', async () => {
  const { probe } = keyInSight();
  const closed = await probe(() => Promise.reject(new OcicryptError('not-found', 'no such key')));
  assert.deepEqual([closed.failure?.code, closed.wrapped, closed.phases.length], ['not-found', undefined, 1]);
  const broken = keyInSight({ unwrap: () => Promise.reject(new OcicryptError('refused', 'no')) });
  const refused = await broken.probe();
  assert.deepEqual([refused.failure?.code, refused.wrapped?.algorithm, refused.phases.length], ['refused', 'A', 3]);
});

test('a key that gives back other bytes has failed', async () => {
  const { probe } = keyInSight({ unwrap: async () => new Uint8Array(32) });
  assert.equal((await probe()).failure?.code, 'integrity');
});
