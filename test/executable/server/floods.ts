// What attackers do with connections, in a thread of their own so that the test's callers are not held up by them.
import { once } from 'node:events';
import { connect } from 'node:http2';
import { createConnection } from 'node:net';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { MAXIMUM_REQUEST_BYTES } from '../../../src/provider/protocol.ts';
import {
  CALL_HEADERS,
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  headerBlock,
  messageStart,
  openRaw,
  type RawConnection,
} from '../../server/raw-http2.ts';

const HEADERS = headerBlock(CALL_HEADERS);
const CANCEL = Buffer.from([0, 0, 0, 8]);

const many = (one: Buffer) => Buffer.concat(new Array<Buffer>(200).fill(one));

/** Streams have odd numbers that only grow. */
function streams(make: (stream: number) => readonly Buffer[]): () => Buffer {
  let next = 1;
  return () => {
    const first = next;
    next += 200;
    return Buffer.concat(Array.from({ length: 100 }, (_, index) => Buffer.concat(make(first + 2 * index))));
  };
}

function halfMessages(connection: RawConnection, count: number, sent: number): void {
  for (let stream = 1; stream < 2 * count; stream += 2) {
    const start = frame(FRAME.data, 0, stream, messageStart(200_000, sent));
    connection.send(frame(FRAME.headers, END_HEADERS, stream, HEADERS), start);
  }
}

/** Each by its name. */
export const FLOODS: Readonly<Record<string, (connection: RawConnection) => void>> = {
  'rapid reset': ({ flood }) =>
    flood(
      streams((stream) => [frame(FRAME.headers, END_HEADERS, stream, HEADERS), frame(FRAME.reset, 0, stream, CANCEL)]),
    ),
  'PING frames': ({ flood }) => flood(() => many(frame(FRAME.ping, 0, 0, Buffer.alloc(8)))),
  'SETTINGS frames': ({ flood }) => flood(() => many(frame(FRAME.settings, 0, 0))),
  'PRIORITY frames': ({ flood }) => flood(() => many(frame(FRAME.priority, 0, 3, Buffer.from([0, 0, 0, 0, 15])))),
  'CONTINUATION frames': ({ flood, send }) => {
    send(frame(FRAME.headers, 0, 1, HEADERS));
    flood(() => frame(FRAME.continuation, 0, 1, headerBlock({ 'x-more': 'y'.repeat(4000) })));
  },
  'calls without a body': ({ flood }) =>
    flood(streams((stream) => [frame(FRAME.headers, END_HEADERS | END_STREAM, stream, HEADERS)])),
  garbage: ({ flood }) => flood(() => Buffer.alloc(4096, 0x5a)),
  'nothing at all': () => {},
  'headers byte by byte': ({ socket }) => {
    const bytes = frame(FRAME.headers, END_HEADERS, 1, HEADERS);
    let sent = 0;
    const timer = setInterval(() => socket.write(bytes.subarray(sent, ++sent)), 100);
    socket.once('close', () => clearInterval(timer));
  },
  'one call after the other that drips, after one that was answered': ({ send, socket }) => {
    send(frame(FRAME.headers, END_HEADERS | END_STREAM, 1, HEADERS));
    let stream = 1;
    const timer = setInterval(() => {
      stream += 2;
      const start = frame(FRAME.data, 0, stream, messageStart(1000, 10));
      send(frame(FRAME.headers, END_HEADERS, stream, HEADERS), start);
    }, 400);
    socket.once('close', () => clearInterval(timer));
  },
  'a little of many messages': (connection) => halfMessages(connection, 16, 1000),
  'half of many messages': (connection) => halfMessages(connection, 32, 16_000),
  'replies that nobody reads': ({ flood, socket }) => {
    flood(streams((stream) => [frame(FRAME.headers, END_HEADERS | END_STREAM, stream, HEADERS)]));
    socket.pause();
    // What is not read is not seen to end, either.
    setTimeout(() => socket.resume(), 1000);
  },
};

/** What is sent of a large message on each stream, within the windows that the server grants. */
const LARGE_FLOODS: Readonly<Record<string, Buffer>> = {
  'half of many large messages': messageStart(250_000, 125_000),
  'all but the end of many of the largest messages': messageStart(MAXIMUM_REQUEST_BYTES, MAXIMUM_REQUEST_BYTES - 1),
};
export const LARGE = Object.keys(LARGE_FLOODS);

function openLarge(path: string, start: Buffer): { readonly closed: Promise<number> } {
  const started = performance.now();
  const session = connect('http://localhost', { createConnection: () => createConnection(path) });
  session.on('error', () => {});
  for (let count = 0; count < 32; count++) {
    const stream = session.request(CALL_HEADERS);
    stream.on('error', () => {});
    stream.resume();
    stream.write(start);
  }
  return { closed: once(session, 'close').then(() => performance.now() - started) };
}

type Order = { readonly path: string; readonly flood: string; readonly connections: number; readonly again: boolean };

/** Connections that do one thing to a server, from now on. */
export interface Attack {
  /** When the last of the first connections is closed by the server: the milliseconds until then. */
  readonly closed: Promise<number>;
  stop(): Promise<unknown>;
}

/** Starts it. `again` makes a new connection for each that is closed. */
export function startAttack(order: Order): Attack {
  const worker = new Worker(new URL(import.meta.url), { workerData: { attack: order } });
  const closed = once(worker, 'message').then(([milliseconds]) => Number(milliseconds));
  // Whoever stops it early does not wait for it.
  closed.catch(() => {});
  return { closed, stop: () => worker.terminate() };
}

function openFlood(path: string, flood: string): RawConnection {
  const connection = openRaw(path);
  FLOODS[flood]?.(connection);
  return connection;
}

async function attack({ path, flood, connections, again }: Order): Promise<void> {
  const open = (): Promise<number> => {
    const large = LARGE_FLOODS[flood];
    const connection = large === undefined ? openFlood(path, flood) : openLarge(path, large);
    if (again) void connection.closed.then(() => setTimeout(open, 20));
    return connection.closed;
  };
  const closed = await Promise.all(Array.from({ length: connections }, open));
  parentPort?.postMessage(Math.max(...closed));
}

if (!isMainThread && workerData?.attack !== undefined) await attack(workerData.attack);
