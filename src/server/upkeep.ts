// What every server of ours does beside its answers: it listens everywhere or nowhere, and reads its files again.

import { asOcicryptError, describeError, OcicryptError } from '../base/errors.ts';
import { formatTarget, type Listener, type ListenTarget } from './listener.ts';

/** Fixed texts and public values. */
export interface ServerLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
}

/** A server that is running. */
export interface RunningServer {
  /** Where it listens. */
  readonly addresses: readonly string[];
  /** Where metrics are, if anywhere. */
  readonly status: string | undefined;
  /**
   * Reads certificates that have changed, opens logs anew and reads the policy again; what fails stays as it was, and the
   * log says why. Calls that have begun end by the policy that they began with.
   */
  reload(): Promise<void>;
  /**
   * Takes no more connections, answers new calls with UNAVAILABLE and ends when the open ones have ended, at the
   * latest a second after their deadline.
   */
  drain(): Promise<void>;
  /** Ends everything at once. */
  close(): void;
}

/** How often files are looked at that change while a server runs, in milliseconds: file events miss what a mounted secret does. */
export const FILE_POLL_MILLISECONDS = 5_000;

/** Counts what was read again. */
export interface ReloadCounter {
  reloaded(what: 'certificates' | 'policy', result: 'ok' | 'failed'): void;
}

/** Listens on all targets, or on none. */
export async function openAll(
  targets: readonly ListenTarget[],
  open: (target: ListenTarget) => Promise<Listener>,
): Promise<readonly Listener[]> {
  const listeners: Listener[] = [];
  try {
    for (const target of targets) listeners.push(await open(target));
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  return listeners;
}

/** Reads the certificates again that have changed; old ones stay where that fails. */
export function reloadCertificates(
  listeners: readonly Pick<Listener, 'address' | 'reload'>[],
  counter: ReloadCounter,
  log: ServerLog,
): void {
  for (const listener of listeners) {
    try {
      if (!listener.reload()) continue;
      counter.reloaded('certificates', 'ok');
      log.info({ address: listener.address }, 'certificates reloaded');
    } catch (error) {
      counter.reloaded('certificates', 'failed');
      const fields = { address: listener.address, problem: describeError(asOcicryptError(error)) };
      log.warn(fields, 'certificates not reloaded: the old ones stay');
    }
  }
}

/** Goes on in the log files that have their names now. */
export function reopen(reopenLogs: () => boolean, log: ServerLog): void {
  try {
    if (reopenLogs()) log.info({}, 'logs reopened');
  } catch (error) {
    log.warn({ problem: describeError(asOcicryptError(error)) }, 'logs not reopened');
  }
}

/** Said before anything is bound: the second would fail with the first already listening. */
export function checkTargets(targets: readonly ListenTarget[]): void {
  const seen = new Set<string>();
  for (const target of targets) {
    const name = target.kind === 'inherited' ? `fd ${target.descriptor}` : formatTarget(target);
    const place = name.replace(/^tls:/, 'tcp:').replace(/^ttrpc:/, 'unix:');
    if (seen.has(place) && !place.endsWith(':0')) {
      throw new OcicryptError('configuration', `${name} is named twice to listen on`, { hint: 'leave one out' });
    }
    seen.add(place);
  }
}

/** Waits until it is done, at most so long. */
export async function withinTime(done: Promise<void>, milliseconds: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  await Promise.race([done, promise]);
  clearTimeout(timer);
}
