// The limits of a request, its attempts, and the race of several key services. Every call ends.

import { type Clock, SYSTEM_CLOCK } from '../base/clock.ts';
import { eitherSignal, PATIENCE, patienceOf, withAttempt } from '../base/deadline.ts';
import type { ErrorCode, OcicryptError } from '../base/errors.ts';
import { retry } from '../base/retry.ts';

/** Milliseconds and counts; all of a call stays under every client's own patience. */
export type Limits = {
  /** Milliseconds for the whole request. */
  readonly total: number;
  /** Milliseconds for one call of a key service; what it takes to find credentials is not counted. */
  readonly attempt: number;
  /** How often a key service is called at the most that throttles, or whose answers are damaged; 1 repeats nothing at all. */
  readonly attempts: number;
  /** Milliseconds between the starts of several key services that could all unwrap. */
  readonly stagger: number;
};

/** Of a request that may take `total`: an attempt has a third of it, and 3 s if there is room for them. */
export function limitsWithin(total: number): Limits {
  return { total, attempt: Math.min(total, Math.max(3_000, Math.floor(total / 3))), attempts: 5, stagger: 300 };
}

/** Those of a request that may take 10 seconds. */
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

/** Milliseconds. */
const PAUSES = { first: 100, longest: 2000 } as const;
/** What passes by itself, if at all, within a few attempts; an outage is a matter of time. */
const COUNTED: ReadonlySet<ErrorCode> = new Set(['throttled', 'integrity']);
/** Milliseconds for an address at which nothing answers: restarts take as long, and who misspelt it waits no longer. */
const UNREACHED_PATIENCE_MILLISECONDS = 3000;

/**
 * Runs `run` again while it fails with an error that is `retryable`, after pauses that grow, or as long as the service
 * asks for (docs/errors.md): until four fifths of the whole call have passed, so that the last attempt has the rest.
 * Throttling and damaged answers are counted beside that. One attempt means that nothing is repeated, whatever it is.
 */
export function withRetries<Value>(
  { attempts, total }: Limits,
  signal: AbortSignal,
  run: () => Promise<Value>,
  clock: Clock = SYSTEM_CLOCK,
): Promise<Value> {
  if (attempts === 1) return run();
  const begun = clock.now();
  const until = Math.min(patienceOf(signal), begun + total * PATIENCE);
  let counted = 0;
  const pauseAfter = (error: OcicryptError, usual: number) => {
    if (COUNTED.has(error.code) && ++counted >= attempts) return undefined;
    const end = error.unreached ? Math.min(until, begun + UNREACHED_PATIENCE_MILLISECONDS) : until;
    const left = end - clock.now();
    if (usual <= left) return usual;
    // The last attempt comes in time, if only the pause is ours to choose.
    return error.retryAfter === undefined && left >= PAUSES.first ? left : undefined;
  };
  return retry(run, { pauseAfter, pauses: PAUSES, signal, clock });
}

/**
 * One of several that are started; why it failed is its own to keep. `makeWay` is to be called if it will take longer than
 * usual: the next need not wait.
 */
export type Start<Value> = (signal: AbortSignal, makeWay: () => void) => Promise<Value>;

/**
 * Starts them in order, each `stagger` milliseconds after the one before or as soon as that fails or makes way, and
 * returns the first success; the others are ended. In the manner of RFC 8305 (Happy Eyeballs).
 *
 * @returns undefined if none succeeded
 */
export function firstSuccess<Value>(
  starts: readonly Start<Value>[],
  stagger: number,
  signal: AbortSignal,
): Promise<Value | undefined> {
  const { promise, resolve } = Promise.withResolvers<Value | undefined>();
  const others = new AbortController();
  let next = 0;
  let failed = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const startNext = () => {
    clearTimeout(timer);
    const index = next++;
    const start = starts[index];
    if (start === undefined) return;
    timer = setTimeout(startNext, stagger);
    const makeWay = () => {
      if (next === index + 1) startNext();
    };
    start(eitherSignal(signal, others.signal), makeWay).then(resolve, () => {
      failed++;
      if (failed === starts.length) resolve(undefined);
      else makeWay();
    });
  };
  if (starts.length === 0) resolve(undefined);
  else startNext();
  return promise.finally(() => {
    clearTimeout(timer);
    next = starts.length;
    others.abort();
  });
}
