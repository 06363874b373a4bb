// How often a key may be called: each call waits for its own moment, and clients take turns.

import type { Clock } from '../base/clock.ts';
import { patienceOf } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { Turns } from '../base/turns.ts';

/** Calls that the service of a key may be sent. */
export type KeyRate = {
  /** Each second, in the long run. */
  readonly perSecond: number;
  /** At once, after a pause. */
  readonly burst: number;
};

/** The rate of one key, or of several together: a bucket of tokens, whose next ones are promised in turns. */
export class KeyRateLimit {
  readonly #subject: string;
  readonly #rate: KeyRate;
  readonly #clock: Clock;
  readonly #turns: Turns;
  #tokens: number;
  #filled: number;
  #isFilling = false;

  /** @param subject as it stands after "calls for": `key gcpkms://…` */
  constructor(subject: string, rate: KeyRate, clock: Clock) {
    this.#subject = subject;
    this.#rate = rate;
    this.#clock = clock;
    this.#turns = new Turns(clock);
    this.#tokens = rate.burst;
    this.#filled = clock.now();
  }

  /**
   * Takes a token, or waits for one.
   *
   * @param tell told that it has to wait, and that it is refused
   * @throws OcicryptError `throttled`, at once if its moment would come too late for the call
   */
  async take(signal: AbortSignal, tell: (event: 'waited' | 'limited') => void): Promise<void> {
    this.#fill();
    if (this.#tokens >= 1 && this.#turns.waiting === 0) {
      this.#tokens--;
      return;
    }
    const wait = this.#untilToken(this.#turns.ahead(signal) + 1);
    const refuse = (milliseconds: number) => {
      tell('limited');
      return this.#tooOften(milliseconds);
    };
    if (this.#clock.now() + wait > patienceOf(signal)) throw refuse(wait);
    tell('waited');
    // Others may come meanwhile who have waited less.
    const waiting = this.#turns.wait(
      signal,
      { name: `its turn with ${this.#subject} (${setting('limits.rate')})` },
      () => refuse(this.#untilToken(this.#turns.ahead(signal) + 1)),
    );
    this.#serve();
    await waiting;
  }

  #fill(): void {
    const now = this.#clock.now();
    const { perSecond, burst } = this.#rate;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#filled) / 1000) * perSecond);
    this.#filled = now;
  }

  /** Milliseconds until there have been so many tokens. */
  #untilToken(count: number): number {
    return Math.max(0, ((count - this.#tokens) / this.#rate.perSecond) * 1000);
  }

  #serve(): void {
    if (this.#isFilling) return;
    this.#fill();
    while (this.#tokens >= 1 && this.#turns.admit()) this.#tokens--;
    if (this.#turns.waiting === 0) return;
    this.#isFilling = true;
    // A token is whole a moment later than the division says.
    this.#clock.after(Math.ceil(this.#untilToken(1)), () => {
      this.#isFilling = false;
      this.#serve();
    });
  }

  #tooOften(wait: number): OcicryptError {
    return new OcicryptError('throttled', `more than ${this.#rate.perSecond} calls a second for ${this.#subject}`, {
      hint: `try again later, or raise ${setting('limits.rate')}`,
      retryable: true,
      retryAfter: Math.ceil(wait),
    });
  }
}
