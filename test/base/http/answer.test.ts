// Answers of HTTP/1.1 read from bytes: the same however they are cut, and none that could be read in two ways.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../../src/base/errors.ts';
import { AnswerReader } from '../../../src/base/http/answer.ts';
import type { HttpResponse } from '../../../src/base/http/contract.ts';

const url = new URL('https://service.test/');

type Read = { readonly answer: HttpResponse; readonly reusable: boolean } | { readonly refused: OcicryptError };

/** Reads an answer that comes in parts, and then the end of the connection. */
function read(parts: readonly string[], method = 'POST', maximumBytes = 1000): Read {
  const reader = new AnswerReader(url, { method, maximumBytes });
  try {
    for (const [index, part] of parts.entries()) {
      const answer = reader.push(Buffer.from(part, 'latin1'));
      if (answer === undefined) continue;
      // What comes in later parts meets a connection that is idle.
      return { answer, reusable: reader.isReusable && index === parts.length - 1 };
    }
    return { answer: reader.end(undefined), reusable: reader.isReusable };
  } catch (error) {
    assert.ok(error instanceof OcicryptError, String(error));
    return { refused: error };
  }
}

const ANSWERS: Readonly<Record<string, readonly [text: string, body: string, reusable: boolean, method?: string]>> = {
  'with a length': ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc', 'abc', true],
  'without a reason': ['HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', '', true],
  'in chunks': [
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n',
    'abc0123456789',
    true,
  ],
  'in chunks with trailers': [
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n',
    'a',
    true,
  ],
  'to the end of the connection': ['HTTP/1.1 200 OK\r\n\r\nabc', 'abc', false],
  'of a connection that ends': ['HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\na', 'a', false],
  'of HTTP/1.0': ['HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na', 'a', false],
  'of HTTP/1.0 that stays': ['HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na', 'a', true],
  'after others': [
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na',
    'a',
    true,
  ],
  'to HEAD': ['HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n', '', true, 'HEAD'],
  'without content': ['HTTP/1.1 204 No Content\r\n\r\n', '', true],
  'with more behind it': ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n', 'a', false],
};

describe('an answer', () => {
  for (const [name, [text, body, reusable, method]] of Object.entries(ANSWERS)) {
    test(`${name} is the same however it is cut`, () => {
      const whole = read([text], method);
      assert.ok('answer' in whole, JSON.stringify(whole));
      assert.equal(Buffer.from(whole.answer.body).toString(), body);
      assert.equal(whole.reusable, reusable);
      const cuts = fc.array(fc.nat(text.length), { maxLength: 6 });
      fc.assert(
        fc.property(cuts, (places) => {
          const ends = [...places.toSorted((a, b) => a - b), text.length];
          const parts = ends.map((end, index) => text.slice(ends[index - 1] ?? 0, end)).filter((part) => part !== '');
          const cut = read(parts, method);
          assert.ok('answer' in cut, JSON.stringify(cut));
          assert.deepEqual(cut.answer, whole.answer);
        }),
        { numRuns: 50 },
      );
    });
  }

  test('has its fields by name, in lower case, and repeated ones together', () => {
    const outcome = read([
      'HTTP/1.1 503 No\r\nX-A: 1\r\nx-a:2 \r\n__proto__: p\r\nEmpty:\r\nContent-Length: 0\r\n\r\n',
    ]);
    assert.ok('answer' in outcome);
    const { status, headers } = outcome.answer;
    assert.equal(status, 503);
    assert.deepEqual(Object.entries(headers), [
      ['x-a', '1, 2'],
      ['__proto__', 'p'],
      ['empty', ''],
      ['content-length', '0'],
    ]);
  });
});

const OK = 'HTTP/1.1 200 OK\r\n';

describe('refused is', () => {
  for (const [name, text] of Object.entries({
    'another protocol': 'SSH-2.0-x\r\n',
    'another version': 'HTTP/2.0 200 OK\r\n\r\n',
    'a status of two digits': 'HTTP/1.1 20 OK\r\n\r\n',
    'a switch to another protocol': 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n',
    'a length twice': `${OK}Content-Length: 1\r\nContent-Length: 1\r\n\r\na`,
    'a length with a sign': `${OK}Content-Length: +1\r\n\r\na`,
    'a length that is no number': `${OK}Content-Length: 0x1\r\n\r\na`,
    'an empty length': `${OK}Content-Length:\r\n\r\na`,
    'a length and chunks': `${OK}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n`,
    'another coding': `${OK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    'a line end without CR': `${OK}A: b\nContent-Length: 1\r\n\r\na`,
    'a field that goes on in the next line': `${OK}A: b\r\n c\r\nContent-Length: 1\r\n\r\na`,
    'a blank before the colon': `${OK}Content-Length : 1\r\n\r\na`,
    'a field without a name': `${OK}: 1\r\n\r\na`,
    'a control character in a field': `${OK}A: b\0\r\n\r\na`,
    'a chunk without a size': `${OK}Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n`,
    'a chunk with a sign': `${OK}Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n`,
    'a chunk that is longer than it says': `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n`,
    'a head without an end': `${OK}A: ${'b'.repeat(70_000)}`,
    'a chunk size without an end': `${OK}Transfer-Encoding: chunked\r\n\r\n1;${'b'.repeat(70_000)}`,
    'a body that ends too early': `${OK}Content-Length: 3\r\n\r\nab`,
    'an end before the head': 'HTTP/1.1 100 Continue\r\n\r\n',
  })) {
    test(name, () => {
      for (const parts of [[text], [...text]]) {
        if (parts.length > 1000) continue;
        const outcome = read(parts);
        assert.ok('refused' in outcome, JSON.stringify(outcome));
        assert.deepEqual([outcome.refused.code, outcome.refused.retryable], ['unavailable', true]);
      }
    });
  }

  test('what is longer than permitted, before it comes', () => {
    for (const text of [
      `${OK}Content-Length: 1001\r\n\r\n`,
      `${OK}Transfer-Encoding: chunked\r\n\r\n3e9\r\n`,
      `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n3e8\r\n`,
      `${OK}\r\n${'a'.repeat(1001)}`,
    ]) {
      const outcome = read([text]);
      assert.ok('refused' in outcome, JSON.stringify(outcome));
      assert.deepEqual([outcome.refused.code, outcome.refused.retryable], ['unavailable', false]);
    }
  });

  test('every other answer in words of ours, whatever its bytes are', () => {
    const words = fc.constantFrom(
      'HTTP/1.1 200 OK',
      '\r\n',
      '\r\n\r\n',
      'Content-Length: ',
      'Transfer-Encoding: chunked',
      '1',
      '0',
      'a',
      ':',
      ' ',
      '\0',
      'ÿ',
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 20 }), (parts) => void read(parts)),
      { numRuns: 500 },
    );
  });
});

test('what has been read is wiped: bytes that came, and a body that nobody gets', () => {
  const first = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nsecret');
  const second = Buffer.from(' and more');
  const reader = new AnswerReader(url, { method: 'GET', maximumBytes: 100 });
  reader.push(first);
  reader.push(second);
  reader.discard();
  for (const bytes of [first, second]) assert.ok(bytes.every((byte) => byte === 0));
});
