// Handles the signals by which people end a command: what was begun is tidied up first.

import { describeError, type OcicryptError } from '../base/errors.ts';
import type { Terminal } from './terminal.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** How long a command may tidy up. What hangs, or does not listen, is given up after it. */
const PATIENCE_MILLISECONDS = 3000;

/**
 * Runs work that can be ended by a signal. After it the process dies of the same signal, as its caller expects, also if the
 * work was done before it noticed; a second one ends it at once.
 *
 * @param describe what the signal interrupts, at the moment that it comes; it is said on standard error
 */
export async function untilInterrupted<Result>(
  terminal: Terminal,
  run: (signal: AbortSignal) => Promise<Result>,
  describe: () => OcicryptError,
): Promise<Result> {
  const controller = new AbortController();
  const givenUp = Promise.withResolvers<never>();
  let received: NodeJS.Signals | undefined;
  let timer: NodeJS.Timeout | undefined;
  const stop = (name: NodeJS.Signals) => {
    received = name;
    forget();
    const error = describe();
    controller.abort(error);
    timer = setTimeout(() => givenUp.reject(error), PATIENCE_MILLISECONDS);
  };
  const forget = () => {
    for (const name of SIGNALS) process.off(name, stop);
  };
  for (const name of SIGNALS) process.once(name, stop);
  try {
    return await Promise.race([run(controller.signal), givenUp.promise]);
  } catch (error) {
    // The process will not live to say it elsewhere.
    if (received !== undefined) terminal.say(`ocicrypt-kms: ${describeError(error)}`);
    throw error;
  } finally {
    clearTimeout(timer);
    forget();
    if (received !== undefined) process.kill(process.pid, received);
  }
}
