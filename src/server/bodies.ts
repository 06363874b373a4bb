// The bytes of requests for documents that have not been read yet, over all connections of a server.

import { concatBytes } from '../base/bytes.ts';

/** A request whose bytes are held. */
export type Body = {
  readonly chunks: Uint8Array[];
  /** Whether its last byte has come. */
  isWhole: boolean;
  /** Its bytes are gone: it ends. */
  readonly evict: () => void;
};

/**
 * Bounds the bytes that are held. Where there is no room, the request that has been unfinished for longest gives way: callers
 * send theirs at once, and only an attacker's stay half sent.
 */
export class BodyBudget {
  readonly #limit: number;
  /** Insertion order is age. */
  readonly #held = new Map<Body, number>();
  #total = 0;

  /** @param limit in bytes */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes that are held. */
  get total(): number {
    return this.#total;
  }

  /** Holds more of a request; false if even the end of all other unfinished ones makes no room. */
  add(body: Body, bytes: Uint8Array): boolean {
    while (this.#total + bytes.length > this.#limit) {
      const oldest = [...this.#held.keys()].find((other) => other !== body && !other.isWhole);
      if (oldest === undefined) return false;
      this.release(oldest);
      oldest.evict();
    }
    body.chunks.push(bytes);
    this.#held.set(body, (this.#held.get(body) ?? 0) + bytes.length);
    this.#total += bytes.length;
    return true;
  }

  /** All bytes of a request, which are not held from now on. */
  take(body: Body): Uint8Array {
    const whole = concatBytes(...body.chunks);
    this.release(body);
    return whole;
  }

  release(body: Body): void {
    this.#total -= this.#held.get(body) ?? 0;
    this.#held.delete(body);
    body.chunks.length = 0;
  }
}
