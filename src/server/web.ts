// Answers requests over HTTP/1.1 on connections that a listener takes: one document in, one out, each within bounds.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { asOcicryptError, describeError } from '../base/errors.ts';
import { type Body, BodyBudget } from './bodies.ts';
import type { Peer } from './call.ts';
import { CallGate } from './limits.ts';
import type { Acceptor } from './listener.ts';
import { Slots } from './slots.ts';

/** A whole request. */
export type WebRequest = {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: Uint8Array;
  /** When its head came, by `performance.now()`. */
  readonly received: number;
  /** Ends the work when the caller has gone. */
  readonly signal: AbortSignal;
};

export type WebReply = { readonly status: number; readonly type: string; readonly body: string };

/**
 * Answers documents that are posted; a path that it does not know is undefined. Whatever it throws is a failure of ours. It
 * reads the body before it waits for anything, because the bytes are not counted from then on.
 */
export type WebHandler = (request: WebRequest) => Promise<WebReply | undefined>;

/** Counts, bytes and milliseconds. */
export type WebLimits = {
  readonly connections: number;
  /** Requests that are worked on at the same time, and that wait for one of those to end. */
  readonly active: number;
  readonly queue: number;
  /** Bytes of one request, and of all together that have not been read yet. */
  readonly body: number;
  readonly buffered: number;
  /** From the start of a connection to the end of its handshake. */
  readonly handshake: number;
  /** From the head of a request to its last byte. */
  readonly request: number;
  /** From there to its answer. */
  readonly call: number;
  /** A connection without a request for so long is closed. */
  readonly idle: number;
};

export type WebOptions = {
  readonly handler: WebHandler;
  readonly limits: WebLimits;
  /** Whether it takes no more work. */
  readonly isDraining: () => boolean;
  /** Told of a handler that has failed. */
  readonly failed: (problem: string) => void;
};

/** What a connection whose last answer was given gets to take its leave. */
const LEAVE_MILLISECONDS = 500;

/** Connections of callers who speak HTTP/1.1. Beside the handler's paths they find `/livez` and `/readyz`. */
export class WebConnections implements Acceptor {
  readonly #options: WebOptions;
  readonly #slots: Slots;
  readonly #gate: CallGate;
  readonly #http: Server;
  readonly #bodies: BodyBudget;

  constructor(options: WebOptions) {
    this.#options = options;
    const { connections, active, queue, buffered } = options.limits;
    this.#slots = new Slots(connections);
    this.#gate = new CallGate(active, queue);
    this.#bodies = new BodyBudget(buffered);
    // The times are kept by the slots.
    this.#http = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 });
    this.#http.on('request', (request, response) => this.#serve(request, response));
    this.#http.on('clientError', (_error, socket) => socket.destroy());
  }

  get connections(): number {
    return this.#slots.size;
  }

  get gate(): Pick<CallGate, 'entered' | 'waiting'> {
    return this.#gate;
  }

  get buffered(): number {
    return this.#bodies.total;
  }

  begin(socket: Socket): void {
    socket.on('error', () => socket.destroy());
    this.#slots.take(socket, this.#options.limits.handshake);
  }

  accept(socket: Socket, _peer: Peer, begun?: Socket): void {
    socket.on('error', () => socket.destroy());
    if (socket.destroyed) return;
    const { limits } = this.#options;
    if (begun === undefined) this.#slots.take(socket, limits.handshake);
    else this.#slots.enter(socket, begun);
    // Clients written in Go open connections that they need only later, and do not ask again if one of those is closed.
    this.#slots.limit(socket, limits.idle, false);
    this.#http.emit('connection', socket);
  }

  /** Ends when the answers that are due have been given. */
  drain(): Promise<void> {
    return this.#slots.drain();
  }

  destroy(): void {
    this.#slots.destroy();
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { limits, isDraining } = this.#options;
    const { socket } = request;
    const gone = new AbortController();
    this.#slots.limit(socket, limits.request, true);
    response.once('finish', () => {
      if (isDraining()) this.#slots.limit(socket, LEAVE_MILLISECONDS, true);
      else this.#slots.limit(socket, limits.idle, false);
    });
    const end = () => {
      gone.abort();
      this.#slots.free(socket);
    };
    response.once('close', () => {
      if (!response.writableFinished) end();
    });
    const body: Body = { chunks: [], isWhole: false, evict: end };
    void this.#answer(request, body, gone.signal, () => this.#slots.limit(socket, limits.call, true)).then((reply) => {
      if (gone.signal.aborted) return;
      const isLast = isDraining() || !request.complete;
      const content = Buffer.from(reply.body);
      response.writeHead(reply.status, {
        'content-type': reply.type,
        'content-length': content.length,
        'cache-control': 'no-store',
        ...(isLast ? { connection: 'close' } : {}),
      });
      response.end(content);
    });
  }

  async #answer(request: IncomingMessage, body: Body, signal: AbortSignal, whole: () => void): Promise<WebReply> {
    const received = performance.now();
    const { failed } = this.#options;
    const url = URL.parse(request.url ?? '', 'https://server');
    if (url === null) return text(400, 'no address');
    if (request.method === 'GET') return this.#status(url.pathname);
    if (request.method !== 'POST') return text(405, 'only GET and POST');
    try {
      const refusal = await this.#read(request, body, signal);
      if (refusal !== undefined) return refusal;
      whole();
      await this.#gate.enter(signal);
      try {
        return (await this.#handle(url, body, received, signal)) ?? text(404, 'not found');
      } finally {
        this.#gate.leave();
      }
    } catch (error) {
      if (signal.aborted) return text(499, 'gone');
      const { code } = asOcicryptError(error);
      failed(describeError(error));
      return text(code === 'throttled' ? 503 : 500, code);
    } finally {
      this.#bodies.release(body);
    }
  }

  /** Not async: while the answer is waited for, nothing here holds the bytes. */
  #handle(url: URL, body: Body, received: number, signal: AbortSignal): Promise<WebReply | undefined> {
    const { pathname: path, searchParams: query } = url;
    return this.#options.handler({ path, query, body: this.#bodies.take(body), received, signal });
  }

  #status(path: string): WebReply {
    if (path === '/livez') return text(200, 'alive');
    if (path !== '/readyz') return text(404, 'not found');
    return this.#options.isDraining() ? text(503, 'draining') : text(200, 'ready');
  }

  /** Reads a whole body. @returns the answer to one that is not taken */
  async #read(request: IncomingMessage, body: Body, signal: AbortSignal): Promise<WebReply | undefined> {
    const { body: maximum } = this.#options.limits;
    let length = 0;
    if (Number(request.headers['content-length'] ?? 0) > maximum) return text(413, `more than ${maximum} bytes`);
    for await (const chunk of request) {
      // What has come already of a request that gave way is not a whole one.
      if (signal.aborted) break;
      const bytes: Uint8Array = chunk;
      length += bytes.length;
      if (length > maximum) return text(413, `more than ${maximum} bytes`);
      if (!this.#bodies.add(body, bytes)) return text(503, 'too many requests at once');
    }
    body.isWhole = true;
    return signal.aborted ? text(499, 'gone') : undefined;
  }
}

function text(status: number, body: string): WebReply {
  return { status, type: 'text/plain', body: `${body}\n` };
}
