// ttrpc on a unix socket: the same calls, statuses and limits as over gRPC, and arrays of numbers for ocicrypt-rs.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { concatBytes } from '../../src/base/bytes.ts';
import { decodeBytesField, decodeNumberField, encodeBytesField } from '../../src/base/grpc.ts';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import type { Kek } from '../../src/kms/kek.ts';
import type { AuditEvent } from '../../src/provider/audit.ts';
import type { CallReport, Method } from '../../src/server/call.ts';
import type { CloseReason } from '../../src/server/connection.ts';
import { CallGate, DEFAULT_SERVER_LIMITS, PAGE_BYTES, PageBudget, type ServerLimits } from '../../src/server/limits.ts';
import { KEY_PROVIDER_SERVICE } from '../../src/server/service.ts';
import { TtrpcConnection } from '../../src/server/ttrpc-connection.ts';
import { type RunningOptions, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

const [REQUEST, RESPONSE, DATA] = [1, 2, 3];
const REMOTE_OPEN = 2;

type FrameOptions = { readonly stream?: number; readonly type?: number; readonly flags?: number };

function frame(message: Uint8Array, { stream = 1, type = REQUEST, flags = 0 }: FrameOptions = {}): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt32BE(message.length, 0);
  head.writeUInt32BE(stream, 4);
  head.set([type, flags], 8);
  return Buffer.concat([head, message]);
}

type CallOptions = {
  readonly service?: string;
  readonly method?: string;
  readonly payload?: Uint8Array;
  /** The number, as a varint. */
  readonly nanoseconds?: readonly number[];
};

function callOf({ service = KEY_PROVIDER_SERVICE, method = 'WrapKey', payload, nanoseconds }: CallOptions = {}) {
  const text = (value: string, field: number) => encodeBytesField(Buffer.from(value), field);
  return concatBytes(
    text(service, 1),
    text(method, 2),
    encodeBytesField(payload ?? encodeBytesField(wrapRequest()), 3),
    new Uint8Array(nanoseconds === undefined ? [] : [0x20, ...nanoseconds]),
  );
}

type Answer = {
  readonly stream: number;
  readonly status: number;
  readonly message: string;
  readonly reply: Uint8Array;
};

/** A client that takes every frame as it comes. */
class Client {
  readonly socket: Socket;
  readonly answers: Answer[] = [];
  #bytes = Buffer.alloc(0);

  constructor(t: TestContext, path: string) {
    this.socket = connect(path).setMaxListeners(100);
    t.after(() => this.socket.destroy());
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= 10 && this.#bytes.length >= 10 + this.#bytes.readUInt32BE(0)) this.#take();
    });
  }

  /** Sends bytes, and waits for so many answers in all. */
  async send(bytes: Uint8Array, answers = this.answers.length + 1): Promise<Answer | undefined> {
    this.socket.write(bytes);
    while (this.answers.length < answers && !this.socket.destroyed)
      await Promise.race([once(this.socket, 'answer'), once(this.socket, 'close')]);
    return this.answers[answers - 1];
  }

  #take(): void {
    const end = 10 + this.#bytes.readUInt32BE(0);
    assert.equal(this.#bytes[8], RESPONSE);
    const response = this.#bytes.subarray(10, end);
    const status = decodeBytesField(response, 1);
    this.answers.push({
      stream: this.#bytes.readUInt32BE(4),
      status: decodeNumberField(status, 1),
      message: new TextDecoder().decode(decodeBytesField(status, 2)),
      reply: decodeBytesField(response, 2),
    });
    this.#bytes = this.#bytes.subarray(end);
    this.socket.emit('answer');
  }
}

/** A server on two sockets: `running.target` for gRPC, and one for ttrpc. */
async function start(t: TestContext, options: RunningOptions = {}) {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 't');
  const running = await startRunning(t, { ...options, listen: [`unix://${directory}/s`, `ttrpc://${path}`] });
  return { running, client: () => new Client(t, path) };
}

const annotationOf = (reply: Uint8Array) =>
  JSON.parse(new TextDecoder().decode(decodeBytesField(reply))).keywrapresults.annotation;

/** What is wrong with a call whose frame is whole, and the status it ends with. */
const FAULTS: readonly (readonly [name: string, message: Uint8Array, options: FrameOptions, status: number])[] = [
  ['an empty message', new Uint8Array(), {}, 12],
  ['an empty request', callOf({ payload: new Uint8Array() }), {}, 3],
  ['an empty object', callOf({ payload: encodeBytesField(Buffer.from('{}')) }), {}, 3],
  ['what is no protobuf', Buffer.from([0x0a, 0xff]), {}, 3],
  ['a method that is a number', Buffer.from([0x10, 0x01]), {}, 3],
  ['a timeout that is text', Buffer.from([0x22, 0x01, 0x61]), {}, 3],
  ['an unknown method', callOf({ method: 'wrapkey' }), {}, 12],
  ['an unknown service', callOf({ service: '__proto__' }), {}, 12],
  ['the other operation', callOf({ method: 'UnWrapKey' }), {}, 3],
  ['a stream', callOf(), { flags: REMOTE_OPEN }, 12],
  ['a time that is over', callOf({ nanoseconds: [1] }), {}, 4],
  ['a time before now', callOf({ nanoseconds: [...Array(9).fill(0xff), 0x01] }), {}, 4],
  ['a request that is too long', callOf({ payload: encodeBytesField(Buffer.alloc(257 * 1024, 0x20)) }), {}, 3],
];

describe('a call of ttrpc', () => {
  test('is answered with arrays of numbers, and leaves its line in the audit log', async (t) => {
    const events: AuditEvent[] = [];
    const { client } = await start(t, { provider: { audit: { record: async (event) => void events.push(event) } } });
    const one = client();
    const wrapped = await one.send(frame(callOf({ nanoseconds: [0x80, 0x94, 0xeb, 0xdc, 0x03] })));
    assert.deepEqual([wrapped?.status, wrapped?.stream], [0, 1], wrapped?.message);
    const annotation = annotationOf(wrapped?.reply ?? new Uint8Array());
    assert.ok(Array.isArray(annotation));
    // As ocicrypt-rs writes it when it unwraps.
    const unwrap = {
      op: 'keyunwrap',
      keywrapparams: {},
      keyunwrapparams: { dc: { Parameters: {} }, annotation: Buffer.from(annotation).toString('base64') },
    };
    const payload = encodeBytesField(Buffer.from(JSON.stringify(unwrap)));
    const unwrapped = await one.send(frame(callOf({ method: 'UnWrapKey', payload }), { stream: 3 }));
    const { optsdata } = JSON.parse(
      new TextDecoder().decode(decodeBytesField(unwrapped?.reply ?? new Uint8Array())),
    ).keyunwrapresults;
    assert.match(Buffer.from(optsdata).toString(), /"symkey"/);
    assert.deepEqual(
      events.map(({ operation, outcome, caller }) => [operation, outcome, /^ttrpc:\/\//.test(String(caller))]),
      [
        ['wrap', 'ok', true],
        ['unwrap', 'ok', true],
      ],
    );
  });

  test('is read however its bytes come, beside others', async (t) => {
    const { client } = await start(t);
    const one = client();
    const two = Buffer.concat([frame(callOf()), frame(callOf(), { stream: 3 }), frame(callOf(), { stream: 7 })]);
    for (const byte of two.subarray(0, 30)) one.socket.write(Buffer.from([byte]));
    await one.send(two.subarray(30), 3);
    assert.deepEqual(one.answers.map(({ stream, status }) => [stream, status]).toSorted(), [
      [1, 0],
      [3, 0],
      [7, 0],
    ]);
  });

  test('ends with a status if it is wrong, and the connection goes on', async (t) => {
    const { client, running } = await start(t);
    const one = client();
    let stream = 1;
    for (const [name, message, options, status] of FAULTS) {
      const answer = await one.send(frame(message, { stream, ...options }));
      assert.deepEqual(
        [answer?.stream, answer?.status, answer?.reply.length],
        [stream, status, 0],
        `${name}: ${answer?.message}`,
      );
      const good = await one.send(frame(callOf(), { stream: stream + 2 }));
      assert.equal(good?.status, 0, `after ${name}`);
      stream += 4;
    }
    assert.match(running.instruments.render(), /calls_total\{method="\S+\/UnWrapKey",status="INVALID_ARGUMENT"\} 1\n/);
    assert.ok(running.said.includes('a call failed'));
  });

  test('of another type, or of a stream that has been used, ends the connection', async (t) => {
    const { client } = await start(t);
    for (const options of [
      { stream: 2 },
      { stream: 1 },
      { type: DATA, stream: 3 },
      { type: RESPONSE, stream: 3 },
      { type: 0, stream: 3 },
    ]) {
      const one = client();
      assert.equal((await one.send(frame(callOf())))?.status, 0);
      assert.equal(await one.send(frame(callOf(), options)), undefined, JSON.stringify(options));
    }
    const long = client();
    const head = frame(new Uint8Array(), { stream: 1 });
    head.writeUInt32BE(0xffffffff);
    assert.equal((await long.send(head))?.status, 3);
    if (!long.socket.destroyed) await once(long.socket, 'close');
    assert.equal((await client().send(frame(callOf())))?.status, 0);
  });

  test('that drips, and one that never ends, are cut off; the time of the server counts, too', async (t) => {
    const limits = { firstRequest: 300, request: 300, call: 200, idle: 60_000 };
    const hanging: Kek = {
      local: false,
      key: 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k',
      wrap: (_plain, _context, signal) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      unwrap: () => Promise.reject(new Error('unused')),
    };
    const rules = [{ kind: 'key', uri: parseKeyUri(hanging.key) }] as const;
    const { client, running } = await start(t, { limits, kek: hanging, provider: { rules } });
    const silent = client();
    const dripping = client();
    assert.equal((await dripping.send(frame(callOf())))?.status, 4);
    dripping.socket.write(frame(callOf(), { stream: 3 }).subarray(0, 40));
    const started = performance.now();
    await Promise.all([silent, dripping].map(({ socket }) => once(socket, 'close')));
    assert.ok(performance.now() - started < 5_000);
    assert.equal((await client().send(frame(callOf())))?.status, 4);
    // A client that leaves: its call ends.
    const leaving = client();
    leaving.socket.write(frame(callOf()));
    leaving.socket.end();
    await once(leaving.socket, 'close');
    assert.match(running.instruments.render(), /connections_closed_total\{reason="slow"\} 2\n/);
  });

  test('finds a server that drains, which ends when the open ones have ended', async (t) => {
    const { client, running } = await start(t);
    const one = client();
    assert.equal((await one.send(frame(callOf())))?.status, 0);
    const drained = running.server.drain();
    if (!one.socket.destroyed) await once(one.socket, 'close');
    await drained;
  });

  test('does not hold memory that others need: half-sent requests give way', async (t) => {
    const { client } = await start(t, { limits: { buffered: 64 * 1024 } });
    const half = Array.from({ length: 12 }, () => client());
    const large = callOf({ payload: encodeBytesField(Buffer.alloc(100 * 1024, 0x20)) });
    for (const { socket } of half) socket.write(frame(large).subarray(0, 20 * 1024));
    const [first] = half;
    if (first !== undefined && !first.socket.destroyed) await once(first.socket, 'close');
    assert.equal((await client().send(frame(callOf())))?.status, 0);
  });
});

/** What {@link withMethod} serves: a call of it, whose payload says by its first byte what to do. */
const METHOD = `/${KEY_PROVIDER_SERVICE}/WrapKey`;
const [AT_ONCE, HELD] = [1, 2];
const callWith = (what: number, length = 1) => callOf({ payload: new Uint8Array(length).fill(what) });

/** One method of the test's own, on connections that nothing sweeps but the test. */
async function withMethod(t: TestContext, method: Method, changed: Partial<ServerLimits> = {}) {
  const limits = { ...DEFAULT_SERVER_LIMITS, ...changed };
  const budget = new PageBudget(limits.buffered);
  const closed: CloseReason[] = [];
  const reports: CallReport[] = [];
  const proved = new Set<Socket>();
  const connections: TtrpcConnection[] = [];
  const holder = {
    options: {
      methods: new Map([[METHOD, method]]),
      maximumMessage: 128 * 1024,
      limits,
      budget,
      gate: new CallGate(limits.active, limits.queue),
      draining: () => false,
      report: (report: CallReport) => void reports.push(report),
      failed: () => {},
      closedBecause: (reason: CloseReason) => void closed.push(reason),
    },
    prove: ({ socket }: TtrpcConnection) => void proved.add(socket),
    rest: () => {},
    forget: () => {},
  };
  const server = createServer((socket) => {
    socket.on('error', () => {});
    connections.push(new TtrpcConnection(socket, { caller: 'test' }, holder));
  });
  const path = join(await temporaryDirectory(t), 't');
  server.listen(path);
  await once(server, 'listening');
  t.after(() => {
    for (const { socket } of connections) socket.destroy();
    server.close();
  });
  const start = async () => {
    const client = new Client(t, path);
    await once(server, 'connection');
    const connection = connections.at(-1);
    assert.ok(connection !== undefined);
    /** Sends bytes, and waits until the server has read them all. */
    const sendOnly = async (bytes: Uint8Array) => {
      const wanted = client.socket.bytesWritten + bytes.length;
      client.socket.write(bytes);
      while (connection.socket.bytesRead < wanted) await once(connection.socket, 'data');
    };
    return { client, connection, sendOnly };
  };
  return { start, budget, closed, reports, proved };
}

/** A method that answers at once, or holds its call until it is told to go on. */
function holding() {
  const go = Promise.withResolvers<void>();
  const method: Method = async (request) => {
    if (request[0] === HELD) await go.promise;
    return new Uint8Array(request);
  };
  return { method, go: go.resolve };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Also with an error, as for bytes that the server has not read. */
const closing = ({ socket }: Client) =>
  new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())));

const shown = ({ answers }: Client) => answers.map(({ stream, status }) => [stream, status]);

describe('a client of ttrpc that misbehaves', () => {
  test('is read no more after a frame that is too long; what is at work ends, and then the connection', async (t) => {
    const { method, go } = holding();
    const { start, budget, closed, reports } = await withMethod(t, method);
    const { client, sendOnly } = await start();
    await sendOnly(frame(callWith(HELD)));
    const held = budget.total;
    const head = frame(new Uint8Array(), { stream: 3 });
    head.writeUInt32BE(0xffffffff);
    assert.equal((await client.send(head))?.stream, 3);
    for (let sent = 0; sent < 3; sent++) await sendOnly(new Uint8Array(200 * 1024));
    await sendOnly(frame(callWith(AT_ONCE), { stream: 5 }));
    assert.deepEqual([budget.total, reports.length, closed, shown(client)], [held, 1, [], [[3, 3]]]);
    go();
    await closing(client);
    assert.deepEqual(shown(client), [
      [3, 3],
      [1, 0],
    ]);
    assert.deepEqual([budget.total, closed], [0, ['nuisance']]);
  });

  test('may send few frames without a useful call between them, and as many useful ones as it likes', async (t) => {
    const { method } = holding();
    const { start, closed, reports } = await withMethod(t, method);
    const useful = await start();
    for (let call = 0; call < 90; call++)
      assert.equal((await useful.client.send(frame(callWith(AT_ONCE), { stream: 2 * call + 1 })))?.status, 0);
    reports.length = 0;
    const { client } = await start();
    const frames = Array.from({ length: 1000 }, (_, call) => frame(callOf({ method: 'x' }), { stream: 2 * call + 1 }));
    client.socket.write(Buffer.concat(frames));
    await closing(client);
    assert.deepEqual(closed, ['nuisance']);
    assert.equal(reports.length, 8 + 2 * DEFAULT_SERVER_LIMITS.streams);
  });

  test('cannot have replies pile up that it does not read', async (t) => {
    const go = Promise.withResolvers<void>();
    const { start, closed } = await withMethod(t, async () => {
      await go.promise;
      return new Uint8Array(512 * 1024);
    });
    const { client, sendOnly } = await start();
    client.socket.pause();
    for (let call = 0; call < 16; call++) await sendOnly(frame(callWith(HELD), { stream: 2 * call + 1 }));
    go.resolve();
    await turn();
    assert.deepEqual(closed, ['unread']);
  });

  test('proves itself by a method that exists, as over HTTP/2', async (t) => {
    const { method } = holding();
    const { start, proved } = await withMethod(t, method);
    const { client } = await start();
    const useless: readonly (readonly [Uint8Array, FrameOptions])[] = [
      [Buffer.from([0x0a, 0xff]), {}],
      [new Uint8Array(), {}],
      [callOf({ method: 'Other' }), {}],
      [callWith(AT_ONCE), { flags: REMOTE_OPEN }],
      [callOf({ nanoseconds: [1] }), {}],
    ];
    for (const [index, [message, options]] of useless.entries())
      assert.notEqual((await client.send(frame(message, { stream: 2 * index + 1, ...options })))?.status, 0);
    assert.equal(proved.size, 0);
    assert.equal((await client.send(frame(callWith(AT_ONCE), { stream: 99 })))?.status, 0);
    assert.equal(proved.size, 1);
  });

  test('loses an unfinished request to others, and nobody a call that is at work', async (t) => {
    const { method, go } = holding();
    const { start, budget, closed } = await withMethod(t, method, { buffered: 4 * PAGE_BYTES });
    const [one, other] = [await start(), await start()];
    await one.sendOnly(frame(callWith(HELD, PAGE_BYTES)));
    const half = frame(callWith(AT_ONCE, 3 * PAGE_BYTES), { stream: 3 });
    await one.sendOnly(half.subarray(0, PAGE_BYTES + 100));
    assert.equal(budget.total, 4 * PAGE_BYTES);
    assert.equal((await other.client.send(frame(callWith(AT_ONCE))))?.status, 0);
    await one.sendOnly(half.subarray(PAGE_BYTES + 100));
    assert.deepEqual([closed, one.client.socket.destroyed], [[], false]);
    // What is left is at work: the next one is refused, and takes nothing away.
    assert.equal((await other.client.send(frame(callWith(AT_ONCE, 3 * PAGE_BYTES), { stream: 3 })))?.status, 8);
    go();
    await closing(one.client);
    assert.deepEqual(shown(one.client), [
      [3, 8],
      [1, 0],
    ]);
    assert.equal(budget.total, 0);
  });

  test('that drips loses no call that is at work', async (t) => {
    const { method, go } = holding();
    const { start, closed } = await withMethod(t, method);
    const { client, connection, sendOnly } = await start();
    await sendOnly(frame(callWith(HELD)));
    await sendOnly(frame(callWith(AT_ONCE), { stream: 3 }).subarray(0, 20));
    connection.sweep(performance.now() + DEFAULT_SERVER_LIMITS.request + 1);
    assert.deepEqual([closed, connection.socket.destroyed], [[], false]);
    go();
    await closing(client);
    assert.deepEqual([shown(client), closed], [[[1, 0]], ['slow']]);
  });
});

test('a method of ttrpc has its request until it ends, however late that is', async (t) => {
  const go = Promise.withResolvers<void>();
  const seen = Promise.withResolvers<Uint8Array>();
  const { start, budget } = await withMethod(
    t,
    async (request) => {
      await go.promise;
      seen.resolve(Uint8Array.from(request));
      return new Uint8Array(1);
    },
    { call: 20 },
  );
  const { client } = await start();
  assert.equal((await client.send(frame(callWith(HELD, 100))))?.status, 4);
  await turn();
  assert.equal(budget.total, PAGE_BYTES);
  go.resolve();
  assert.deepEqual(await seen.promise, new Uint8Array(100).fill(HELD));
  await turn();
  assert.equal(budget.total, 0);
});
