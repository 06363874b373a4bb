// The only loop that repeats what failed in passing. How often and for how long is its caller's to say.

import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import { waitFor } from './deadline.ts';
import { OcicryptError } from './errors.ts';

export type RetryRules = {
  /**
   * How many milliseconds after a failure that may pass another attempt is worthwhile, if at all. Asked once for each.
   *
   * @param usual what is usual, or what the service asked for
   */
  readonly pauseAfter: (error: OcicryptError, usual: number) => number | undefined;
  /** Milliseconds: each pause is twice as long as the one before, up to the longest. */
  readonly pauses: { readonly first: number; readonly longest: number };
  /** Ends a pause, and no attempt is made after it. */
  readonly signal: AbortSignal;
  readonly clock?: Clock | undefined;
};

/**
 * Runs `run` until it succeeds, fails for good, or is not worth another attempt.
 *
 * @throws OcicryptError the last failure. One that was retryable is not so any more, so that a loop around this one does
 * not multiply the attempts; and it says how often and how long it was tried
 */
export async function retry<Value>(run: () => Promise<Value>, rules: RetryRules): Promise<Value> {
  const { pauseAfter, pauses, signal, clock = SYSTEM_CLOCK } = rules;
  const started = clock.now();
  for (let attempts = 1; ; attempts++) {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof OcicryptError && error.retryable) || signal.aborted) throw error;
      const longest = Math.min(pauses.longest, pauses.first * 2 ** (attempts - 1));
      const pause = pauseAfter(error, usualPause(error, longest, clock.random()));
      if (pause === undefined) throw exhausted(error, attempts, clock.now() - started);
      const wait = { name: `another attempt after ${error.code}: ${error.message}` };
      await waitFor(signal, wait, 'on', () => sleep(pause, signal, clock));
      if (signal.aborted) throw error;
    }
  }
}

/** What chance adds to a wait that a service asks for: callers that it told the same do not all come back at once. */
const SPREAD = { share: 0.1, milliseconds: 50 } as const;
/** Milliseconds, even if it asks for none. */
const LEAST_PAUSE_MILLISECONDS = 50;

/** Between half and the whole of what it may be, or what the service asked for and a little more. */
function usualPause({ retryAfter }: OcicryptError, longest: number, random: number): number {
  if (retryAfter === undefined) return longest * (0.5 + random / 2);
  return retryAfter + LEAST_PAUSE_MILLISECONDS + (retryAfter * SPREAD.share + SPREAD.milliseconds) * random;
}

function exhausted(error: OcicryptError, attempts: number, milliseconds: number): OcicryptError {
  const tried = `, tried ${attempts} times in ${(milliseconds / 1000).toFixed(1)} s`;
  return error.with({ retryable: false, after: attempts === 1 ? '' : tried });
}

function sleep(milliseconds: number, signal: AbortSignal, clock: Clock): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(milliseconds, resolve);
  if (signal.aborted) resolve();
  const stop = () => resolve();
  signal.addEventListener('abort', stop, { once: true });
  return promise.finally(() => {
    cancel();
    signal.removeEventListener('abort', stop);
  });
}
