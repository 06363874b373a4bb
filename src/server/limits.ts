// What the server lets its clients use, and the two counters that are shared by all connections.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { Places } from '../base/turns.ts';

/** Counts, bytes and milliseconds. */
export type ServerLimits = {
  /** Connections of all listeners together. */
  readonly connections: number;
  /** Calls that one connection may have open. */
  readonly streams: number;
  /** Bytes of requests that all connections together may hold. */
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

/** Unread replies pile up: a reader in good faith is never so far behind. */
export const MAXIMUM_UNSENT_BYTES = 1024 * 1024;
/** What a connection whose last call has ended gets to take its leave. */
export const LEAVE_MILLISECONDS = 500;

/** Something that holds pages and can be made to give them up. */
export interface Holder {
  /** Filled and emptied by the budget alone. */
  readonly pages: Uint8Array[];
  /** Its pages are gone: it ends. */
  evict(): void;
}

/** What a request's bytes lie in until it is whole. */
export const PAGE_BYTES = 4096;
const SLAB_PAGES = 64;

/**
 * The bytes of requests over all connections, in pages that are used again: nothing waits for the garbage
 * collection, so that memory is bounded by the limit whatever clients send. Where pages are too few, the request that
 * has been unfinished for longest gives way: callers send theirs at once, and only an attacker's stay half sent. What is
 * whole is worked on and keeps its pages until then: to take them would lose the work and free nothing.
 */
export class PageBudget {
  readonly #pages: number;
  /** Of unfinished requests. Insertion order is age. */
  readonly #holders = new Set<Holder>();
  readonly #free: Uint8Array[] = [];
  #taken = 0;

  /** @param limit in bytes */
  constructor(limit: number) {
    this.#pages = Math.floor(limit / PAGE_BYTES);
  }

  /** Bytes of the pages that are held. */
  get total(): number {
    return this.#taken * PAGE_BYTES;
  }

  /** One more page for `holder`, {@link PAGE_BYTES} long; undefined if even evicting all that give way is not enough. */
  take(holder: Holder): Uint8Array | undefined {
    while (this.#taken >= this.#pages) {
      const [oldest] = this.#holders;
      if (oldest === undefined || oldest === holder) return undefined;
      this.release(oldest);
      oldest.evict();
    }
    if (this.#free.length === 0) this.#grow();
    const page = this.#free.pop();
    if (page === undefined) return undefined;
    this.#taken++;
    this.#holders.add(holder);
    holder.pages.push(page);
    return page;
  }

  /** The request of `holder` is whole: it gives way to no other until {@link release}. */
  settle(holder: Holder): void {
    this.#holders.delete(holder);
  }

  /** Wipes all pages of `holder` and takes them back. */
  release(holder: Holder): void {
    this.#holders.delete(holder);
    this.#taken -= holder.pages.length;
    for (const page of holder.pages) wipe(page);
    this.#free.push(...holder.pages.splice(0));
  }

  #grow(): void {
    const slab = new Uint8Array(SLAB_PAGES * PAGE_BYTES);
    for (let start = 0; start < slab.length; start += PAGE_BYTES)
      this.#free.push(slab.subarray(start, start + PAGE_BYTES));
  }
}

/** Lets a number of calls in at the same time and keeps a bounded queue of others, in which clients take turns. */
export class CallGate {
  readonly #places: Places;
  readonly #queue: number;

  constructor(active: number, queue: number) {
    this.#places = new Places(active);
    this.#queue = queue;
  }

  get entered(): number {
    return this.#places.taken;
  }

  get waiting(): number {
    return this.#places.waiting;
  }

  /**
   * Waits for a place; a caller that got one must {@link leave}.
   *
   * @throws OcicryptError `throttled` at once if the queue is full, and no client has more in it than this one, and
   * later if room is made for another client; the signal's reason if it is aborted
   */
  async enter(signal: AbortSignal): Promise<void> {
    const isQueueFull = this.#places.isFull && this.#places.waiting >= this.#queue;
    if (isQueueFull && !this.#places.giveWay(signal)) throw this.#isFull();
    await this.#places.take(signal, { name: 'other calls of this server' }, () => this.#isFull());
  }

  /** Hands the place to the next call. */
  leave(): void {
    this.#places.leave();
  }

  #isFull(): OcicryptError {
    return new OcicryptError('throttled', `the server has ${this.entered} calls at work and others waiting already`, {
      hint: `try again later, or raise ${setting('limits.active')} or ${setting('limits.queue')}`,
      retryable: true,
    });
  }
}
