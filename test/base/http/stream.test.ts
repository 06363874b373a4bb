// Streamed bodies: what is sent is what was there when it was written, and what comes is what was sent, however slowly the
// other side reads.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer as createTlsServer } from 'node:tls';
import { createHttpStreams, type StreamResponse } from '../../../src/base/http/stream.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

const SIZE = 256 * 1024;
const PIECES = 40;
const CONTENT = randomBytes(SIZE * PIECES);
/** One for each connection. */
const ports = new Set<number | undefined>();

let directory: string;
let ca: string;
let identity: { readonly cert: Buffer; readonly key: Buffer };
let server: Server;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'http-stream-'));
  const authority = await createCertificateAuthority(directory);
  ca = authority.certificate;
  const { certificate, privateKey } = await authority.issue('server');
  identity = { cert: readFileSync(certificate), key: readFileSync(privateKey) };
  // Reads in fits and starts, so that the sender's buffers fill.
  server = createServer(identity, async (request, response) => {
    ports.add(request.socket.remotePort);
    if (request.method === 'GET') return void response.end(CONTENT);
    const hash = createHash('sha256');
    let reads = 0;
    for await (const chunk of request) {
      hash.update(chunk);
      if (++reads % 8 === 0) await sleep(2);
    }
    response.end(hash.digest('hex'));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});

after(async () => {
  server.close();
  await rm(directory, { recursive: true, force: true });
});

describe('bytes may be used again as soon as their write has resolved', () => {
  for (const memory of ['shared', 'own'] as const) {
    for (const length of ['announced', 'not announced'] as const) {
      test(`${memory} memory, length ${length}`, async () => {
        const streams = createHttpStreams({ caFiles: [ca], environment: {} });
        const { port } = server.address() as AddressInfo;
        const exchange = await streams.open({
          method: 'PATCH',
          url: new URL(`https://127.0.0.1:${port}/`),
          headers: length === 'announced' ? { 'content-length': `${SIZE * PIECES}` } : {},
          signal: undefined,
        });
        const bytes = new Uint8Array(memory === 'shared' ? new SharedArrayBuffer(SIZE) : new ArrayBuffer(SIZE));
        const hash = createHash('sha256');
        for (let piece = 0; piece < PIECES; piece++) {
          bytes.fill(piece);
          hash.update(bytes);
          await exchange.write(bytes);
          bytes.fill(0xff);
        }
        const answer = await exchange.answer();
        let text = '';
        for await (const chunk of answer.body) text += Buffer.from(chunk).toString();
        streams.close();
        assert.equal(text, hash.digest('hex'));
      });
    }
  }
});

test('a server that answers before it has read gets nothing of what is put into the memory afterwards', async () => {
  let received = Buffer.alloc(0);
  const over = Promise.withResolvers<void>();
  const hasty = createTlsServer(identity, async (socket) => {
    socket.on('error', () => undefined).on('close', () => over.resolve());
    await once(socket, 'data');
    socket.pause();
    socket.write('HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n');
    await sleep(500);
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
    });
    socket.resume();
  });
  hasty.listen(0, '127.0.0.1');
  await once(hasty, 'listening');
  const streams = createHttpStreams({ caFiles: [ca], environment: {} });
  const exchange = await streams.open({
    method: 'PATCH',
    url: new URL(`https://127.0.0.1:${(hasty.address() as AddressInfo).port}/`),
    headers: { 'content-length': `${64 * SIZE * PIECES}` },
    signal: undefined,
  });
  const bytes = new Uint8Array(new SharedArrayBuffer(SIZE));
  let early: StreamResponse | undefined;
  for (let piece = 0; piece < 64 * PIECES && early === undefined; piece++) {
    bytes.fill(1);
    early = await exchange.write(bytes);
    if (early === undefined) bytes.fill(0xff);
  }
  assert.equal(early?.status, 202);
  bytes.fill(1);
  assert.equal((await exchange.write(bytes))?.status, 202);
  exchange.discard();
  bytes.fill(0xff);
  await over.promise;
  streams.close();
  hasty.close();
  assert.ok(!received.includes(0xff));
});

test('what comes is what was sent, also on a connection that is used again', async () => {
  const streams = createHttpStreams({ caFiles: [ca], environment: {} });
  const { port } = server.address() as AddressInfo;
  const url = new URL(`https://127.0.0.1:${port}/`);
  ports.clear();
  for (let round = 0; round < 3; round++) {
    const exchange = await streams.open({ method: 'GET', url, headers: {}, signal: undefined });
    const hash = createHash('sha256');
    let chunks = 0;
    for await (const chunk of (await exchange.answer()).body) {
      if (++chunks % 8 === 0) await sleep(2);
      hash.update(chunk);
    }
    assert.equal(hash.digest('hex'), createHash('sha256').update(CONTENT).digest('hex'));
  }
  streams.close();
  assert.equal(ports.size, 1);
});

test('a reader that is slow with its last bytes takes nothing from the next answer on that connection', async () => {
  const streams = createHttpStreams({ caFiles: [ca], environment: {} });
  const { port } = server.address() as AddressInfo;
  const url = new URL(`https://127.0.0.1:${port}/`);
  const get = async () => {
    const exchange = await streams.open({ method: 'GET', url, headers: {}, signal: undefined });
    return (await exchange.answer()).body[Symbol.asyncIterator]();
  };
  ports.clear();
  const slow = await get();
  for (let length = 0; length < CONTENT.length; ) length += (await slow.next()).value?.length ?? CONTENT.length;
  // The connection is free by now, although nobody has asked whether more is to come.
  await sleep(20);
  const next = await get();
  const hash = createHash('sha256');
  for (let part = await next.next(); part.done !== true; part = await next.next()) hash.update(part.value);
  assert.equal((await slow.next()).done, true);
  streams.close();
  assert.equal(ports.size, 1);
  assert.equal(hash.digest('hex'), createHash('sha256').update(CONTENT).digest('hex'));
});

test('a body that comes in drips is given up, and one that is read slowly is not', async (t) => {
  const served = createServer(identity, (request, response) => {
    if (request.url === '/whole') return void response.end(CONTENT.subarray(0, 1024 * 1024));
    const drip = setInterval(() => response.write('x'), 20);
    response.on('close', () => clearInterval(drip));
  });
  served.listen(0, '127.0.0.1');
  await once(served, 'listening');
  t.after(() => served.close());
  const streams = createHttpStreams({ caFiles: [ca], environment: {}, idle: 400 });
  t.after(() => streams.close());
  const read = async (path: string, pause: number) => {
    const url = new URL(`https://127.0.0.1:${(served.address() as AddressInfo).port}${path}`);
    const response = await (await streams.open({ method: 'GET', url, headers: {}, signal: undefined })).answer();
    let length = 0;
    let chunks = 0;
    for await (const chunk of response.body) {
      length += chunk.length;
      if (chunks++ < 2) await sleep(pause);
    }
    return length;
  };
  const started = performance.now();
  await assert.rejects(read('/drips', 0), { code: 'deadline-exceeded' });
  assert.ok(performance.now() - started < 4000);
  assert.equal(await read('/whole', 600), 1024 * 1024);
});
