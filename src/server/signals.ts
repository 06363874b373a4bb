// The only code that takes signals.

import type { RunningServer, ServerLog } from './start.ts';

/**
 * Resolves when the server has ended. SIGTERM and SIGINT let open calls end, a second one does not; SIGHUP reads
 * certificates again; SIGUSR1, which opens a debugger under Node and ends a Bun executable, does nothing.
 */
export async function untilStopped(server: RunningServer, log: ServerLog): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) {
      log.warn({ signal }, 'ended at once');
      server.close();
      resolve();
      return;
    }
    stopping = true;
    log.info({ signal }, 'draining');
    void server.drain().then(resolve);
  };
  const reload = () => server.reload();
  const ignore = () => {};
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('SIGHUP', reload);
  process.on('SIGUSR1', ignore);
  try {
    await promise;
    log.info({}, 'stopped');
  } finally {
    process.off('SIGTERM', stop);
    process.off('SIGINT', stop);
    process.off('SIGHUP', reload);
    process.off('SIGUSR1', ignore);
  }
}
