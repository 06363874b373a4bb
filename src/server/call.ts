// One unary gRPC call on one HTTP/2 stream: headers checked, one message in, one message or status out. Every call ends.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { wipe } from '../base/bytes.ts';
import { markCall } from '../base/deadline.ts';
import { asOcicryptError, describeError, describeForCaller, ERROR_STATUS, OcicryptError } from '../base/errors.ts';
import type { Client } from '../base/fair-queue.ts';
import {
  CALL_STATUS,
  type CallStatus,
  CONTENT_TYPE,
  encodeFrame,
  encodeStatusMessage,
  parseTimeout,
} from '../base/grpc.ts';
import { releaseBytes } from '../base/memory.ts';
import type { FailedCall } from './failure-log.ts';
import type { CallGate, PageBudget, ServerLimits } from './limits.ts';
import { type CallFailure, MessageReceiver, NO_ROOM } from './message.ts';

/** Who is at the other end of a connection. */
export type Peer = {
  /** For audit and log: the listener, and the names in the client's certificate. */
  readonly caller: string;
  /** The names in a client certificate that was verified; undefined if the listener asks for none. */
  readonly names?: readonly string[];
};

/** A method: a request's protobuf message in, the reply's out. Both are wiped when they are done with. */
export type Method = (
  request: Uint8Array,
  call: { readonly peer: Peer; readonly signal: AbortSignal; readonly userAgent: string },
) => Promise<Uint8Array>;

/** Methods by path, `/package.Service/Method`. */
export type Methods = ReadonlyMap<string, Method>;

/** What is measured of a call. Milliseconds. */
export type CallReport = {
  /** The path of a method that exists, or "unknown". */
  readonly method: string;
  readonly status: CallStatus;
  readonly received: number;
  readonly queued: number;
  readonly handled: number;
};

/** What all calls of a server share. */
export type CallContext = {
  readonly methods: Methods;
  /** Bytes of a request's message. */
  readonly maximumMessage: number;
  readonly limits: ServerLimits;
  readonly budget: PageBudget;
  readonly gate: CallGate;
  readonly draining: () => boolean;
  readonly report: (report: CallReport) => void;
  /** Told of every call that does not end with OK. */
  readonly failed: (failure: FailedCall) => void;
};

/** What a call tells its connection. */
export interface CallListener {
  /** Who takes turns with others: all connections of one certificate, else each its own. */
  readonly client: Client;
  /** A whole request has come in. */
  received(): void;
  /** The stream is gone. `useful` if a whole request was answered, whatever the answer. */
  closed(call: Call, useful: boolean): void;
}

type Phase = 'receiving' | 'working' | 'replied' | 'closed';

/** A call from its headers to the end of its stream. */
export class Call {
  readonly #stream: ServerHttp2Stream;
  readonly #context: CallContext;
  readonly #peer: Peer;
  readonly #listener: CallListener;
  readonly #path: string;
  readonly #userAgent: string;
  readonly #receiver: MessageReceiver;
  readonly #started = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #limit = 0;
  #phase: Phase = 'receiving';
  #phaseSince = this.#started;
  #received = 0;
  #queued = 0;
  #useful = false;
  #reply: Uint8Array | undefined;
  #controller: AbortController | undefined;

  constructor(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    peer: Peer,
    context: CallContext,
    listener: CallListener,
  ) {
    this.#stream = stream;
    this.#context = context;
    this.#peer = peer;
    this.#listener = listener;
    this.#path = headers[':path'] ?? '';
    this.#userAgent = headers['user-agent'] ?? '';
    this.#receiver = new MessageReceiver(context.budget, context.maximumMessage, () => this.#fail(NO_ROOM));
    // Errors of a stream always end in its closing, which is where we look.
    stream.on('error', () => {});
    stream.once('close', () => this.#closed());
    const failure = this.#checkHeaders(headers);
    if (failure !== undefined) {
      this.#fail(failure);
      return;
    }
    stream.on('data', (chunk: Uint8Array) => this.#data(chunk));
    stream.once('end', () => this.#end());
  }

  /** Whether this call waits for the other end longer than it may: for its request, or for its reply to be read. */
  isStuck(now: number): boolean {
    return this.#phase !== 'working' && now - this.#phaseSince > this.#context.limits.request;
  }

  /** Ends the stream at once. */
  cancel(): void {
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #checkHeaders(headers: IncomingHttpHeaders): CallFailure | undefined {
    const { limits, methods, draining } = this.#context;
    const contentType = headers['content-type'] ?? '';
    if (headers[':method'] !== 'POST' || !/^application\/grpc(?:[+;]|$)/.test(contentType)) {
      return { status: CALL_STATUS.UNIMPLEMENTED, message: 'this server speaks gRPC only' };
    }
    if (headers.te !== 'trailers') {
      return {
        status: CALL_STATUS.INVALID_ARGUMENT,
        message: 'the request lacks te: trailers, which a proxy may have dropped',
      };
    }
    if (!methods.has(this.#path)) return { status: CALL_STATUS.UNIMPLEMENTED, message: 'no such method' };
    const encoding = headers['grpc-encoding'];
    if (encoding !== undefined && encoding !== 'identity') {
      return { status: CALL_STATUS.UNIMPLEMENTED, message: 'compressed messages are not supported' };
    }
    const header = headers['grpc-timeout'];
    const timeout = typeof header === 'string' ? parseTimeout(header) : limits.call;
    if (timeout === undefined) return { status: CALL_STATUS.INVALID_ARGUMENT, message: 'malformed grpc-timeout' };
    if (draining())
      return describe(new OcicryptError('unavailable', 'the server is shutting down', { hint: 'try again' }));
    const limit = Math.min(timeout, limits.call);
    // Timers count whole milliseconds, from one on.
    if (limit < 1) return describe(deadlineExceeded(limit));
    this.#limit = limit;
    this.#timer = setTimeout(() => this.#expire(limit), limit);
    return undefined;
  }

  #data(chunk: Uint8Array): void {
    const failure = this.#phase === 'receiving' ? this.#receiver.push(chunk) : undefined;
    wipe(chunk);
    // Half-sent requests of hundreds of connections come faster than they are collected: 70 MiB on Bun.
    releaseBytes(chunk);
    if (failure !== undefined) this.#fail(failure);
  }

  #end(): void {
    // A reset ends the stream's data too, before it is closed.
    if (this.#phase !== 'receiving' || this.#stream.aborted || this.#stream.destroyed) return;
    const message = this.#receiver.finish();
    if (message instanceof Uint8Array) void this.#work(message);
    else this.#fail(message);
  }

  async #work(message: Uint8Array): Promise<void> {
    const { gate, methods } = this.#context;
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    this.#enter('working');
    this.#received = this.#phaseSince - this.#started;
    markCall(signal, this.#limit - this.#received, this.#listener.client);
    this.#useful = true;
    this.#listener.received();
    const method = methods.get(this.#path);
    try {
      await gate.enter(signal);
      try {
        this.#queued = performance.now() - this.#phaseSince;
        if (method === undefined) throw new OcicryptError('internal', 'no such method');
        this.#succeed(await method(message, { peer: this.#peer, signal, userAgent: this.#userAgent }));
      } finally {
        gate.leave();
      }
    } catch (error) {
      this.#fail(describe(error), describeError(error));
    } finally {
      this.#receiver.release();
    }
  }

  #expire(limit: number): void {
    const error = deadlineExceeded(limit);
    this.#controller?.abort(error);
    this.#fail(describe(error));
  }

  #succeed(reply: Uint8Array): void {
    const stream = this.#stream;
    if (this.#phase !== 'working' || stream.destroyed || stream.headersSent) {
      wipe(reply);
      return;
    }
    this.#conclude(CALL_STATUS.OK);
    this.#reply = encodeFrame(reply);
    wipe(reply);
    stream.once('wantTrailers', () => {
      if (!stream.destroyed) stream.sendTrailers({ 'grpc-status': '0' });
    });
    stream.respond({ ':status': 200, 'content-type': CONTENT_TYPE }, { waitForTrailers: true });
    stream.end(this.#reply);
  }

  /** @param problem the whole line, of which the caller may have only a part */
  #fail({ status, message }: CallFailure, problem = message): void {
    const unfinished = this.#phase === 'receiving';
    if (this.#phase === 'replied' || this.#phase === 'closed') return;
    if (unfinished) this.#receiver.release();
    this.#conclude(status, problem);
    const stream = this.#stream;
    if (stream.destroyed || stream.headersSent) return;
    stream.respond(
      {
        ':status': 200,
        'content-type': CONTENT_TYPE,
        'grpc-status': String(status),
        'grpc-message': encodeStatusMessage(message),
      },
      { endStream: true },
    );
    // The rest of the request is not wanted: RFC 9113 section 8.1.
    if (unfinished && !stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
  }

  #conclude(status: CallStatus, problem?: string): void {
    const now = performance.now();
    const started = this.#started + this.#received + this.#queued;
    clearTimeout(this.#timer);
    this.#enter('replied');
    const method = this.#context.methods.has(this.#path) ? this.#path : 'unknown';
    if (problem !== undefined) this.#context.failed({ method, status, caller: this.#peer.caller, problem });
    this.#context.report({
      method,
      status,
      received: this.#received,
      queued: this.#queued,
      handled: now - started,
    });
  }

  #closed(): void {
    if (this.#phase === 'receiving') this.#receiver.release();
    if (this.#phase === 'receiving' || this.#phase === 'working') {
      this.#useful = false;
      this.#controller?.abort(new OcicryptError('deadline-exceeded', 'ended by the caller'));
      this.#conclude(CALL_STATUS.CANCELLED, 'ended by the caller');
    }
    if (this.#phase === 'closed') return;
    this.#enter('closed');
    wipe(this.#reply);
    this.#listener.closed(this, this.#useful);
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    this.#phaseSince = performance.now();
  }
}

function describe(error: unknown): CallFailure {
  return { status: ERROR_STATUS[asOcicryptError(error).code].grpc, message: describeForCaller(error) };
}

function deadlineExceeded(limit: number): OcicryptError {
  return new OcicryptError('deadline-exceeded', `no answer within ${Math.round(limit)} ms`, { retryable: true });
}
