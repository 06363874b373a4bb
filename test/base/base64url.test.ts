import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeBase64Url, encodeBase64Url } from '../../src/base/base64url.ts';

const ascii = (text: string) => new TextEncoder().encode(text);

test('base64url is what Buffer writes, and is read back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const text = encodeBase64Url(bytes);
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
