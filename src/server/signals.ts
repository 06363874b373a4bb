// What a server does on a signal: it drains, ends at once, or reads its files again.

import type { ServiceManager } from './service-manager.ts';
import type { RunningServer, ServerLog } from './upkeep.ts';

/**
 * Starts a server and resolves when it has ended. SIGTERM and SIGINT let open calls end, a second one does not; SIGHUP
 * reads certificates and policy and opens logs again, once for each signal; SIGUSR1, which opens a debugger under Node and ends a Bun executable, does nothing.
 * Signals are taken before the server says that it serves, since who reads that may send one.
 */
export async function runUntilStopped(
  start: () => Promise<RunningServer>,
  log: ServerLog,
  manager: ServiceManager,
): Promise<void> {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  let server: RunningServer | undefined;
  let stopping: NodeJS.Signals | undefined;
  let told = Promise.resolve();
  /** Whether a signal came while the server was starting, with what it had read before. */
  let isDue = false;
  let reloaded = Promise.resolve();
  const reload = () => {
    isDue = server === undefined;
    reloaded = reloaded.then(async () => {
      if (server === undefined || stopping !== undefined) return;
      manager.reloading();
      await server.reload();
      if (stopping === undefined) manager.ready();
    });
  };
  const stop = (signal: NodeJS.Signals) => {
    if (stopping !== undefined) {
      log.warn({ signal }, 'ended at once');
      server?.close();
      end();
      return;
    }
    stopping = signal;
    told = manager.stopping();
    log.info({ signal }, 'draining');
    void server?.drain().then(end);
  };
  const handlers: readonly (readonly [NodeJS.Signals, (signal: NodeJS.Signals) => void])[] = [
    ['SIGTERM', stop],
    ['SIGINT', stop],
    ['SIGHUP', reload],
    ['SIGUSR1', () => {}],
  ];
  for (const [signal, handler] of handlers) process.on(signal, handler);
  try {
    server = await start();
    if (stopping === undefined) {
      log.info({ addresses: server.addresses, status: server.status }, 'serving');
      manager.ready();
      if (isDue) reload();
    } else void server.drain().then(end);
    await ended;
    await told;
    log.info({}, 'stopped');
  } finally {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  }
}
