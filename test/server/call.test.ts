// One call: what is wrong with it is a status, and the connection goes on.
import assert from 'node:assert/strict';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { decodeStatusMessage, encodeBytesField, encodeFrame } from '../../src/base/grpc.ts';
import type { AuditEvent } from '../../src/provider/audit.ts';
import { CALL_HEADERS } from './raw-http2.ts';
import { callKeyProvider, type Running, startRunning, unwrapRequest, wrapRequest } from './running.ts';

type Ended = { readonly status: string; readonly message: string; readonly body: Buffer };
type Caller = (
  body: Uint8Array,
  headers?: IncomingHttpHeaders,
  options?: { readonly half?: boolean },
) => Promise<Ended>;

/** Calls on one and the same connection, which must survive them all. */
async function startCaller(t: TestContext, running: Running): Promise<Caller> {
  const session = connectHttp2('http://localhost', {
    createConnection: () => connect(join(running.directory, 's')),
  });
  t.after(() => session.destroy());
  return (body, headers = {}) =>
    new Promise((resolve, reject) => {
      const present = Object.entries({ ...CALL_HEADERS, ...headers }).filter(([, value]) => value !== undefined);
      const stream = session.request(Object.fromEntries(present));
      let ended: IncomingHttpHeaders = {};
      const chunks: Buffer[] = [];
      stream.on('response', (one) => {
        ended = { ...ended, ...one };
      });
      stream.on('trailers', (one) => {
        ended = { ...ended, ...one };
      });
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', reject);
      stream.on('close', () =>
        resolve({
          status: String(ended['grpc-status']),
          message: decodeStatusMessage(String(ended['grpc-message'] ?? '')),
          body: Buffer.concat(chunks),
        }),
      );
      stream.end(body);
    });
}

const good = () => encodeFrame(encodeBytesField(wrapRequest()));
const framed = (message: Uint8Array, flag = 0) => {
  const frame = encodeFrame(message);
  frame[0] = flag;
  return frame;
};

/** What a call is made of, and the status it ends with. */
const FAULTS: readonly (readonly [
  name: string,
  body: () => Uint8Array,
  headers: IncomingHttpHeaders,
  status: string,
])[] = [
  ['an empty object', () => framed(encodeBytesField(Buffer.from('{}'))), {}, '3'],
  ['an empty request', () => framed(encodeBytesField(new Uint8Array())), {}, '3'],
  [
    'an unfinished wrap, which ends the reference server',
    () => framed(encodeBytesField(Buffer.from('{"op":"keywrap"}'))),
    {},
    '3',
  ],
  ['a request that is too long', () => framed(encodeBytesField(Buffer.alloc(257 * 1024, 0x20))), {}, '3'],
  ['a message of a megabyte', () => framed(Buffer.alloc(1024 * 1024)), {}, '3'],
  ['a message that is no protobuf', () => framed(Buffer.from([0x0a, 0xff])), {}, '3'],
  ['no message', () => new Uint8Array(), {}, '12'],
  ["half of a frame's head", () => Buffer.from([0, 0, 0]), {}, '13'],
  ['half of a message', () => good().subarray(0, 40), {}, '13'],
  ['two messages', () => Buffer.concat([good(), good()]), {}, '12'],
  ['a compressed message', () => framed(encodeBytesField(wrapRequest()), 1), { 'grpc-encoding': 'identity' }, '12'],
  ['an encoding', good, { 'grpc-encoding': 'gzip' }, '12'],
  ['an unknown flag', () => framed(encodeBytesField(wrapRequest()), 7), {}, '13'],
  ['an unknown method', good, { ':path': '/keyprovider.KeyProviderService/wrapkey' }, '12'],
  ['a path out of a prototype', good, { ':path': '/__proto__' }, '12'],
  ['another content type', good, { 'content-type': 'application/json' }, '12'],
  ['another content type with the same beginning', good, { 'content-type': 'application/grpcx' }, '12'],
  ['another method of HTTP', good, { ':method': 'PUT' }, '12'],
  ['no te', good, { te: undefined }, '3'],
  ['a malformed deadline', good, { 'grpc-timeout': '10' }, '3'],
  ['a deadline in the past', good, { 'grpc-timeout': '0n' }, '4'],
];

describe('a fault is a status and the connection goes on', () => {
  test('every one of them, one after the other', async (t) => {
    const running = await startRunning(t);
    const call = await startCaller(t, running);
    for (const [name, body, headers, status] of FAULTS) {
      const ended = await call(body(), headers);
      assert.equal(ended.status, status, `${name}: ${ended.status} ${ended.message}`);
      assert.equal(ended.body.length, 0, name);
      assert.equal((await call(good())).status, '0', `after ${name}`);
    }
  });

  test('the status says the code, and what to do', async (t) => {
    const call = await startCaller(t, await startRunning(t));
    const { message } = await call(framed(encodeBytesField(Buffer.from('{}'))));
    assert.equal(message, 'bad-input: the request has no known "op"; known are keywrap and keyunwrap');
  });

  test('content types with a suffix or parameters are gRPC too', async (t) => {
    const call = await startCaller(t, await startRunning(t));
    for (const type of ['application/grpc+proto', 'application/grpc;charset=utf-8']) {
      assert.equal((await call(good(), { 'content-type': type })).status, '0');
    }
  });

  test('each method takes its own operation: what a proxy lets through for one does not do the other', async (t) => {
    const events: AuditEvent[] = [];
    const audit = { record: async (event: AuditEvent) => void events.push(event) };
    const running = await startRunning(t, { provider: { audit } });
    const call = await startCaller(t, running);
    const unwrap = unwrapRequest(await callKeyProvider(running.target, wrapRequest()));
    const requests = { WrapKey: wrapRequest(), UnWrapKey: unwrap };
    const spellings = (op: string) => [`"op":"${op}"`, `"OP":"${op}"`];
    for (const [method, own] of Object.entries(requests)) {
      for (const request of Object.values(requests)) {
        const text = Buffer.from(request).toString();
        const op = /"op":"(\w+)"/.exec(text)?.[1] ?? '';
        for (const spelling of spellings(op)) {
          const body = framed(encodeBytesField(Buffer.from(text.replace(/"op":"\w+"/, spelling))));
          const ended = await call(body, { ':path': `/keyprovider.KeyProviderService/${method}` });
          const [wanted, code] = request === own ? ['0', 'ok'] : ['3', 'bad-input'];
          assert.equal(ended.status, wanted, `${method} ${spelling}: ${ended.message}`);
          assert.equal(ended.body.length > 0, request === own);
          assert.deepEqual([events.at(-1)?.outcome, events.at(-1)?.packet === undefined], [code, code !== 'ok']);
        }
      }
    }
    assert.match(running.instruments.render(), /calls_total\{method="\S+\/WrapKey",status="INVALID_ARGUMENT"\} 2\n/);
  });
});

test('the gRPC of ocicrypt-rs, which reads no base64, is known by its user agent', async (t) => {
  const running = await startRunning(t);
  const call = await startCaller(t, running);
  const packet = (body: Buffer) => JSON.parse(body.subarray(body.indexOf('{')).toString()).keywrapresults.annotation;
  assert.equal(typeof packet((await call(good())).body), 'string');
  assert.ok(Array.isArray(packet((await call(good(), { 'user-agent': 'tonic/0.14.2' })).body)));
});
