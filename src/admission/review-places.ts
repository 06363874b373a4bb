// Places for reviews: each client has so many, and leaves those of others alone.

import type { Client } from '../base/fair-queue.ts';

/** Counts what is at work, by client. */
export class ReviewPlaces {
  readonly #most: number;
  readonly #taken = new Map<Client, number>();

  /** @param most how many one client may have */
  constructor(most: number) {
    this.#most = most;
  }

  /** @returns what gives the place back, to be called once; undefined if the client has all of its places */
  take(client: Client): (() => void) | undefined {
    const taken = this.#taken.get(client) ?? 0;
    if (taken >= this.#most) return undefined;
    this.#taken.set(client, taken + 1);
    return () => {
      const left = (this.#taken.get(client) ?? 1) - 1;
      if (left > 0) this.#taken.set(client, left);
      else this.#taken.delete(client);
    };
  }
}
