/**
 * The ground under the fake services: HTTP/1.1 over TLS (or in clear) written byte by byte, so that an answer can be
 * broken at any byte. A service is a function from request to answer; a fault is what happens to one exchange.
 *
 *     const server = await startWireServer(async ({ path }) => ({ status: 200, body: path }), { tls: files });
 *     server.faults.push({ kind: 'truncated' });        // the next exchange
 *     server.setFault(({ count }) => …);                // or whatever the test says about each exchange
 */
import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { CertificateFiles } from '../fixtures/certificates.ts';

export type WireRequest = {
  readonly method: string;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
};

export type WireAnswer = {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
};

export type Fault =
  /** The right answer, late. */
  | { readonly kind: 'latency'; readonly milliseconds: number }
  /** The right answer, once the test says so. */
  | { readonly kind: 'held'; readonly until: Promise<void> }
  /** Another answer than the service's. */
  | ({ readonly kind: 'answer' } & WireAnswer)
  /** The request as it arrives at the service, changed on its way. */
  | { readonly kind: 'request'; readonly change: (body: string) => string }
  /** The service's answer, changed on its way. */
  | { readonly kind: 'body'; readonly change: (body: string) => string }
  /** RST before a byte of the answer, or after its head. */
  | { readonly kind: 'reset-before-headers' | 'reset-after-headers' }
  /** Nothing ever comes, or nothing after the head. */
  | { readonly kind: 'silent' | 'silent-after-headers' }
  /** The connection ends within the body. */
  | { readonly kind: 'truncated' }
  /** A head that announces more or less than there is. */
  | { readonly kind: 'length-too-long' | 'length-too-short' }
  | { readonly kind: 'not-http' };

export interface WireServer {
  /** `https://127.0.0.1:PORT`, or `http:` without TLS. */
  readonly url: string;
  readonly port: number;
  /** Every request so far, as `METHOD PATH`. */
  readonly requests: readonly string[];
  /** How many connections have been opened. */
  readonly connections: number;
  /** How many are open now. */
  readonly openConnections: number;
  /** Faults of the exchanges to come, one each. */
  readonly faults: Fault[];
  /** Decides for every exchange that `faults` does not. */
  setFault(choose: ((request: WireRequest) => Fault | undefined) | undefined): void;
  /** Whether every connection is reset, those that are open and those to come. */
  setReset(reset: boolean): void;
  close(): Promise<void>;
}

export type WireOptions = {
  readonly tls?: CertificateFiles;
  /** The PEM file of an authority: a client must show a certificate that it issued. */
  readonly clientAuthority?: string;
  /** Takes the connections of clients that want HTTP/2. */
  readonly http2?: (socket: Socket) => void;
  readonly host?: string;
  readonly port?: number;
};

export async function startWireServer(
  service: (request: WireRequest) => Promise<WireAnswer> | WireAnswer,
  options: WireOptions = {},
): Promise<WireServer> {
  const faults: Fault[] = [];
  const requests: string[] = [];
  const sockets = new Map<number | undefined, Socket>();
  let connections = 0;
  let isReset = false;
  let choose: ((request: WireRequest) => Fault | undefined) | undefined;

  async function serve(socket: Socket, request: WireRequest): Promise<void> {
    requests.push(`${request.method} ${request.path}`);
    const fault = faults.shift() ?? choose?.(request);
    const changed =
      fault?.kind === 'request' ? { ...request, body: encode(fault.change(decode(request.body))) } : request;
    const answer = fault?.kind === 'answer' ? fault : await service(changed);
    await send(socket, answer, fault, () => sockets.get(socket.remotePort)?.resetAndDestroy());
  }

  function accept(socket: Socket): void {
    let pending: Promise<unknown> = Promise.resolve();
    let received = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (data) => {
      received = Buffer.concat([received, data]);
      for (;;) {
        const parsed = parseRequest(received);
        if (parsed === undefined) return;
        received = received.subarray(parsed.length);
        pending = pending.then(() => serve(socket, parsed.request)).catch(() => socket.destroy());
      }
    });
  }

  const { http2 } = options;
  const server: Server =
    options.tls === undefined
      ? createServer({ noDelay: true }, accept)
      : createTlsServer(
          {
            cert: readFileSync(options.tls.certificate),
            key: readFileSync(options.tls.privateKey),
            ...(options.clientAuthority === undefined
              ? {}
              : { ca: readFileSync(options.clientAuthority), requestCert: true }),
            noDelay: true,
            ...(http2 === undefined ? {} : { ALPNProtocols: ['h2', 'http/1.1'] }),
          },
          (socket) => (socket.alpnProtocol === 'h2' && http2 !== undefined ? http2(socket) : accept(socket)),
        ).on('tlsClientError', () => {});
  server.on('connection', (socket: Socket) => {
    connections++;
    if (isReset) {
      socket.resetAndDestroy();
      return;
    }
    const port = socket.remotePort;
    sockets.set(port, socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(port));
  });
  const host = options.host ?? '127.0.0.1';
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, host, resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://${host}:${port}`,
    port,
    requests,
    faults,
    get connections() {
      return connections;
    },
    get openConnections() {
      return sockets.size;
    },
    setFault(next) {
      choose = next;
    },
    setReset(reset) {
      isReset = reset;
      if (reset) for (const socket of sockets.values()) socket.resetAndDestroy();
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets.values()) socket.destroy();
      await closed;
    },
  };
}

async function send(socket: Socket, answer: WireAnswer, fault: Fault | undefined, reset: () => void): Promise<void> {
  const body = encode(fault?.kind === 'body' ? fault.change(answer.body) : answer.body);
  const head = (length: number) =>
    encode(
      [
        `HTTP/1.1 ${answer.status} ${answer.status < 400 ? 'OK' : 'Error'}`,
        ...Object.entries({ 'Content-Type': 'application/json', ...answer.headers, 'Content-Length': `${length}` }).map(
          ([name, value]) => `${name}: ${value}`,
        ),
        '\r\n',
      ].join('\r\n'),
    );
  switch (fault?.kind) {
    case 'reset-before-headers':
      return reset();
    case 'reset-after-headers':
      socket.write(head(body.length), () => setTimeout(reset, 2));
      return;
    case 'silent':
      return;
    case 'silent-after-headers':
      socket.write(head(body.length));
      return;
    case 'truncated':
      socket.end(Buffer.concat([head(body.length), body.subarray(0, Math.floor(body.length / 2))]));
      return;
    case 'length-too-long':
      socket.end(Buffer.concat([head(body.length + 7), body]));
      return;
    case 'length-too-short':
      socket.end(Buffer.concat([head(Math.max(0, body.length - 7)), body]));
      return;
    case 'not-http':
      socket.end('220 mail.test ESMTP\r\n');
      return;
    case 'latency':
      // Nobody may be waiting any more: that must not keep the process.
      await new Promise((resolve) => setTimeout(resolve, fault.milliseconds).unref());
      break;
    case 'held':
      await fault.until;
      break;
    default:
  }
  socket.write(Buffer.concat([head(body.length), body]));
}

/** The first whole request in `received` and how many bytes it takes. */
function parseRequest(received: Buffer): { readonly request: WireRequest; readonly length: number } | undefined {
  const end = received.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [line = '', ...lines] = received.subarray(0, end).toString('latin1').split('\r\n');
  const [method = '', path = ''] = line.split(' ');
  const headers: Record<string, string> = {};
  for (const text of lines) {
    const colon = text.indexOf(':');
    headers[text.slice(0, colon).toLowerCase()] = text.slice(colon + 1).trim();
  }
  const length = end + 4 + Number(headers['content-length'] ?? 0);
  if (received.length < length) return undefined;
  return { request: { method, path, headers, body: received.subarray(end + 4, length) }, length };
}

function encode(text: string): Buffer {
  return Buffer.from(text, 'utf8');
}

function decode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}
