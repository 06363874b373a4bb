// Keeps a token: renewed ahead of its end, once for all callers, and used to its end if no other can be had.

import { share, type Work } from '../base/share.ts';

/** A token and its times, in milliseconds from the moment it was asked for. */
export type NewToken<Token> = {
  readonly token: Token;
  /** Infinite for one that does not end. */
  readonly lifetime: number;
  /** How long before its end it is renewed. */
  readonly reserve: number;
};

export class TokenCache<Token> {
  readonly #now: () => number;
  readonly #renew: Work<Token>;
  #kept: { readonly token: Token; readonly renewal: number; readonly end: number } | undefined;

  /**
   * @param ask gives a new token, or throws
   * @param now a clock in milliseconds that is never set: the time of day may jump by hours
   */
  constructor(ask: Work<NewToken<Token>>, now: () => number = () => performance.now()) {
    this.#now = now;
    this.#renew = share(async (signal) => {
      const asked = now();
      const { token, lifetime, reserve } = await ask(signal);
      const end = asked + lifetime;
      this.#kept = { token, renewal: end - reserve, end };
      return token;
    });
  }

  /** The token to use. Errors are those of `ask`. */
  async read(signal: AbortSignal): Promise<Token> {
    const kept = this.#kept;
    if (kept !== undefined && this.#now() < kept.renewal) return kept.token;
    try {
      return await this.#renew(signal);
    } catch (error) {
      if (kept !== undefined && this.#now() < kept.end) return kept.token;
      throw error;
    }
  }

  /** Throws the token away, because the service did not take it. */
  forget(): void {
    this.#kept = undefined;
  }
}
