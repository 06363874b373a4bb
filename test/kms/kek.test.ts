// What all keys share: the lengths that they take, the bytes of a context, the one error, and keys with other calls.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cannotBeUnwrapped, checkPlaintext, contextBytes, decorate, type Kek, oncePerKek } from '../../src/kms/kek.ts';
import { soon } from './expect.ts';

test('a key takes 1 to 4096 bytes, or fewer where it says so', () => {
  for (const [length, maximum, good] of [
    [0, undefined, false],
    [1, undefined, true],
    [4096, undefined, true],
    [4097, undefined, false],
    [0, 190, false],
    [190, 190, true],
    [191, 190, false],
  ] as const) {
    const check = () => checkPlaintext('key k', new Uint8Array(length), maximum);
    if (good) check();
    else assert.throws(check, { code: 'bad-input' }, `${length} bytes`);
  }
});

test('a context is canonical JSON in the order of its names, and nothing where it is empty', () => {
  const text = (context: Readonly<Record<string, string>>) => Buffer.from(contextBytes(context)).toString();
  assert.equal(text({}), '');
  assert.equal(text({ a: '' }), '{"a":""}');
  for (const names of [
    ['b', 'a', 'aa', 'B'],
    ['aa', 'B', 'b', 'a'],
    ['a', 'aa', 'b', 'B'],
  ])
    assert.equal(
      text(Object.fromEntries(names.map((name) => [name, `${name}1`]))),
      '{"B":"B1","a":"a1","aa":"aa1","b":"b1"}',
    );
});

test('what cannot be unwrapped has one text, and its reason', () => {
  const { code, message, reason, hint, retryable } = cannotBeUnwrapped('key k');
  assert.deepEqual(
    [code, message, reason, hint, retryable],
    ['integrity', 'key k: cannot be unwrapped', 'cannot-be-unwrapped', undefined, false],
  );
});

test('a decorated key has the other calls and everything else of the key, and is made once', async () => {
  const closed: string[] = [];
  const kek: Kek = {
    local: true,
    costly: true,
    key: 'k',
    otherKeys: ['l'],
    wrap: async (wrapped) => ({ key: 'k', algorithm: 'NONE', wrapped }),
    unwrap: async ({ wrapped }) => wrapped,
    close: () => void closed.push('k'),
  };
  const answer = Uint8Array.of(9);
  const once = oncePerKek((one: Kek) => decorate(one, { unwrap: async () => answer }));
  const other = once(kek);
  assert.equal(once(kek), other);
  assert.notEqual(once({ ...kek }), other);
  assert.deepEqual([other.local, other.costly, other.key, other.otherKeys], [true, true, 'k', ['l']]);
  const wrapped = await other.wrap(Uint8Array.of(1), {}, soon());
  assert.deepEqual(wrapped.wrapped, Uint8Array.of(1));
  assert.equal(await other.unwrap(wrapped, {}, soon()), answer);
  other.close?.();
  assert.deepEqual(closed, ['k']);
});
