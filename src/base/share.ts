// One piece of work for all who ask while it runs, ended when none of them waits any more.

import { currentWait, endedBy, waitFor, withSharedAttempt } from './deadline.ts';

/** Work that ends by its signal. */
export type Work<Result> = (signal: AbortSignal) => Promise<Result>;

/** One run of some work, which several callers wait for. */
export class SharedRun<Result> {
  readonly result: Promise<Result>;
  readonly #controller = new AbortController();
  #signal = this.#controller.signal;
  #waiting = 0;

  /** @param first the signal of who starts it: it says how long an attempt may take, and ends nothing by itself */
  constructor(first: AbortSignal, work: Work<Result>) {
    this.result = withSharedAttempt(first, this.#controller.signal, (signal) => {
      this.#signal = signal;
      return work(signal);
    });
  }

  /**
   * Waits for the result, whose time is not the caller's: the run has a clock of its own. The caller's signal ends the
   * wait with its reason; the work is ended with the last wait.
   *
   * @param onDeserted told when the last wait has ended
   */
  async join(signal: AbortSignal, onDeserted: () => void): Promise<Result> {
    this.#waiting++;
    const left = Promise.withResolvers<never>();
    let isWaiting = true;
    const leave = () => {
      if (!isWaiting) return;
      isWaiting = false;
      if (--this.#waiting > 0) return;
      onDeserted();
      this.#controller.abort(endedBy(signal));
    };
    // At once: the next caller must not join a run that is about to end.
    const stop = () => {
      left.reject(endedBy(signal));
      leave();
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      return await waitFor(
        signal,
        () => currentWait(this.#signal),
        'still',
        () => Promise.race([this.result, left.promise]),
      );
    } finally {
      signal.removeEventListener('abort', stop);
      leave();
    }
  }
}

/** Runs by name: who asks for what is run already waits for that. */
export class SharedRuns<Result> {
  readonly #running = new Map<string, SharedRun<Result>>();

  /** @throws what the work throws; the signal's reason */
  run(name: string, signal: AbortSignal, work: Work<Result>): Promise<Result> {
    const run = this.#running.get(name) ?? new SharedRun(signal, work);
    this.#running.set(name, run);
    const end = () => {
      if (this.#running.get(name) === run) this.#running.delete(name);
    };
    run.result.then(end, end);
    return run.join(signal, end);
  }
}

/** The work, run once at a time: everybody who asks while it runs waits for the same result. */
export function share<Result>(work: Work<Result>): Work<Result> {
  const runs = new SharedRuns<Result>();
  return async (signal) => {
    if (signal.aborted) throw endedBy(signal);
    return runs.run('', signal, work);
  };
}

/** What all keys that were opened with the same settings share, by its name: their credentials, which are found once. */
export class SharedBySettings<Value> {
  readonly #values = new WeakMap<object, Map<string, Value>>();

  /** @param settings the object itself, not its content */
  get(settings: object, name: string, create: () => Value): Value {
    const values = this.#values.get(settings) ?? new Map<string, Value>();
    this.#values.set(settings, values);
    const value = values.get(name) ?? create();
    values.set(name, value);
    return value;
  }
}
