// Raw HTTP/2 frames on a socket, for what no client library would send. RFC 9113 section 4, RFC 7541 section 6.2.2.
import { connect, type Socket } from 'node:net';

export const FRAME = { data: 0, headers: 1, priority: 2, reset: 3, settings: 4, ping: 6, window: 8, continuation: 9 };
export const END_STREAM = 1;
export const END_HEADERS = 4;

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** One frame. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A header block of literals without indexing, so that every call has the same bytes. */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(Object.entries(headers).flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

/** The headers of a call that is in order. */
export const CALL_HEADERS = {
  ':method': 'POST',
  ':scheme': 'http',
  ':path': '/keyprovider.KeyProviderService/WrapKey',
  ':authority': 'localhost',
  'content-type': 'application/grpc',
  te: 'trailers',
} as const;

/** The start of a gRPC message of `length` bytes, of which `sent` follow. */
export function messageStart(length: number, sent: number): Buffer {
  const start = Buffer.alloc(5 + sent, 0x61);
  start.writeUInt8(0, 0);
  start.writeUInt32BE(length, 1);
  return start;
}

/** A connection that has sent the preface; it never fails a test by itself. */
export interface RawConnection {
  readonly socket: Socket;
  /** Frame types and payloads that have come in. */
  readonly received: readonly { readonly type: number; readonly stream: number; readonly payload: Buffer }[];
  /** Milliseconds from the start to the end of the connection. */
  readonly closed: Promise<number>;
  send(...frames: readonly Buffer[]): void;
  /** Sends `make()` again and again, as fast as the other end takes it, until the connection ends. */
  flood(make: () => Buffer): void;
}

/** Connects, with or without the beginning of HTTP/2. */
export function openRaw(path: string, preface = true): RawConnection {
  const socket = connect(path);
  const started = performance.now();
  const received: { type: number; stream: number; payload: Buffer }[] = [];
  let pending = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 9 && pending.length >= 9 + pending.readUIntBE(0, 3)) {
      const end = 9 + pending.readUIntBE(0, 3);
      received.push({ type: pending[3] ?? 0, stream: pending.readUInt32BE(5), payload: pending.subarray(9, end) });
      pending = pending.subarray(end);
    }
  });
  const closed = new Promise<number>((resolve) => socket.once('close', () => resolve(performance.now() - started)));
  if (preface) socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
  return {
    socket,
    received,
    closed,
    send: (...frames) => void socket.write(Buffer.concat(frames)),
    flood(make) {
      const pump = () => {
        // A few at a time: the test's own process must not be the one that is flooded.
        while (!socket.destroyed && socket.write(make()));
        if (!socket.destroyed) socket.once('drain', () => setImmediate(pump));
      };
      pump();
    },
  };
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = [];
  if (bytes.length < 127) length.push(bytes.length);
  else {
    let rest = bytes.length - 127;
    length.push(127);
    for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}
