// Which name is ours in "Parameters", every branch.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri } from '../../src/base/key-uri.ts';
import { type NameOptions, namedKeys } from '../../src/provider/parameters.ts';
import { isCode } from '../fixtures/codes.ts';

const A = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/a';
const B = 'awskms:///alias/b';
const COMMAND: NameOptions = { configured: undefined, fallback: 'kmscrypt' };
const CONFIGURED: NameOptions = { configured: 'mine', fallback: 'kmscrypt' };

type Values = Readonly<Record<string, readonly string[]>>;

function find(values: Values, names: NameOptions = COMMAND) {
  const parameters = new Map(
    Object.entries(values).map(([name, list]) => [name, list.map((text) => Buffer.from(text))]),
  );
  const { provider, keys } = namedKeys(parameters, names);
  return [provider, keys.map(formatKeyUri)];
}

const isBadInput = isCode('bad-input');

const CASES: readonly (readonly [string, Values, NameOptions, string | undefined, readonly string[]])[] = [
  ['a configured name is ours', { mine: [A], other: [B] }, CONFIGURED, 'mine', [A]],
  ['a configured name beats the reference provider’s', { mine: [A], kmscrypt: [B] }, CONFIGURED, 'mine', [A]],
  ['a configured name that is not there means that no key was named', { kmscrypt: [B] }, CONFIGURED, undefined, []],
  ['the reference provider’s name is ours', { kmscrypt: [A], other: [B] }, COMMAND, 'kmscrypt', [A]],
  ['so it is without a key', { kmscrypt: ['Enabled'], other: [B] }, COMMAND, 'kmscrypt', []],
  [
    'the server has another such name',
    { 'grpc-keyprovider': [A], kmscrypt: [B] },
    { configured: undefined, fallback: 'grpc-keyprovider' },
    'grpc-keyprovider',
    [A],
  ],
  ['the command knows the server’s', { 'grpc-keyprovider': [A], other: [B] }, COMMAND, 'grpc-keyprovider', [A]],
  [
    'and the server the command’s',
    { kmscrypt: [A], other: [B] },
    { configured: undefined, fallback: 'grpc-keyprovider' },
    'kmscrypt',
    [A],
  ],
  ['the sole name that carries key URIs is ours', { anything: [A], other: ['x'] }, COMMAND, 'anything', [A]],
  [
    'one key URI among its values is enough to tell',
    { anything: ['Enabled', A], other: ['x'] },
    COMMAND,
    'anything',
    [A],
  ],
  ['a sole provider is ours without any key', { anything: ['Enabled'] }, COMMAND, 'anything', []],
  [
    'parameters of schemes are not providers',
    { anything: [''], privkeys: ['x'], pubkeys: ['x'], 'gpg-recipients': ['x'] },
    COMMAND,
    'anything',
    [],
  ],
  [
    'the first character after the blank may be in it',
    { anything: ['keyfile:///!'], other: ['x'] },
    COMMAND,
    'anything',
    ['keyfile:///!'],
  ],
  [
    'a scheme that holds a key URI is still no provider',
    { x509s: [A], anything: ['Enabled'] },
    COMMAND,
    'anything',
    [],
  ],
  ['two providers without keys are nobody’s', { one: ['x'], two: ['y'] }, COMMAND, undefined, []],
  ['no parameters', {}, COMMAND, undefined, []],
  [
    'the literal Enabled and an empty value name no key',
    { kmscrypt: ['Enabled', '', 'Enabled'] },
    COMMAND,
    'kmscrypt',
    [],
  ],
  ['several keys stay in order, each once', { kmscrypt: [A, B, A, ''] }, COMMAND, 'kmscrypt', [A, B]],
];
for (const [name, values, names, provider, keys] of CASES) {
  test(name, () => assert.deepEqual(find(values, names), [provider, keys]));
}

test('two names that carry key URIs are an error that names both and the flag', () => {
  assert.throws(
    () => find({ one: [A], two: [B] }),
    (error) =>
      isBadInput(error) &&
      /one, two/.test(String(error)) &&
      error instanceof OcicryptError &&
      error.hint?.includes('names.configured=one') === true,
  );
});

test('a value under our name that is no key URI is refused', () => {
  for (const text of ['enabled', 'x', `${A},${B}`, `${A} `, `${A}\n`, 'é', 'a'.repeat(5000)]) {
    assert.throws(() => find({ kmscrypt: [text] }), isBadInput, text.slice(0, 60));
  }
  assert.throws(() => namedKeys(new Map([['kmscrypt', [undefined]]]), COMMAND), isBadInput);
});

test('the values of others are never looked at, nor shown', () => {
  const secret = '-----BEGIN PRIVATE KEY-----\nsecret';
  assert.deepEqual(find({ kmscrypt: [A], privkeys: [secret] }), ['kmscrypt', [A]]);
  try {
    find({ one: [A, secret], two: [B, secret] });
    assert.fail('it succeeded');
  } catch (error) {
    assert.doesNotMatch(`${String(error)} ${error instanceof OcicryptError ? error.hint : ''}`, /secret/);
  }
});

test('a name of any length makes a short message and a short audit line', () => {
  const name = 'n'.repeat(100_000);
  assert.equal(String(find({ [name]: ['Enabled'] })[0]).length, 64);
  assert.throws(
    () => namedKeys(new Map([[name, [undefined]]]), COMMAND),
    (error) => String(error).length < 300,
  );
});
