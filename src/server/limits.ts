// What the server lets its clients use, and the two counters that are shared by all connections.

import { OcicryptError } from '../base/errors.ts';
import { Turns } from '../base/turns.ts';

/** Counts, bytes and milliseconds. */
export type ServerLimits = {
  /** Connections of all listeners together. */
  readonly connections: number;
  /** Calls that one connection may have open. */
  readonly streams: number;
  /** Bytes of requests and replies that all connections together may hold. */
  readonly buffered: number;
  /** Calls that are worked on at the same time. */
  readonly active: number;
  /** Calls that wait for one of those to end. */
  readonly queue: number;
  /** From the start of a connection to the end of its handshake, and on to the end of its first request. */
  readonly firstRequest: number;
  /** From the headers of a request to its last byte. */
  readonly request: number;
  /** For a whole call, its time in the queue included. */
  readonly call: number;
  /** A connection without a call for so long is closed. */
  readonly idle: number;
};

export const DEFAULT_SERVER_LIMITS: ServerLimits = {
  connections: 256,
  streams: 32,
  buffered: 32 * 1024 * 1024,
  active: 256,
  queue: 1024,
  firstRequest: 2_000,
  request: 2_000,
  call: 10_000,
  idle: 300_000,
};

/** Something that holds bytes and can be made to give them up. */
export interface Holder {
  /** Gives its bytes back and ends. */
  evict(): void;
}

/**
 * Counts the bytes of unfinished requests over all connections. Where they are too many, the request that has been
 * unfinished for longest gives way: callers send theirs at once, and only an attacker's stay half sent.
 */
export class ByteBudget {
  readonly #limit: number;
  /** Insertion order is age. */
  readonly #holders = new Map<Holder, number>();
  #total = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get total(): number {
    return this.#total;
  }

  /** Adds `bytes` to what `holder` holds; false if even evicting all others is not enough. */
  take(holder: Holder, bytes: number): boolean {
    this.#holders.set(holder, (this.#holders.get(holder) ?? 0) + bytes);
    this.#total += bytes;
    while (this.#total > this.#limit) {
      const [oldest] = this.#holders.keys();
      if (oldest === undefined || oldest === holder) return false;
      this.release(oldest);
      oldest.evict();
    }
    return true;
  }

  /** Takes back everything that `holder` holds. */
  release(holder: Holder): void {
    this.#total -= this.#holders.get(holder) ?? 0;
    this.#holders.delete(holder);
  }
}

/** Lets a number of calls in at the same time and keeps a bounded queue of others, in which clients take turns. */
export class CallGate {
  readonly #active: number;
  readonly #queue: number;
  readonly #turns = new Turns();
  #entered = 0;

  constructor(active: number, queue: number) {
    this.#active = active;
    this.#queue = queue;
  }

  get entered(): number {
    return this.#entered;
  }

  get waiting(): number {
    return this.#turns.waiting;
  }

  /**
   * Waits for a place; a caller that got one must {@link leave}.
   *
   * @throws OcicryptError `throttled` at once if the queue is full, and no client has more in it than this one, and
   * later if room is made for another client; the signal's reason if it is aborted
   */
  async enter(signal: AbortSignal): Promise<void> {
    if (this.#entered < this.#active) {
      this.#entered++;
      return;
    }
    if (this.#turns.waiting >= this.#queue && !this.#turns.giveWay(signal)) throw this.#isFull();
    await this.#turns.wait(signal, { name: 'other calls of this server' }, () => this.#isFull());
  }

  /** Hands the place to the next call. */
  leave(): void {
    if (!this.#turns.admit()) this.#entered--;
  }

  #isFull(): OcicryptError {
    return new OcicryptError('throttled', `the server has ${this.#entered} calls at work and others waiting already`, {
      hint: 'try again later, or raise --max-calls or --max-queue',
      retryable: true,
    });
  }
}
