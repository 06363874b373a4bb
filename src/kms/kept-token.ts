// A token that is kept until shortly before it ends, and a little longer where it cannot be renewed at once.

import { share, type Work } from '../base/share.ts';

/** The value of `authorization`, and when it ends, in milliseconds since 1970. */
export type TimedToken = { readonly authorization: string; readonly end: number };

export interface KeptToken {
  authorization(signal: AbortSignal): Promise<string>;
  /** Throws the token away, because the service did not take it. */
  forget(): void;
}

/** @param reserve milliseconds before its end from which on a token is renewed */
export function keepToken(reserve: number, ask: Work<TimedToken>): KeptToken {
  let token: TimedToken | undefined;
  const refresh = share(async (signal) => {
    token = await ask(signal);
    return token.authorization;
  });
  return {
    async authorization(signal) {
      const previous = token;
      if (previous !== undefined && Date.now() < previous.end - reserve) return previous.authorization;
      try {
        return await refresh(signal);
      } catch (error) {
        // What cannot be renewed now is good until it ends.
        if (previous !== undefined && Date.now() < previous.end) return previous.authorization;
        throw error;
      }
    },
    forget() {
      token = undefined;
    },
  };
}
