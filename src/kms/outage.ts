// What all callers of a key know of its service: whether it is down. While it is, one call at a time finds out whether it
// is back, and the others wait for that.

import type { Clock } from '../base/clock.ts';
import { OcicryptError } from '../base/errors.ts';
import { Turns } from '../base/turns.ts';

/** Failures in a row, without an answer between them, after which a service counts as down. */
const FAILURES = 5;
/** Milliseconds between two calls that find out whether it is back: each pause is twice as long as the one before. */
const PAUSES = { first: 100, longest: 500 } as const;
/** Calls at once with which a service that is back shows that it can bear all. */
const ENOUGH = 64;
/** Milliseconds without an answer that are the service's fault: a caller may leave it less time than it needs. */
const SILENCE_MILLISECONDS = 2500;

/** How many calls of all keys may wait for services that are down; the rest of a server's room is for other keys. */
export type WaitingRoom = { readonly size: number; taken: number };

/** A call, what else it waits for, and who is told that it has to wait for the service. */
type GuardedCall<Value> = {
  readonly onWait: () => void;
  readonly ready: () => Promise<void>;
  readonly call: () => Promise<Value>;
};

/** Lets the calls of one key pass, and holds them back while its service is down. */
export class OutageGuard {
  readonly #key: string;
  readonly #room: WaitingRoom;
  readonly #clock: Clock;
  #failures = 0;
  #outage: Outage | undefined;

  constructor(key: string, room: WaitingRoom, clock: Clock) {
    this.#key = key;
    this.#room = room;
    this.#clock = clock;
  }

  /**
   * Makes the call, once that is worthwhile.
   *
   * @throws OcicryptError what the call throws; how the service failed last, if the time of this call is over before it
   * is back
   */
  async run<Value>(signal: AbortSignal, { onWait, ready, call }: GuardedCall<Value>): Promise<Value> {
    const outage = this.#outage;
    if (outage !== undefined) await this.#waitFor(outage, signal, onWait);
    try {
      await ready();
      return await this.#watch(outage, signal, call);
    } finally {
      outage?.leave();
    }
  }

  async #watch<Value>(outage: Outage | undefined, signal: AbortSignal, call: () => Promise<Value>): Promise<Value> {
    const begun = this.#clock.now();
    try {
      const value = await call();
      this.#answered(outage);
      return value;
    } catch (error) {
      if (isOutage(error, this.#clock.now() - begun)) this.#failed(outage, error);
      else if (!signal.aborted) this.#answered(outage);
      throw error;
    }
  }

  async #waitFor(outage: Outage, signal: AbortSignal, onWait: () => void): Promise<void> {
    if (outage.enterAtOnce()) return;
    if (this.#room.taken >= this.#room.size && !outage.turns.giveWay(signal)) throw outage.last;
    onWait();
    this.#room.taken++;
    try {
      await outage.turns.wait(signal, { name: `the service of key ${this.#key}, which is down` }, () => outage.last);
    } finally {
      this.#room.taken--;
    }
  }

  /** Whatever the answer was, the service is there. */
  #answered(outage: Outage | undefined): void {
    this.#failures = 0;
    if (outage === undefined || outage !== this.#outage) return;
    if (outage.isOver()) this.#outage = undefined;
  }

  /** Calls from before it was known to be down say nothing new. */
  #failed(outage: Outage | undefined, error: OcicryptError): void {
    if (this.#outage === undefined) {
      if (++this.#failures >= FAILURES) this.#outage = new Outage(error, this.#clock);
    } else if (outage === this.#outage) {
      outage.goOn(error);
    }
  }
}

/** One outage, from the moment at which it is known until the service bears its callers again. */
class Outage {
  readonly turns: Turns;
  last: OcicryptError;
  readonly #clock: Clock;
  /** Calls that may be made at the same time: one, and one more with each answer, which doubles them every time. */
  #allowed = 1;
  #active = 0;
  #tried = 0;
  #next = 0;
  #isOver = false;

  constructor(error: OcicryptError, clock: Clock) {
    this.#clock = clock;
    this.turns = new Turns(clock);
    this.last = error;
    this.#pause();
  }

  enterAtOnce(): boolean {
    const mayEnter = this.turns.waiting === 0 && this.#hasRoom();
    if (mayEnter) this.#active++;
    return mayEnter;
  }

  leave(): void {
    this.#active--;
    this.#admit();
  }

  /** An answer has come. */
  isOver(): boolean {
    this.#allowed++;
    this.#isOver = this.#allowed > ENOUGH || this.turns.waiting === 0;
    return this.#isOver;
  }

  /** Another failure has come. Several calls that fail together are one. */
  goOn(error: OcicryptError): void {
    this.last = error;
    this.#allowed = 1;
    if (this.#clock.now() >= this.#next) this.#pause();
  }

  #hasRoom(): boolean {
    return this.#isOver || (this.#active < this.#allowed && this.#clock.now() >= this.#next);
  }

  #pause(): void {
    const longest = Math.min(PAUSES.longest, PAUSES.first * 2 ** this.#tried++);
    const pause = Math.ceil(longest * (0.5 + this.#clock.random() / 2));
    this.#next = this.#clock.now() + pause;
    this.#clock.after(pause, () => this.#admit());
  }

  #admit(): void {
    while (this.#hasRoom() && this.turns.admit()) this.#active++;
  }
}

function isOutage(error: unknown, milliseconds: number): error is OcicryptError {
  if (!(error instanceof OcicryptError && error.retryable)) return false;
  return error.code === 'unavailable' || (error.code === 'deadline-exceeded' && milliseconds >= SILENCE_MILLISECONDS);
}
