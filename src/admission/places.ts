// Places for reviews: each client has so many, and leaves those of others alone.

import type { Client } from '../base/fair-queue.ts';

/** Counts what is at work, by client. */
export class Places {
  readonly #most: number;
  readonly #taken = new Map<Client, number>();

  /** @param most how many one client may have */
  constructor(most: number) {
    this.#most = most;
  }

  /** @returns what gives the places back, to be called once; undefined if the client has not so many left */
  take(client: Client, count = 1): (() => void) | undefined {
    const taken = this.#taken.get(client) ?? 0;
    if (taken + count > this.#most) return undefined;
    this.#taken.set(client, taken + count);
    return () => {
      const left = (this.#taken.get(client) ?? count) - count;
      if (left > 0) this.#taken.set(client, left);
      else this.#taken.delete(client);
    };
  }
}
