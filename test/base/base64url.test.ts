import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { base64Length, decodeBase64Url, writeBase64Url } from '../../src/base/bytes.ts';

const ascii = (text: string) => new TextEncoder().encode(text);

test('base64url is what Buffer writes, and is read back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const out = new Uint8Array(base64Length(bytes.length));
      const text = out.subarray(0, writeBase64Url(bytes, out, 0));
      assert.equal(Buffer.from(text).toString(), Buffer.from(bytes).toString('base64url'));
      assert.deepEqual(decodeBase64Url(text), Uint8Array.from(bytes));
    }),
  );
});

test('base64url that another text would also encode, or that is something else, is refused', () => {
  for (const text of ['A', 'AA==', 'AB', 'AAB', '+AAA', '/AAA', 'AA A', 'AAA\n', 'AAAA=', '=', 'AAAAA']) {
    assert.equal(decodeBase64Url(ascii(text)), undefined, text);
  }
});
