import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { base64Text, concatBytes, decodeBase64, encodeBase64, equalBytes, wipe } from '../../src/base/bytes.ts';
import { sample, seeded } from '../fixtures/seed.ts';

const ascii = (text: string) => Buffer.from(text, 'latin1');

test(seeded('base64 is what the engine writes, and reads back'), () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const encoded = encodeBase64(bytes);
      assert.equal(Buffer.from(encoded).toString(), Buffer.from(bytes).toString('base64'));
      assert.equal(base64Text(bytes), Buffer.from(bytes).toString('base64'));
      assert.deepEqual(decodeBase64(encoded), Uint8Array.from(bytes));
    }),
    sample(500),
  );
});

test(seeded('only what would be written is read: no text has two spellings'), () => {
  const character = fc.constantFrom(...'AQgw+/=-_ \n\0é');
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 12 }), (text) => {
      const decoded = decodeBase64(ascii(text));
      if (decoded !== undefined) assert.equal(Buffer.from(encodeBase64(decoded)).toString('latin1'), text);
    }),
    sample(5000),
  );
});

for (const text of [
  'A',
  'AA',
  'AAA',
  'AA=',
  'A===',
  '====',
  '=',
  'AB==',
  'AAB=',
  'AA==AA==',
  'AA=A',
  'AAAA=',
  ' AAAA',
  'AAAA\n',
  'AA-_',
  'ÀAAA',
]) {
  test(`${JSON.stringify(text)} is no base64`, () => {
    assert.equal(decodeBase64(ascii(text)), undefined);
  });
}

test('no bytes are base64 of no bytes', () => {
  assert.deepEqual(decodeBase64(new Uint8Array(0)), new Uint8Array(0));
  assert.deepEqual(encodeBase64(new Uint8Array(0)), new Uint8Array(0));
});

test('arrays are joined, compared and wiped', () => {
  const [one, two] = [Uint8Array.of(1, 2), Uint8Array.of(3)];
  const joined = concatBytes(one, new Uint8Array(0), two);
  assert.deepEqual(joined, Uint8Array.of(1, 2, 3));
  assert.ok(equalBytes(joined, Uint8Array.of(1, 2, 3)));
  assert.ok(!equalBytes(joined, Uint8Array.of(1, 2)) && !equalBytes(joined, Uint8Array.of(1, 2, 4)));
  wipe(one, undefined, joined);
  assert.deepEqual([one, joined], [new Uint8Array(2), new Uint8Array(3)]);
  assert.deepEqual(two, Uint8Array.of(3), 'the others are copies');
});
