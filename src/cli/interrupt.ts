// The only code that handles the signals by which people end a command: what was begun is tidied up first.

import { OcicryptError } from '../base/errors.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs work that can be ended by a signal. After it the process dies of the same signal, as its caller expects; a
 * second one ends it at once.
 */
export async function untilInterrupted<Result>(run: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const controller = new AbortController();
  let received: NodeJS.Signals | undefined;
  const stop = (name: NodeJS.Signals) => {
    received = name;
    forget();
    controller.abort(new OcicryptError('deadline-exceeded', 'interrupted, nothing was changed'));
  };
  const forget = () => {
    for (const name of SIGNALS) process.off(name, stop);
  };
  for (const name of SIGNALS) process.once(name, stop);
  try {
    return await run(controller.signal);
  } finally {
    forget();
    if (received !== undefined) process.kill(process.pid, received);
  }
}
