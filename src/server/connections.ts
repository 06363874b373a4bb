// Holds connections of either protocol: how many there are, how long each may do nothing, and how they end.
// The runtimes' own limits differ and have gaps, so that time, number and nuisance are counted here.

import type { Socket } from 'node:net';
import type { Peer } from './call.ts';
import { certificateClient } from './client-names.ts';
import type { CloseReason, Connection, ConnectionHolder, ConnectionsOptions } from './connection.ts';
import { Http2Connection } from './http2-connection.ts';
import { TtrpcConnection } from './ttrpc-connection.ts';

/** All connections of a server, of whatever listener. */
export interface Connections {
  readonly size: number;
  /** Counts a connection whose handshake has only begun; it is closed if the handshake takes too long. */
  begin(socket: Socket): void;
  /** Speaks HTTP/2 on a connection; `begun` is the socket that {@link begin} was given, if it was. */
  accept(socket: Socket, peer: Peer, begun?: Socket): void;
  /** Speaks ttrpc on a connection. */
  acceptTtrpc(socket: Socket, peer: Peer): void;
  /** Closes what is idle and lets open calls end; resolves when no connection is left. */
  drain(): Promise<void>;
  /** Closes everything at once. */
  destroy(): void;
}

/** How often the clocks are looked at, in milliseconds. */
const SWEEP_MILLISECONDS = 250;

/** Makes the connections of a server; it listens to nothing by itself. */
export function createConnections(options: ConnectionsOptions): Connections {
  return new ConnectionPool(options);
}

/** A handshake, or a connection that has not sent one whole request yet. */
type Unproved = Omit<Connection, 'leave'>;

class ConnectionPool implements Connections, ConnectionHolder {
  readonly options: ConnectionsOptions;
  /** Oldest first. */
  readonly #unproved = new Map<Socket, Unproved>();
  /** Connections that have; those that are idle longest come first. */
  readonly #proved = new Map<Socket, Connection>();
  /** By which certificate they were let in. */
  readonly #clients = new WeakMap<Socket, string>();
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
    this.#add(socket, { socket, since: performance.now(), isBusy: () => false, sweep() {}, close });
  }

  accept(socket: Socket, peer: Peer, begun?: Socket): void {
    if (begun !== undefined) this.#unproved.delete(begun);
    const client = certificateClient(peer);
    if (client !== undefined) this.#clients.set(socket, client);
    this.#accept(socket, () => new Http2Connection(socket, peer, this));
  }

  acceptTtrpc(socket: Socket, peer: Peer): void {
    this.#accept(socket, () => new TtrpcConnection(socket, peer, this));
  }

  #accept(socket: Socket, speak: () => Connection): void {
    socket.on('error', () => socket.destroy());
    if (socket.destroyed) return;
    if (this.#drained !== undefined) this.#close(socket, 'drain');
    else if (!this.#makeRoom() || !this.#makeOwnRoom(socket)) this.#close(socket, 'too-many');
    else this.#add(socket, speak());
  }

  drain(): Promise<void> {
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
    for (const one of this.#unproved.values()) if (!one.isBusy()) this.#close(one.socket, 'drain');
    for (const connection of this.#proved.values()) connection.leave('drain');
    if (this.size === 0) this.#drained?.();
    return drained;
  }

  destroy(): void {
    clearInterval(this.#sweeper);
    for (const socket of [...this.#unproved.keys(), ...this.#proved.keys()]) socket.destroy();
  }

  prove(connection: Connection): void {
    this.#unproved.delete(connection.socket);
    this.#proved.set(connection.socket, connection);
  }

  rest(connection: Connection): void {
    if (this.#drained !== undefined) connection.leave('drain');
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

  /**
   * One certificate has seven eighths of all places: whatever it does, others find room. If it has them all, what is idle
   * of its own gives way. Who shows no certificate cannot be told from others.
   */
  #makeOwnRoom(socket: Socket): boolean {
    const client = this.#clients.get(socket);
    if (client === undefined) return true;
    const { connections } = this.options.limits;
    // What is idle before what has only just come.
    const all = [...this.#proved.values(), ...this.#unproved.values()];
    const own = all.filter((one) => this.#clients.get(one.socket) === client);
    if (own.length < connections - Math.floor(connections / 8)) return true;
    const idle = own.find((one) => !one.isBusy());
    idle?.close('too-many');
    return idle !== undefined;
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
      else entry.sweep(now);
    }
    for (const connection of this.#proved.values()) connection.sweep(now);
  }
}
