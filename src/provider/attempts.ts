// The limits of a request, its attempts, and the race of several key services. Every call ends.

import { eitherSignal, waitFor, withAttempt } from '../base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';

/** Milliseconds and counts; all of a call stays under every client's own patience. */
export type Limits = {
  /** For the whole request. */
  readonly total: number;
  /** For one call of a key service; what it takes to find credentials is not counted. */
  readonly attempt: number;
  /** How often one key service is called at the most. */
  readonly attempts: number;
  /** Between the starts of several key services that could all unwrap. */
  readonly stagger: number;
};

/** Of a request that may take `total`: an attempt has a third of it, and 3 s where there is room for them. */
export function limitsWithin(total: number): Limits {
  return { total, attempt: Math.min(total, Math.max(3_000, Math.floor(total / 3))), attempts: 3, stagger: 300 };
}

export const DEFAULT_LIMITS: Limits = limitsWithin(10_000);

/** One call of a key service under both of its limits, tried again as {@link withRetries} says. */
export function withAttempts<Value>(
  limits: Limits,
  signal: AbortSignal,
  what: string,
  run: (attempt: AbortSignal) => Promise<Value>,
): Promise<Value> {
  return withRetries(limits, signal, () => withAttempt(limits.attempt, signal, what, run));
}

/**
 * Runs `run` again while it fails with an error that is `retryable`, with full jitter from 100 ms to 2 s, or as long
 * as the service asked for (docs/errors.md). Where that is longer than the whole call may take, there is no other attempt:
 * waiting would only turn what the service said into a missed deadline.
 */
export async function withRetries<Value>(
  limits: Limits,
  signal: AbortSignal,
  run: () => Promise<Value>,
): Promise<Value> {
  const end = performance.now() + limits.total;
  const isWorthwhile = (error: unknown): error is OcicryptError =>
    !signal.aborted &&
    error instanceof OcicryptError &&
    error.retryable &&
    performance.now() + (error.retryAfter ?? 0) < end;
  const pauseAfter = (error: OcicryptError, attempt: number) =>
    waitFor(signal, { name: `another attempt after ${error.code}: ${error.message}` }, 'on', () =>
      pause(Math.max(error.retryAfter ?? 0, Math.random() * Math.min(2000, 100 * 2 ** attempt)), signal),
    );
  // By ourselves once: what succeeds at first, as nearly all does, neither loads nor runs what repeats it.
  try {
    return await run();
  } catch (error) {
    if (limits.attempts === 1 || !isWorthwhile(error)) throw error;
    await pauseAfter(error, 1);
  }
  const { default: pRetry } = await import('p-retry');
  return pRetry(run, {
    retries: limits.attempts - 2,
    minTimeout: 0,
    maxTimeout: 0,
    signal,
    shouldRetry: ({ error }) => isWorthwhile(error),
    onFailedAttempt: async ({ error, attemptNumber, retriesLeft }) => {
      if (isWorthwhile(error) && retriesLeft > 0) await pauseAfter(error, attemptNumber + 1);
    },
  });
}

/** Why none of several attempts succeeded: one error for each, in their order. */
export class AllFailed extends Error {
  readonly errors: readonly OcicryptError[];

  constructor(errors: readonly OcicryptError[]) {
    super('all attempts failed');
    this.errors = errors;
  }
}

/**
 * Starts the attempts in order, each `stagger` milliseconds after the one before or as soon as one fails, and returns
 * the first success; the others are ended. In the manner of RFC 8305 (Happy Eyeballs).
 *
 * @throws AllFailed
 */
export function firstSuccess<Value>(
  starts: readonly ((signal: AbortSignal) => Promise<Value>)[],
  stagger: number,
  signal: AbortSignal,
): Promise<Value> {
  const { promise, resolve, reject } = Promise.withResolvers<Value>();
  const others = new AbortController();
  const errors: OcicryptError[] = [];
  let next = 0;
  let failed = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const startNext = () => {
    clearTimeout(timer);
    const index = next++;
    const start = starts[index];
    if (start === undefined) return;
    timer = setTimeout(startNext, stagger);
    start(eitherSignal(signal, others.signal)).then(resolve, (error: unknown) => {
      errors[index] = asOcicryptError(error);
      failed++;
      if (failed === starts.length) reject(new AllFailed(errors));
      else startNext();
    });
  };
  startNext();
  return promise.finally(() => {
    clearTimeout(timer);
    next = starts.length;
    others.abort();
  });
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  const timer = setTimeout(resolve, milliseconds);
  signal.addEventListener('abort', () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(timer));
}
