// Lets callers wait for their turn: clients in turns, each until it is let in, refused, or leaves.

import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import { clientOf, endedBy, patienceOf, type Wait, waitFor } from './deadline.ts';
import { FairQueue } from './fair-queue.ts';

/** Who waits; each of the functions ends the wait. */
type Waiter = { readonly admit: () => void; readonly refuse: () => void };

/** A queue of calls under their signals. */
export class Turns {
  readonly #queue = new FairQueue<Waiter>();
  readonly #clock: Clock;

  constructor(clock: Clock = SYSTEM_CLOCK) {
    this.#clock = clock;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** How many are let in before a call under this signal that comes now. */
  ahead(signal: AbortSignal): number {
    return this.#queue.ahead(clientOf(signal));
  }

  /**
   * Waits for {@link admit}, while the clock of the attempt stands still.
   *
   * @param wait what is waited for
   * @param refusal the error if the call's patience ends first, or room is made for another client
   * @throws the refusal; why the signal has ended
   */
  async wait(signal: AbortSignal, wait: Wait, refusal: () => Error): Promise<void> {
    if (signal.aborted) throw endedBy(signal);
    const client = clientOf(signal);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Who is refused is out of the queue before anybody else can be let in: a place must not go to one that has left.
    const end = (error: Error) => {
      this.#queue.remove(client, waiter);
      reject(error);
    };
    const waiter: Waiter = { admit: resolve, refuse: () => end(refusal()) };
    const stop = () => end(endedBy(signal));
    this.#queue.add(client, waiter);
    signal.addEventListener('abort', stop, { once: true });
    const patience = patienceOf(signal) - this.#clock.now();
    const cancel = Number.isFinite(patience) ? this.#clock.after(Math.max(0, patience), waiter.refuse) : undefined;
    try {
      await waitFor(signal, wait, 'still', () => promise);
    } finally {
      signal.removeEventListener('abort', stop);
      cancel?.();
    }
  }

  /** Lets the next one in; false if none waits. */
  admit(): boolean {
    const next = this.#queue.next();
    next?.admit();
    return next !== undefined;
  }

  /** Refuses one that waits, so that a call under this signal can; false if its client has no better claim. */
  giveWay(signal: AbortSignal): boolean {
    const last = this.#queue.giveWay(clientOf(signal));
    last?.refuse();
    return last !== undefined;
  }
}

/** A number of places for calls, in which clients take turns if there are too few. */
export class Places {
  readonly #count: number;
  readonly #turns = new Turns();
  #taken = 0;

  constructor(count: number) {
    this.#count = count;
  }

  get taken(): number {
    return this.#taken;
  }

  get waiting(): number {
    return this.#turns.waiting;
  }

  get isFull(): boolean {
    return this.#taken >= this.#count;
  }

  /**
   * Waits for a place; a caller that got one must {@link leave}. Parameters and errors as those of {@link Turns.wait}.
   */
  async take(signal: AbortSignal, wait: Wait, refusal: () => Error): Promise<void> {
    if (this.isFull) await this.#turns.wait(signal, wait, refusal);
    else this.#taken++;
  }

  /** Hands the place to the next caller. */
  leave(): void {
    if (!this.#turns.admit()) this.#taken--;
  }

  /** As {@link Turns.giveWay}. */
  giveWay(signal: AbortSignal): boolean {
    return this.#turns.giveWay(signal);
  }
}
