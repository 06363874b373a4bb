// One piece of work for everybody who asks while it runs, ended when nobody waits for it any more.

/** Work that ends by its signal. */
export type Work<Result> = (signal: AbortSignal) => Promise<Result>;

/**
 * The work, run once at a time: whoever asks while it runs waits for the same result. A caller's signal ends that
 * caller's wait, with the signal's reason; the work is ended with the last wait.
 */
export function share<Result>(work: Work<Result>): Work<Result> {
  let running: { readonly result: Promise<Result>; readonly controller: AbortController; waiting: number } | undefined;

  function start() {
    const controller = new AbortController();
    const run = { result: work(controller.signal), controller, waiting: 0 };
    const stop = () => {
      if (running === run) running = undefined;
    };
    run.result.then(stop, stop);
    running = run;
    return run;
  }

  return async (signal) => {
    signal.throwIfAborted();
    const run = running ?? start();
    run.waiting++;
    let abort = () => {};
    try {
      return await new Promise<Result>((resolve, reject) => {
        abort = () => reject(signal.reason);
        signal.addEventListener('abort', abort);
        run.result.then(resolve, reject);
      });
    } finally {
      signal.removeEventListener('abort', abort);
      run.waiting--;
      if (run.waiting === 0 && running === run) {
        running = undefined;
        run.controller.abort();
      }
    }
  };
}
