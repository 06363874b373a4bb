// What is kept, and for how long.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Kept } from '../../src/admission/kept.ts';

test('what is over goes when something else is kept, not only when it is asked for', () => {
  let now = 0;
  const kept = new Kept<number>(9, () => now);
  kept.set('a', 1, 10);
  kept.set('b', 2, 30);
  now = 20;
  kept.set('c', 3, 10);
  assert.equal(kept.size, 2);
});

test('so many values are kept, each for its time', () => {
  let now = 0;
  const kept = new Kept<number>(2, () => now);
  kept.set('a', 1, 10);
  kept.set('b', 2, 20);
  assert.deepEqual([kept.get('a'), kept.get('b'), kept.get('c')], [1, 2, undefined]);
  now = 10;
  assert.deepEqual([kept.get('a'), kept.get('b')], [undefined, 2]);
  kept.set('c', 3, 10);
  kept.set('d', 4, 10);
  assert.deepEqual([kept.get('b'), kept.get('c'), kept.get('d')], [undefined, 3, 4]);
  kept.set('c', 5, 10);
  kept.set('e', 6, 10);
  assert.deepEqual([kept.get('d'), kept.get('c')], [undefined, 5], 'what is set again is not the oldest');
});
