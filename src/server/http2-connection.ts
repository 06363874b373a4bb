// One HTTP/2 connection: its calls, and what a client may make it do without a useful call.

import { constants, performServerHandshake, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Client } from '../base/fair-queue.ts';
import { Call, type CallListener, type Peer } from './call.ts';
import { certificateClient } from './client-names.ts';
import type { CloseReason, Connection, ConnectionHolder } from './connection.ts';
import { Credit } from './credit.ts';
import { LEAVE_MILLISECONDS, MAXIMUM_UNSENT_BYTES } from './limits.ts';

/** One HTTP/2 connection. */
export class Http2Connection implements Connection, CallListener {
  readonly socket: Socket;
  readonly since = performance.now();
  readonly client: Client;
  readonly #pool: ConnectionHolder;
  readonly #session: ServerHttp2Session;
  readonly #calls = new Set<Call>();
  readonly #credit: Credit;
  #proved = false;
  /** Whether it takes no more calls, because one of them dripped. */
  #isRetired = false;
  #restingSince = this.since;

  constructor(socket: Socket, peer: Peer, pool: ConnectionHolder) {
    this.socket = socket;
    this.#pool = pool;
    this.client = certificateClient(peer) ?? this;
    this.#credit = new Credit(pool.options.limits.streams);
    this.#session = performServerHandshake(socket, sessionOptions(pool.options.limits.streams));
    this.#session.on('error', () => socket.destroy());
    this.#session.once('close', () => {
      socket.destroy();
      pool.forget(this);
    });
    this.#session.on('ping', () => this.#spend());
    this.#session.on('remoteSettings', () => this.#spend());
    this.#session.on('stream', (stream, headers) => {
      // Paid back where the call turns out to be one; at once, because a flood of streams is parsed before any is closed.
      if (this.#session.destroyed || !this.#spend()) return;
      if (this.#isRetired || this.#calls.size >= pool.options.limits.streams) {
        stream.on('error', () => {});
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      this.#calls.add(new Call(stream, headers, peer, pool.options, this));
      if (socket.writableLength > MAXIMUM_UNSENT_BYTES) this.close('unread');
    });
  }

  isBusy(): boolean {
    return this.#calls.size > 0;
  }

  received(): void {
    if (this.#proved) return;
    this.#proved = true;
    this.#pool.prove(this);
  }

  closed(call: Call, useful: boolean): void {
    this.#calls.delete(call);
    if (useful) this.#credit.earn();
    if (this.#calls.size > 0) return;
    if (this.#isRetired) this.leave('slow');
    this.#restingSince = performance.now();
    this.#pool.rest(this);
  }

  sweep(now: number): void {
    if (this.socket.writableLength > MAXIMUM_UNSENT_BYTES) {
      this.close('unread');
      return;
    }
    this.#credit.refresh();
    for (const call of this.#calls) {
      if (!call.isStuck(now)) continue;
      // Who once was answered could otherwise keep a connection for ever, by one call after the other that drips.
      this.#isRetired = true;
      call.cancel();
    }
    if (!this.isBusy() && now - this.#restingSince > this.#pool.options.limits.idle) this.leave('idle');
  }

  leave(reason: CloseReason): void {
    if (this.isBusy() || this.#session.closed) return;
    this.#pool.options.closedBecause(reason);
    this.#session.close();
    // The other end may not answer, or may have opened a stream that crossed our goodbye.
    setTimeout(() => this.socket.destroy(), LEAVE_MILLISECONDS).unref();
  }

  close(reason: CloseReason): void {
    this.#pool.options.closedBecause(reason);
    if (!this.#session.destroyed) this.#session.destroy(undefined, CLOSE_CODE[reason]);
    this.socket.destroy();
    this.#pool.forget(this);
  }

  /** Whether the connection lives on. */
  #spend(): boolean {
    if (this.#credit.spend()) return true;
    if (!this.#session.destroyed) this.close('nuisance');
    return false;
  }
}

const CLOSE_CODE: { readonly [reason in CloseReason]: number } = {
  'too-many': constants.NGHTTP2_ENHANCE_YOUR_CALM,
  slow: constants.NGHTTP2_ENHANCE_YOUR_CALM,
  nuisance: constants.NGHTTP2_ENHANCE_YOUR_CALM,
  unread: constants.NGHTTP2_ENHANCE_YOUR_CALM,
  idle: constants.NGHTTP2_NO_ERROR,
  drain: constants.NGHTTP2_NO_ERROR,
};

function sessionOptions(streams: number): Parameters<typeof performServerHandshake>[1] {
  return {
    // Megabytes; a bound of Node's own on what one connection makes it keep.
    maxSessionMemory: 4,
    maxHeaderListPairs: 64,
    maxSettings: 16,
    maxOutstandingPings: 4,
    // Node makes every stream of a read before it tells of the first.
    streamResetBurst: 2 * streams,
    streamResetRate: streams,
    settings: { maxConcurrentStreams: streams, maxHeaderListSize: 16 * 1024, enablePush: false },
  };
}
