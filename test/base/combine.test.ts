import assert from 'node:assert/strict';
import { test } from 'node:test';
import { combineErrors } from '../../src/base/combine.ts';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';

const error = (code: ErrorCode, message: string = code) => new OcicryptError(code, message);

test('the code is the one most worth acting on, whatever the order of the failures', () => {
  const order: readonly ErrorCode[] = [
    ...(['throttled', 'unavailable', 'deadline-exceeded', 'unauthenticated', 'refused', 'key-disabled'] as const),
    ...(['configuration', 'not-found', 'not-allowed', 'integrity', 'bad-input'] as const),
  ];
  for (const [index, code] of order.entries()) {
    const failures = order.slice(index).map((one) => error(one));
    for (const some of [failures, failures.toReversed()]) assert.equal(combineErrors(some, 'x').code, code);
  }
});

test('each failure is said once, in the order of their use, and no more than anybody reads', () => {
  const two = combineErrors([error('integrity', 'b'), error('refused', 'a'), error('refused', 'a')], 'none of 3 keys');
  assert.equal(two.message, 'none of 3 keys: refused: a | integrity: b');
  const many = combineErrors(
    Array.from({ length: 64 }, (_, index) => error('refused', `${index}`)),
    'x',
  );
  assert.match(many.message, /refused: 5 \| and 58 more$/);
  const six = combineErrors(
    Array.from({ length: 6 }, (_, index) => error('refused', `${index}`)),
    'x',
  );
  assert.match(six.message, /refused: 5$/);
});

test('no failure is a fault of the program', () => {
  assert.equal(combineErrors([], 'x').code, 'internal');
});

test('a single failure stays as it is', () => {
  const only = error('refused');
  assert.equal(combineErrors([only], 'x'), only);
});
