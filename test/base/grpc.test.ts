// The encoding of gRPC: what is encoded is decoded again, and nothing else is decoded.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { asOcicryptError } from '../../src/base/errors.ts';
import {
  decodeBytesField,
  decodeStatusMessage,
  encodeBytesField,
  encodeFrame,
  encodeStatusMessage,
  formatTimeout,
  parseTimeout,
} from '../../src/base/grpc.ts';

test('a bytes field of any length comes back as it was', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40_000 }), (value) =>
      assert.deepEqual(Buffer.from(decodeBytesField(encodeBytesField(value))), Buffer.from(value)),
    ),
    { numRuns: 200 },
  );
});

test('any bytes are a message or bad input, and never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (message) => {
      try {
        decodeBytesField(message);
      } catch (error) {
        assert.equal(asOcicryptError(error).code, 'bad-input');
      }
    }),
    { numRuns: 20_000 },
  );
});

test('other fields are skipped, and the last field 1 counts', () => {
  const others = [0x10, 0x96, 0x01, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x2a, 1, 9];
  const message = Uint8Array.from([0x0a, 1, 0x61, ...others, 0x0a, 1, 0x62]);
  assert.deepEqual([...decodeBytesField(message)], [0x62]);
});

test('field 1 of another type, groups, field 0 and endless numbers are refused', () => {
  const refused = [[0x08, 1], [0x0b], [0x0c], [0x02, 0], [0x0a], [0x0a, 2, 1], [...new Array(11).fill(0x80), 0]];
  for (const bytes of refused) assert.throws(() => decodeBytesField(Uint8Array.from(bytes)));
});

test('a frame is five bytes longer than its message', () => {
  assert.deepEqual([...encodeFrame(Uint8Array.from([1, 2, 3]))], [0, 0, 0, 0, 3, 1, 2, 3]);
});

test('a status message of any text comes back, in printable ASCII on the wire', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const encoded = encodeStatusMessage(text);
      assert.match(encoded, /^[ -~]*$/);
      assert.equal(decodeStatusMessage(encoded), text);
    }),
  );
});

test('time-outs are read in every unit, and refused in every other form', () => {
  const units: readonly (readonly [string, number])[] = [
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3000],
    ['4m', 4],
    ['5u', 0.005],
    ['6n', 6e-6],
    ['99999999S', 99_999_999_000],
  ];
  for (const [text, milliseconds] of units) assert.ok(Math.abs((parseTimeout(text) ?? -1) - milliseconds) < 1e-9);
  for (const text of ['', '1', 'S', '1s', '-1S', '1.5S', '123456789S', ' 1S', '1S ']) {
    assert.equal(parseTimeout(text), undefined);
  }
  assert.equal(parseTimeout(formatTimeout(1234.5)), 1235);
});
