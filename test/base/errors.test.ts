import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  asOcicryptError,
  describeError,
  ERROR_STATUS,
  type ErrorCode,
  GRPC_STATUS,
  OcicryptError,
  OLDEST_NODE,
  outdatedNode,
} from '../../src/base/errors.ts';
import { sample, seeded } from '../fixtures/seed.ts';

/** The table of docs/errors.md, written again. */
const TABLE: Readonly<Record<ErrorCode, readonly [exit: number, grpc: number]>> = {
  usage: [64, 3],
  'bad-input': [65, 3],
  'not-found': [66, 5],
  unavailable: [69, 14],
  'deadline-exceeded': [69, 4],
  'key-disabled': [69, 9],
  internal: [70, 13],
  'not-written': [74, 14],
  throttled: [75, 8],
  integrity: [76, 15],
  'not-allowed': [77, 7],
  refused: [77, 7],
  unauthenticated: [77, 16],
  configuration: [78, 9],
};

test('a Node that is too old says so, and Bun and every later one do not', () => {
  const { engines } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  assert.equal(engines.node, `>=${OLDEST_NODE}`);
  for (const node of ['18.20.8', '20.20.2', '22.17.9', '']) assert.equal(outdatedNode({ node })?.code, 'configuration');
  for (const node of [OLDEST_NODE, '22.19.0', '24.0.0', '100.1.0']) assert.equal(outdatedNode({ node }), undefined);
  assert.equal(outdatedNode({ node: '20.0.0', bun: '1.4.5' }), undefined);
});

test('P2 every code has the statuses of the table', () => {
  assert.deepEqual(
    Object.fromEntries(Object.entries(ERROR_STATUS).map(([code, { exit, grpc }]) => [code, [exit, grpc]])),
    TABLE,
  );
  const known = new Set<number>(Object.values(GRPC_STATUS));
  for (const { grpc } of Object.values(ERROR_STATUS)) assert.ok(known.has(grpc));
});

test(seeded('an error is one line whatever comes in'), () => {
  const text = fc.string({ unit: 'binary', maxLength: 60 });
  fc.assert(
    fc.property(text, fc.option(text, { nil: undefined }), (message, hint) => {
      const line = describeError(new OcicryptError('integrity', message, hint === undefined ? {} : { hint }));
      assert.match(line, /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u);
      assert.ok(line.startsWith('integrity: '));
    }),
    sample(2000),
  );
});

test('escape sequences, separators and marks of direction never reach a terminal', () => {
  const line = describeError(
    new OcicryptError('bad-input', 'a\u001b[31m\r\n\u0085\u2028\u2029\u202e\u2066\u200f\ufeffb', { hint: 'c\u0000d' }),
  );
  assert.equal(line, 'bad-input: a [31m b; c d');
});

test('an error that is not ours says nothing of its own text', () => {
  const values: readonly unknown[] = [
    new Error('secret'),
    new TypeError('secret'),
    'secret',
    null,
    undefined,
    { message: 'secret' },
    Symbol('secret'),
  ];
  for (const value of values) {
    const error = asOcicryptError(value);
    assert.equal(error.code, 'internal');
    assert.equal(error.cause, value);
    assert.doesNotMatch(describeError(value), /secret/);
  }
});

test('an error of ours stays itself, with advice only where it was given', () => {
  const error = new OcicryptError('throttled', 'too many', { retryable: true, retryAfter: 7, cause: 1 });
  assert.equal(asOcicryptError(error), error);
  assert.deepEqual([error.retryable, error.retryAfter, error.hint, error.cause], [true, 7, undefined, 1]);
  const bare = new OcicryptError('throttled', 'too many');
  assert.deepEqual([bare.retryable, bare.retryAfter, 'cause' in bare], [false, undefined, false]);
});

test('too many open files are called so, whatever was to be opened, however deep the cause lies', () => {
  for (const name of ['EMFILE', 'ENFILE']) {
    const cause = Object.assign(new Error('secret'), { code: name });
    const direct = new OcicryptError('not-found', `cannot open it (${name})`, { cause, hint: 'install it' });
    for (const error of [direct, direct.with({ code: 'configuration', hint: 'log in' }), asOcicryptError(cause)]) {
      assert.equal(error.code, 'unavailable');
      assert.match(describeError(error), new RegExp(`^unavailable: .*\\(${name}\\); too many files are open: raise`));
    }
  }
});
