import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError, ERROR_STATUS, OcicryptError } from '../../src/base/errors.ts';
import {
  decodeRequest,
  encodeUnwrapReply,
  encodeWrapReply,
  MAXIMUM_PACKET_BYTES,
  MAXIMUM_REQUEST_BYTES,
} from '../../src/provider/protocol.ts';
import { isCode } from '../fixtures/codes.ts';
import { GOOGLE, OPTSDATA } from '../fixtures/packets.ts';
import { type KeyDirectory, makeKeyDirectory, providerOf } from '../fixtures/provider.ts';
import { unwrapRequest, unwrapText, wrapRequest } from '../fixtures/vectors/shape.ts';

const captured: { optsdata: string; requests: { name: string; request: string }[] } = JSON.parse(
  readFileSync(new URL('../vectors/requests.json', import.meta.url), 'utf8'),
);
const decode = (text: string) => decodeRequest(Buffer.from(text));
const isBadInput = isCode('bad-input');

describe('what real clients send', () => {
  let keys: KeyDirectory;
  before(() => {
    keys = makeKeyDirectory();
  });
  after(() => keys.remove());

  for (const { name, request } of captured.requests) {
    test(`is read and answered: ${name}`, async () => {
      const decoded = decode(request);
      if (decoded.operation === 'wrap') assert.equal(Buffer.from(decoded.record).toString(), captured.optsdata);
      else assert.ok(decoded.annotation.length > 0);
      const setup = { keys: ['first'], allow: [`gcpkms://${GOOGLE.first.name}`] };
      const answer = await providerOf(setup, keys).handle(Buffer.from(request)).catch(asOcicryptError);
      if (answer instanceof OcicryptError) assert.ok(ERROR_STATUS[answer.code].exit !== 70, answer.message);
      else JSON.parse(Buffer.from(answer).toString());
    });
  }
});

test('bytes may be base64, an array of numbers, or for wrapping the JSON text itself', () => {
  const base64 = OPTSDATA.toString('base64');
  const params = (optsdata: unknown) => JSON.stringify({ op: 'keywrap', keywrapparams: { optsdata } });
  for (const text of [params(base64), params([...OPTSDATA]), params(OPTSDATA.toString())]) {
    const request = decode(text);
    assert.ok(request.operation === 'wrap');
    assert.deepEqual(Buffer.from(request.record), OPTSDATA);
  }
  const packet = Buffer.from('{"a":1}');
  for (const annotation of [JSON.stringify(packet.toString('base64')), JSON.stringify([...packet])]) {
    const request = decode(unwrapText(annotation));
    assert.ok(request.operation === 'unwrap');
    assert.deepEqual(Buffer.from(request.annotation), packet);
  }
  assert.throws(() => decode(unwrapText('"{\\"a\\":1}"')), isBadInput, 'an annotation is never raw text');
});

test('a request to the method of the other operation is bad input', () => {
  const wrap = Buffer.from(wrapRequest(['gcpkms://x']));
  assert.equal(decodeRequest(wrap, 'wrap').operation, 'wrap');
  assert.throws(() => decodeRequest(wrap, 'unwrap'), isBadInput);
});

test('bytes in an array are whole numbers from 0 to 255, and a record has at least one', () => {
  const record = (optsdata: unknown) => {
    const request = decode(JSON.stringify({ op: 'keywrap', keywrapparams: { optsdata } }));
    return request.operation === 'wrap' ? [...request.record] : [];
  };
  assert.deepEqual(record([0, 255]), [0, 255]);
  assert.deepEqual(record([7]), [7]);
  assert.deepEqual(record('Bw=='), [7]);
  for (const none of [[256], [-1], [0.5], ['7'], [], ''])
    assert.throws(() => record(none), isBadInput, JSON.stringify(none));
});

test('a Rust client names its keys in arrays of numbers', () => {
  const key = Buffer.from('gcpkms://x');
  const request = decode(
    unwrapRequest('{}').replace('"Parameters":null', `"Parameters":{"kp":[${JSON.stringify([...key])}]}`),
  );
  assert.deepEqual(
    request.parameters.get('kp')?.map((value) => Buffer.from(value ?? []).toString()),
    ['gcpkms://x'],
  );
});

test('member names are taken in any case, values and provider names are not', () => {
  const text = wrapRequest(['a'], OPTSDATA)
    .replace('"op"', '"Op"')
    .replace('keywrapparams', 'KeyWrapParams')
    .replace('"ec"', '"EC"')
    .replace('"Parameters"', '"parameters"')
    .replace('"optsdata"', '"OptsData"');
  const request = decode(text);
  assert.deepEqual([...request.parameters.keys()], ['kmscrypt']);
  assert.deepEqual([...decode(text.replace('kmscrypt', 'KmsCrypt')).parameters.keys()], ['KmsCrypt']);
  assert.throws(() => decode(text.replace('"keywrap"', '"KeyWrap"')), isBadInput);
});

test('values that are not bytes are kept as such, since only our own matter', () => {
  const { parameters } = decode(
    unwrapRequest('{}').replace('"Parameters":null', '"Parameters":{"a":["*",1,null,"YQ=="],"b":null,"c":"YQ=="}'),
  );
  assert.deepEqual(
    parameters.get('a')?.map((value) => value?.length),
    [undefined, undefined, undefined, 1],
  );
  assert.deepEqual([parameters.get('b'), parameters.get('c')], [[], []]);
});

test('P4 a request over the limit is refused before it is parsed, and takes no memory of its size', () => {
  const valid = Buffer.from(unwrapRequest('{}'));
  const large = Buffer.alloc(MAXIMUM_REQUEST_BYTES + 1, 0x20);
  large.set(valid);
  decodeRequest(large.subarray(0, MAXIMUM_REQUEST_BYTES));
  const started = process.memoryUsage();
  for (let count = 0; count < 1000; count++) assert.throws(() => decodeRequest(large), isBadInput);
  const grown = process.memoryUsage().arrayBuffers - started.arrayBuffers;
  assert.ok(grown < 1024 * 1024, `${grown} bytes for 1000 refused requests`);
  // Invalid JSON within an oversized request is not even looked at: the reason is its size.
  assert.throws(
    () => decodeRequest(Buffer.alloc(MAXIMUM_REQUEST_BYTES + 1, 0x7d)),
    (error) => isBadInput(error) && /bytes/.test(String(error)),
  );
  assert.throws(() => decode(unwrapRequest(Buffer.alloc(MAXIMUM_PACKET_BYTES + 1))), isBadInput);
});

test('replies are in base64, or arrays of numbers for Rust clients', () => {
  const bytes = Uint8Array.of(1, 200);
  const text = (reply: Uint8Array) => Buffer.from(reply).toString();
  assert.equal(text(encodeWrapReply(bytes, 'base64')), '{"keywrapresults":{"annotation":"Acg="}}');
  assert.equal(text(encodeUnwrapReply(bytes, 'base64')), '{"keyunwrapresults":{"optsdata":"Acg="}}');
  assert.equal(text(encodeWrapReply(bytes, 'array')), '{"keywrapresults":{"annotation":[1,200]}}');
  assert.equal(text(encodeUnwrapReply(bytes, 'array')), '{"keyunwrapresults":{"optsdata":[1,200]}}');
});
