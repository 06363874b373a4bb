// A gRPC client that costs almost nothing: requests are bytes made once, replies are only counted. RFC 9113.

import { connect, type NetConnectOpts, type Socket } from 'node:net';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const [DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW] = [0, 1, 3, 4, 6, 7, 8];
const [END_STREAM, END_HEADERS, ACK] = [1, 4, 1];

/** The bytes of a call: a gRPC message, and the header block that goes before it. */
export type CallBytes = { readonly headers: Buffer; readonly body: Buffer };

/** The bytes that call `method` with a protobuf message. */
export function callBytes(method: string, message: Uint8Array): CallBytes {
  const headers = { ':method': 'POST', ':scheme': 'http', ':path': method, ':authority': 'localhost' };
  const block = Object.entries({ ...headers, 'content-type': 'application/grpc', te: 'trailers' }).flatMap(
    ([name, value]) => [
      Buffer.from([0, name.length]),
      Buffer.from(name),
      Buffer.from([value.length]),
      Buffer.from(value),
    ],
  );
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return { headers: Buffer.concat(block), body: Buffer.concat([head, message]) };
}

/** Dials, makes one call and closes; resolves to the milliseconds until the reply was there. */
export async function dialCallClose(address: NetConnectOpts, call: CallBytes): Promise<number> {
  const started = performance.now();
  const connection = new Connection(address);
  try {
    await connection.call(call);
    return performance.now() - started;
  } finally {
    connection.close();
  }
}

/** One connection, on which any number of calls may be open. */
export class Connection {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, { readonly resolve: () => void; readonly reject: (error: Error) => void }>();
  #next = 1;
  #pending = Buffer.alloc(0);

  constructor(address: NetConnectOpts) {
    this.#socket = connect(address);
    this.#socket.setNoDelay(true);
    this.#socket.on('data', (chunk) => this.#read(chunk));
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the server closed the connection'));
    });
    const window = Buffer.alloc(4);
    window.writeUInt32BE(0x3fff_0000);
    this.#socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0), frame(WINDOW, 0, 0, window)]));
  }

  call({ headers, body }: CallBytes): Promise<void> {
    const stream = this.#next;
    this.#next += 2;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.set(stream, { resolve, reject });
    this.#socket.write(
      Buffer.concat([frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, END_STREAM, stream, body)]),
    );
    return promise;
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    let buffer = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (buffer.length >= 9) {
      const length = buffer.readUIntBE(0, 3);
      if (buffer.length < 9 + length) break;
      this.#take(buffer[3] ?? 0, buffer[4] ?? 0, buffer.readUInt32BE(5), buffer.subarray(9, 9 + length));
      buffer = buffer.subarray(9 + length);
    }
    this.#pending = Buffer.from(buffer);
  }

  #take(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === SETTINGS && (flags & ACK) === 0) this.#socket.write(frame(SETTINGS, ACK, 0));
    else if (type === PING && (flags & ACK) === 0) this.#socket.write(frame(PING, ACK, 0, payload));
    else if (type === RESET || type === GOAWAY) this.#socket.destroy();
    else if ((type === HEADERS || type === DATA) && (flags & END_STREAM) !== 0) {
      this.#waiting.get(stream)?.resolve();
      this.#waiting.delete(stream);
    }
  }
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, 9);
  return bytes;
}
