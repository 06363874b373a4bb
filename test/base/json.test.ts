import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../src/base/errors.ts';
import {
  asArray,
  asNumber,
  asObject,
  asText,
  JsonNumber,
  JsonString,
  type JsonValue,
  parseJson,
} from '../../src/base/json.ts';
import { createJsonRoom } from '../../src/base/json-room.ts';
import { type JsonInput, writeJson } from '../../src/base/json-writer.ts';
import { sample, seeded } from '../fixtures/seed.ts';

const parse = (text: string | Uint8Array) => parseJson(typeof text === 'string' ? Buffer.from(text) : text, 'the text');

/** A parsed value as the engine's own parser would have it. */
function plain(value: JsonValue): unknown {
  if (value instanceof JsonString) return value.text();
  if (value instanceof JsonNumber) return asNumber(value);
  const array = asArray(value);
  if (array !== undefined) return array.map(plain);
  const object = asObject(value);
  return object === undefined ? value : new Map([...object].map(([name, member]) => [name, plain(member)]));
}

function engine(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(engine);
  if (typeof value !== 'object' || value === null) return value;
  return new Map(Object.entries(value).map(([name, member]) => [name, engine(member)]));
}

/** How deep a text nests, by the engine. */
function depth(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depth));
}

test(seeded('a document is read as the engine reads it'), () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8, noUnicodeString: false }), (text) => {
      const expected: unknown = JSON.parse(text);
      if (depth(expected) <= 16) assert.deepEqual(plain(parse(text)), engine(expected));
    }),
    sample(500),
  );
});

/** Of documents that are JSON by chance, or nearly. */
const piece = fc.constantFrom(
  '{',
  '}',
  '[',
  ']',
  '"',
  ':',
  ',',
  '\\',
  '\\u00',
  '0',
  '-',
  '1e5',
  'a',
  ' ',
  '\n',
  'true',
  'null',
  '"a":',
  '"b"',
  '\u00e9',
  '\u0001',
);

test(seeded('what is read is JSON for the engine too, whatever the bytes'), () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 16 }), (pieces) => {
      const text = pieces.join('');
      try {
        parse(text);
      } catch (error) {
        assert.ok(error instanceof OcicryptError && error.code === 'bad-input');
        return;
      }
      JSON.parse(text);
    }),
    sample(20_000),
  );
});

test(seeded('a long document is read alike whether its strings are searched or looked through'), () => {
  const outcome = (text: string) => {
    try {
      return plain(parse(text));
    } catch (error) {
      return error instanceof OcicryptError ? error.message.replace(/ \(byte \d+\)$/, '') : error;
    }
  };
  const long = `{"long":"${'a'.repeat(5000)}","short":`;
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
      ),
      (text) => {
        // White space at the end changes nothing but the way in which strings are read.
        assert.deepEqual(outcome(`${long}${text}}`), outcome(`${long}${text}}\n`));
      },
    ),
    sample(2000),
  );
});

test(seeded('what is written is read back, and is what the engine writes'), () => {
  const { value } = fc.letrec<{ value: JsonInput }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.string({ unit: 'binary' }),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('value'), { maxLength: 4 }),
      fc.dictionary(fc.string(), tie('value'), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(value, (input) => {
      const text = Buffer.from(writeJson(input)).toString();
      assert.equal(text, JSON.stringify(input));
      if (depth(input) <= 16) assert.deepEqual(plain(parse(text)), engine(JSON.parse(text)));
    }),
    sample(500),
  );
});

test('bytes are written as base64 or as an array of numbers', () => {
  const bytes = Uint8Array.of(0, 9, 10, 99, 100, 255);
  assert.equal(Buffer.from(writeJson({ bytes })).toString(), `{"bytes":"${Buffer.from(bytes).toString('base64')}"}`);
  assert.equal(Buffer.from(writeJson({ bytes }, 'array')).toString(), '{"bytes":[0,9,10,99,100,255]}');
  assert.equal(Buffer.from(writeJson(new Uint8Array(0), 'array')).toString(), '[]');
  assert.equal(Buffer.from(writeJson({ a: undefined })).toString(), '{}');
});

test('a text is given as bytes without a string in between', () => {
  const document = Buffer.from('"abc"');
  const value = parse(document);
  assert.ok(value instanceof JsonString);
  assert.equal(value.bytes().buffer, document.buffer, 'a view where nothing is escaped');
  for (const [text, expected] of [
    ['"a\\"\\\\\\/\\b\\f\\n\\r\\t"', 'a"\\/\b\f\n\r\t'],
    ['"\\u0041\\ud83d\\ude00"', 'A\u{1f600}'],
    ['"\u00e9"', '\u00e9'],
    ['"\ufeffa"', '\ufeffa'],
  ] as const) {
    const string = parse(text);
    assert.ok(string instanceof JsonString);
    assert.equal(Buffer.from(string.bytes()).toString(), expected);
    assert.equal(asText(string), expected);
  }
});

test('a number is an integer only where it is written as one, and keeps its digits elsewhere', () => {
  for (const [text, integer] of [
    ['0', 0],
    ['-0', 0],
    ['-17', -17],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ] as const) {
    assert.equal(parse(text), integer);
  }
  for (const text of ['2.0', '1e3', '1E+2', '-1.5', '9007199254740993', '12345678901234567890']) {
    const value = parse(text);
    assert.ok(value instanceof JsonNumber, text);
    assert.equal(asNumber(value), Number(text));
    assert.equal(Buffer.from(writeJson([value])).toString(), `[${text}]`);
  }
});

test('no member name reaches a prototype', () => {
  const value = asObject(parse('{"__proto__":{"polluted":1},"constructor":2}'));
  assert.deepEqual([...(value?.keys() ?? [])], ['__proto__', 'constructor']);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
  assert.equal(value?.get('toString'), undefined);
});

test('sixteen levels are read, seventeen are not, and a tower of brackets costs nothing', () => {
  parse(`${'['.repeat(16)}${']'.repeat(16)}`);
  for (const text of [`${'['.repeat(17)}${']'.repeat(17)}`, '['.repeat(250_000), '{"a":'.repeat(50_000)]) {
    assert.throws(() => parse(text), OcicryptError);
  }
});

test('what takes much memory and few bytes is refused, alone and together with others', () => {
  const list = (value: string, count: number) => `[${Array(count).fill(value).join(',')}]`;
  const refused = { code: 'bad-input', message: /more values than are read/ };
  for (const [value, most] of [
    ['""', 198],
    ['0', 198],
    ['[]', 99],
    ['{}', 12],
    ['{"":0}', 11],
    ['{"":0,"a":0}', 9],
  ] as const) {
    // A small room, so that little is read.
    parseJson(Buffer.from(list(value, most)), 'it', { weight: 200 });
    assert.throws(() => parseJson(Buffer.from(list(value, most + 1)), 'it', { weight: 200 }), refused, value);
  }
  const room = createJsonRoom();
  const half = Buffer.from(list('[]', 50_000));
  parseJson(half, 'the first', room);
  assert.throws(() => parseJson(half, 'the second', room), refused);
});

test('an error says where, and nothing of the document', () => {
  assert.throws(
    () => parse('{"op":"secret"x'),
    (error) => error instanceof OcicryptError && error.message.includes('(byte ') && !error.message.includes('secret'),
  );
});

test('half of a surrogate pair is U+FFFD, in a text, in bytes and in a name', () => {
  const value = parse('"\\ud800x"');
  assert.ok(value instanceof JsonString);
  assert.equal(value.text(), '\ufffdx');
  assert.equal(Buffer.from(value.bytes()).toString(), '\ufffdx');
  assert.throws(() => parse('{"\\ud800":1,"\\udc00":2}'), OcicryptError);
});
