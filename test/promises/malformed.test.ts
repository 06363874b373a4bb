// P1 and P2: malformed requests, a sample of what `npm run prove` sends.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { createMalformed, MALFORMED_SETUP, type Outcomes, sendMalformed } from '../fixtures/malformed.ts';
import { type KeyDirectory, makeKeyDirectory, providerOf } from '../fixtures/provider.ts';
import { createRandom, runs, SEED, seeded } from '../fixtures/seed.ts';

describe('P1 malformed requests', () => {
  let keys: KeyDirectory;
  before(() => {
    keys = makeKeyDirectory();
  });
  after(() => keys.remove());

  test(seeded('P1 P2 each ends in exactly one closed class, through the library'), async () => {
    const next = createMalformed(createRandom());
    const provider = providerOf(MALFORMED_SETUP, keys);
    const outcomes: Outcomes = { counts: new Map(), slowest: 0 };
    for (let count = 0; count < runs(20_000); count++) await sendMalformed(provider, next(), outcomes);
    for (const code of outcomes.counts.keys()) assert.ok(code === 'ok' || code in ERROR_STATUS);
    for (const code of ['bad-input', 'not-allowed', 'integrity', 'ok'] as const)
      assert.ok(outcomes.counts.has(code), `none ended as ${code}`);
  });

  test('P1 the same seed makes the same requests', () => {
    const [one, two] = [createMalformed(createRandom(SEED)), createMalformed(createRandom(SEED))];
    for (let count = 0; count < 200; count++) assert.deepEqual(one(), two());
  });
});
