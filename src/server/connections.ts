// Holds HTTP/2 connections: how many there are, how long each may do nothing, and how they end.
// The runtimes' own limits differ and have gaps, so that time, number and nuisance are counted here.

import { constants, performServerHandshake, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Client } from '../base/fair-queue.ts';
import { Call, type CallContext, type CallListener, type Peer } from './call.ts';

/** Why a connection was closed by us: a closed set, for metrics. */
export const CLOSE_REASONS = ['too-many', 'slow', 'idle', 'nuisance', 'unread', 'drain'] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

export type ConnectionsOptions = CallContext & {
  readonly closedBecause: (reason: CloseReason) => void;
};

/** All connections of a server, of whatever listener. */
export interface Connections {
  readonly size: number;
  /** Counts a connection whose handshake has only begun; it is closed if the handshake takes too long. */
  begin(socket: Socket): void;
  /** Speaks HTTP/2 on a connection; `begun` is the socket that {@link begin} was given, if it was. */
  accept(socket: Socket, peer: Peer, begun?: Socket): void;
  /** Closes what is idle and lets open calls end; resolves when no connection is left. */
  drain(): Promise<void>;
  /** Closes everything at once. */
  destroy(): void;
}

/** How often the clocks are looked at, in milliseconds. */
const SWEEP_MILLISECONDS = 250;
/** A connection may open so many streams, and send so many pings and settings, without a useful call between them. */
const MAXIMUM_CREDIT = 200;
/** What a new connection may cause, beside twice the streams it may have open: a stream costs Node 6 KB. */
const FIRST_CREDIT = 8;
const CREDIT_FOR_CALL = 5;
const CREDIT_FOR_SWEEP = 1;
/** Unread replies pile up here: a reader in good faith is never so far behind. */
const MAXIMUM_UNSENT_BYTES = 1024 * 1024;
/** What a connection whose last call has ended gets to take its leave. */
const LEAVE_MILLISECONDS = 500;

/** Makes the connections of a server; it listens to nothing by itself. */
export function createConnections(options: ConnectionsOptions): Connections {
  return new ConnectionPool(options);
}

/** Something that can be closed to make room, with the moment of its beginning. */
type Unproved = { readonly socket: Socket; readonly since: number; readonly close: (reason: CloseReason) => void };

class ConnectionPool implements Connections {
  readonly options: ConnectionsOptions;
  /** Handshakes, and connections that have not sent one whole request yet; oldest first. */
  readonly #unproved = new Map<Socket, Unproved>();
  /** Connections that have; those that are idle longest come first. */
  readonly #proved = new Map<Socket, Connection>();
  #sweeper: ReturnType<typeof setInterval> | undefined;
  #swept = 0;
  #drained: (() => void) | undefined;

  constructor(options: ConnectionsOptions) {
    this.options = options;
  }

  get size(): number {
    return this.#unproved.size + this.#proved.size;
  }

  begin(socket: Socket): void {
    // A socket without a listener for its errors ends the process.
    socket.on('error', () => socket.destroy());
    if (!this.#makeRoom()) {
      this.#close(socket, 'too-many');
      return;
    }
    const close = (reason: CloseReason) => this.#close(socket, reason);
    this.#add(socket, { socket, since: performance.now(), close });
  }

  accept(socket: Socket, peer: Peer, begun?: Socket): void {
    if (begun !== undefined) this.#unproved.delete(begun);
    socket.on('error', () => socket.destroy());
    if (socket.destroyed) return;
    if (this.#drained !== undefined) this.#close(socket, 'drain');
    else if (!this.#makeRoom()) this.#close(socket, 'too-many');
    else this.#add(socket, new Connection(socket, peer, this));
  }

  drain(): Promise<void> {
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
    for (const { socket } of this.#unproved.values()) if (!this.#isBusy(socket)) this.#close(socket, 'drain');
    for (const connection of this.#proved.values()) connection.leave();
    if (this.size === 0) this.#drained?.();
    return drained;
  }

  destroy(): void {
    clearInterval(this.#sweeper);
    for (const socket of [...this.#unproved.keys(), ...this.#proved.keys()]) socket.destroy();
  }

  /** A connection has sent a whole request. */
  prove(connection: Connection): void {
    this.#unproved.delete(connection.socket);
    this.#proved.set(connection.socket, connection);
  }

  /** A connection has no open call any more. */
  rest(connection: Connection): void {
    if (this.#drained !== undefined) connection.leave();
    else if (this.#proved.delete(connection.socket)) this.#proved.set(connection.socket, connection);
  }

  /** If there are too many, the oldest that has shown nothing gives way, then what is idle for longest. */
  #makeRoom(): boolean {
    if (this.size < this.options.limits.connections) return true;
    const [unproved] = this.#unproved.values();
    if (unproved !== undefined) {
      unproved.close('too-many');
      return true;
    }
    for (const connection of this.#proved.values()) {
      if (connection.isBusy()) continue;
      connection.close('too-many');
      return true;
    }
    return false;
  }

  #isBusy(socket: Socket): boolean {
    const entry = this.#unproved.get(socket);
    return entry instanceof Connection && entry.isBusy();
  }

  #close(socket: Socket, reason: CloseReason): void {
    this.options.closedBecause(reason);
    socket.destroy();
    this.#gone(socket);
  }

  #gone(socket: Socket): void {
    this.#unproved.delete(socket);
    this.#proved.delete(socket);
    if (this.size === 0) {
      clearInterval(this.#sweeper);
      this.#sweeper = undefined;
      this.#drained?.();
    }
  }

  forget(connection: Connection): void {
    this.#gone(connection.socket);
  }

  #add(socket: Socket, entry: Unproved): void {
    this.#unproved.set(socket, entry);
    socket.once('close', () => this.#gone(socket));
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MILLISECONDS).unref();
  }

  /**
   * Callers are judged by how they stood at the sweep before this one: what they had sent by then has been read since. A
   * process that did not get to run (a processor that others use, or that a limit withholds) would else blame them for it.
   */
  #sweep(): void {
    const now = this.#swept;
    this.#swept = performance.now();
    for (const entry of this.#unproved.values()) {
      if (now - entry.since > this.options.limits.firstRequest) entry.close('slow');
      else if (entry instanceof Connection) entry.sweep(now);
    }
    for (const connection of this.#proved.values()) connection.sweep(now);
  }
}

/** One HTTP/2 connection. */
class Connection implements CallListener {
  readonly socket: Socket;
  readonly since = performance.now();
  readonly client: Client;
  readonly #pool: ConnectionPool;
  readonly #session: ServerHttp2Session;
  readonly #calls = new Set<Call>();
  #credit: number;
  #proved = false;
  /** Whether it takes no more calls, because one of them dripped. */
  #isRetired = false;
  #restingSince = this.since;

  constructor(socket: Socket, peer: Peer, pool: ConnectionPool) {
    this.socket = socket;
    this.#pool = pool;
    this.client = peer.names?.join('\n') || this;
    this.#credit = FIRST_CREDIT + 2 * pool.options.limits.streams;
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
    if (useful) this.#credit = Math.min(MAXIMUM_CREDIT, this.#credit + CREDIT_FOR_CALL);
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
    this.#credit = Math.min(MAXIMUM_CREDIT, this.#credit + CREDIT_FOR_SWEEP);
    for (const call of this.#calls) {
      if (!call.isStuck(now)) continue;
      // Who once was answered could otherwise keep a connection for ever, by one call after the other that drips.
      this.#isRetired = true;
      call.cancel();
    }
    if (!this.isBusy() && now - this.#restingSince > this.#pool.options.limits.idle) this.leave('idle');
  }

  /** Says goodbye and closes, once no call is open. */
  leave(reason: CloseReason = 'drain'): void {
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
    if (--this.#credit >= 0) return true;
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
