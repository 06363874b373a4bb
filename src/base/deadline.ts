// Deadlines, and what is waited for when one is missed: the key service, or a proxy, token service or helper before it.

import { OcicryptError } from './errors.ts';
import type { Client } from './fair-queue.ts';
import { setting } from './setting.ts';

/** Something that takes time. */
export type Wait = {
  /** As it stands after "waiting for": `the token service sts.amazonaws.com`. */
  readonly name: string;
  /** What to do if it takes too long. */
  readonly hint?: string;
};

/** A wait that consists of others says what it waits for when it is asked. */
type Waiting = Wait | (() => Wait | undefined);

/**
 * What an attempt's clock does during a wait, because credentials have no part in the time of a key service: it starts
 * `anew` for the wait and again after it, or stands `still` and leaves the end to the deadline of the whole call.
 */
export type WaitClock = 'anew' | 'on' | 'still';

/** What is called with a signal that ends it. */
type Run<Value> = (signal: AbortSignal) => Promise<Value>;

/** Each signal that a deadline gave out, and whatever is derived from it. */
const scopes = new WeakMap<AbortSignal, Scope>();

/**
 * Runs `run` for at most `milliseconds`; it ends then even if `run` ignores the signal that it was given.
 *
 * @param outer ends it earlier
 * @param what what is named in the error ("wrapping", "key …"), asked for when it is needed
 * @throws OcicryptError `deadline-exceeded`, which names what was waited for; retryable only for one attempt of several
 */
export function withDeadline<Value>(
  milliseconds: number,
  outer: AbortSignal | undefined,
  what: string | (() => string),
  run: Run<Value>,
): Promise<Value> {
  return runWithin(new Scope(milliseconds, undefined, scopeOf(outer)), outer, what, run);
}

/** The part of a whole call in which it is still worth beginning something: the rest is for what was begun. */
export const PATIENCE = 0.8;

/**
 * When, by `performance.now()`, nothing is worth beginning any more under this signal; Infinity where it has no
 * deadline. Shared work has the patience of who started it.
 */
export function patienceOf(signal: AbortSignal): number {
  return scopeOf(signal)?.patience ?? Number.POSITIVE_INFINITY;
}

/** Whose call this is, for queues in which clients take turns; undefined if that was not said. */
export function clientOf(signal: AbortSignal): Client {
  return scopeOf(signal)?.client;
}

/**
 * Says of a signal that its owner ends after so many milliseconds by itself: how long its call may take, and whose it is.
 * What runs under it, and under signals that are derived from it, is asked by {@link patienceOf} and {@link clientOf}.
 */
export function markCall(signal: AbortSignal, milliseconds: number, client?: Client): void {
  scopes.set(signal, new Scope(milliseconds, undefined, undefined, { client }));
}

/** As {@link withDeadline}, for one attempt: its clock is started again or stopped by waits that say so. */
export function withAttempt<Value>(
  milliseconds: number,
  outer: AbortSignal,
  what: string,
  run: Run<Value>,
): Promise<Value> {
  return runWithin(new Scope(milliseconds, milliseconds, scopeOf(outer)), outer, what, run);
}

/**
 * Runs what several attempts share: it has an attempt's clock of its own, as long as that of `first`, since it outlives
 * the attempt that started it.
 *
 * @param first the signal of who started it
 * @param outer ends it
 */
export function withSharedAttempt<Value>(first: AbortSignal, outer: AbortSignal, run: Run<Value>): Promise<Value> {
  const limit = scopeOf(first)?.attempt;
  return runWithin(new Scope(limit, limit, undefined, scopeOf(first)), outer, undefined, run);
}

/** Tells the deadline of `signal`, if it is under one, what is waited for while `run` runs. */
export async function waitFor<Value>(
  signal: AbortSignal,
  wait: Waiting,
  clock: WaitClock,
  run: () => Promise<Value>,
): Promise<Value> {
  const end = startWait(signal, wait, clock);
  try {
    return await run();
  } finally {
    end();
  }
}

/** As {@link waitFor}, for what ends elsewhere: the function that is returned ends the wait, the first time it is called. */
export function startWait(signal: AbortSignal, wait: Waiting, clock: WaitClock): () => void {
  return scopeOf(signal)?.enter(wait, clock) ?? (() => {});
}

/** What is waited for under this signal. */
export function currentWait(signal: AbortSignal): Wait | undefined {
  return scopeOf(signal)?.current();
}

/** `AbortSignal.any`, under the deadline of the first. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal): AbortSignal {
  const either = AbortSignal.any([signal, other]);
  const scope = scopeOf(signal);
  if (scope !== undefined) scopes.set(either, scope);
  return either;
}

function scopeOf(signal: AbortSignal | undefined): Scope | undefined {
  return signal === undefined ? undefined : scopes.get(signal);
}

/** One deadline: its clock, and what is waited for under it in the order in which that began. */
class Scope {
  /** The limit of an attempt; undefined for a deadline of several. */
  readonly attempt: number | undefined;
  expire: () => void = () => {};
  readonly limit: number | undefined;
  readonly patience: number;
  readonly client: Client;
  readonly #parent: Scope | undefined;
  readonly #waits = new Set<{ readonly wait: Waiting }>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #still = 0;

  /** @param origin whose patience it has, and on whose behalf it is */
  constructor(
    limit: number | undefined,
    attempt: number | undefined,
    parent: Scope | undefined,
    origin: { readonly client: Client; readonly patience?: number } | undefined = parent,
  ) {
    this.limit = limit;
    this.attempt = attempt;
    this.#parent = parent;
    const isWhole = limit !== undefined && attempt === undefined;
    const own = isWhole ? performance.now() + limit * PATIENCE : Number.POSITIVE_INFINITY;
    this.patience = Math.min(own, origin?.patience ?? Number.POSITIVE_INFINITY);
    this.client = origin?.client;
  }

  start(): void {
    clearTimeout(this.#timer);
    if (this.limit !== undefined && this.#still === 0) this.#timer = setTimeout(() => this.expire(), this.limit);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.expire = () => {};
    // Whatever still runs must not start the clock again.
    this.#still = Number.POSITIVE_INFINITY;
  }

  /** The one that began last. */
  current(): Wait | undefined {
    return [...this.#waits]
      .reverse()
      .map(({ wait }) => (typeof wait === 'function' ? wait() : wait))
      .find((wait) => wait !== undefined);
  }

  enter(wait: Waiting, clock: WaitClock): () => void {
    const entry = { wait };
    for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.#parent) scope.#waits.add(entry);
    this.#turn(clock, 1);
    return () => {
      if (!this.#waits.has(entry)) return;
      for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.#parent) scope.#waits.delete(entry);
      this.#turn(clock, -1);
    };
  }

  #turn(clock: WaitClock, by: 1 | -1): void {
    if (clock === 'on' || this.attempt === undefined) return;
    if (clock === 'still') this.#still += by;
    this.start();
  }
}

function runWithin<Value>(
  scope: Scope,
  outer: AbortSignal | undefined,
  what: string | (() => string) | undefined,
  run: Run<Value>,
): Promise<Value> {
  const { promise, resolve, reject } = Promise.withResolvers<Value>();
  const controller = new AbortController();
  const end = (reason: OcicryptError) => {
    // Whatever runs has heard of it before the caller does.
    controller.abort(reason);
    reject(reason);
  };
  const subject = () => (typeof what === 'function' ? what() : what);
  const cancel = () => end(endOf(outer, subject(), scope.current()));
  scope.expire = () =>
    end(
      missed(subject(), `no answer within ${scope.limit} ms`, scope.current(), {
        retryable: scope.attempt !== undefined,
      }),
    );
  scopes.set(controller.signal, scope);
  scope.start();
  if (outer?.aborted) cancel();
  else {
    outer?.addEventListener('abort', cancel, { once: true });
    // A `run` that throws at once must not leave the timer behind, whose rejection would be unhandled.
    (async () => run(controller.signal))().then(resolve, reject);
  }
  return promise.finally(() => {
    scope.stop();
    outer?.removeEventListener('abort', cancel);
  });
}

/** Why work under this signal has ended: its reason if that is ours, else a missed deadline. */
export function endedBy(signal: AbortSignal): OcicryptError {
  return endOf(signal, undefined, currentWait(signal));
}

function endOf(signal: AbortSignal | undefined, subject: string | undefined, wait: Wait | undefined): OcicryptError {
  const reason: unknown = signal?.reason;
  if (reason instanceof OcicryptError) return reason;
  const isTime = reason instanceof DOMException && reason.name === 'TimeoutError';
  return missed(subject, isTime ? 'no answer in time' : 'ended by the caller', wait, { cause: reason });
}

function missed(
  subject: string | undefined,
  how: string,
  wait: Wait | undefined,
  details: { readonly cause?: unknown; readonly retryable?: boolean },
): OcicryptError {
  const message = `${subject === undefined ? '' : `${subject}: `}${how}${wait === undefined ? '' : `, waiting for ${wait.name}`}`;
  return new OcicryptError('deadline-exceeded', message, { ...details, hint: wait?.hint ?? slow() });
}

const slow = () =>
  `the key service is slow or cannot be reached: check the network, or allow more time with ${setting('limits.total')}`;
