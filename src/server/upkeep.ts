// What every server of ours does beside its answers: it listens everywhere or nowhere, and reads its files again.

import { asOcicryptError, describeError, OcicryptError } from '../base/errors.ts';
import {
  type Acceptor,
  checkTarget,
  formatTarget,
  type Listener,
  type ListenerOptions,
  type ListenTarget,
  openListener,
} from './listener.ts';
import {
  checkStatusTarget,
  type StatusPage,
  type StatusPageOptions,
  type StatusTarget,
  startStatusPage,
} from './status-page.ts';

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

/** Where a server is to listen, and its status page. */
export type DoorPlan = {
  readonly listen: readonly ListenTarget[];
  readonly listener: ListenerOptions;
  readonly status: StatusTarget | undefined;
};

/** Where a server is reached. */
export interface Doors {
  /** Where it listens, and where its status page is. */
  readonly addresses: readonly string[];
  readonly status: string | undefined;
  /** Reads the certificates again that have changed; old ones stay where that fails. */
  reloadCertificates(counter: ReloadCounter, log: ServerLog): void;
  /** Takes no more connections; the status page stays. */
  shut(): void;
  /** Ends that, too. */
  close(): void;
}

/**
 * Listens on all targets, or on none, and serves the status page if there is to be one.
 *
 * @param acceptorOf where connections of a target go
 * @throws OcicryptError `configuration`
 */
export async function openDoors(
  plan: DoorPlan,
  acceptorOf: (target: ListenTarget) => Acceptor,
  page: StatusPageOptions,
): Promise<Doors> {
  checkDoors(plan);
  const listeners: Listener[] = [];
  const shut = () => {
    for (const listener of listeners) listener.close();
  };
  let status: StatusPage | undefined;
  try {
    for (const one of plan.listen) listeners.push(await openListener(one, acceptorOf(one), plan.listener));
    if (plan.status !== undefined) status = await startStatusPage(plan.status, page);
  } catch (error) {
    shut();
    throw error;
  }
  const all = status === undefined ? listeners : [...listeners, status];
  return {
    addresses: listeners.map(({ address }) => address),
    status: status?.address,
    reloadCertificates: (counter, log) => reloadCertificates(all, counter, log),
    shut,
    close() {
      shut();
      status?.close();
    },
  };
}

function reloadCertificates(
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

/** Reads what says who may do what; the old one stays where that fails. @param name of it, for the log */
export async function rereadPolicy(
  name: string,
  read: () => Promise<void>,
  counter: ReloadCounter,
  log: ServerLog,
): Promise<void> {
  try {
    await read();
    counter.reloaded('policy', 'ok');
    log.info({}, `${name} read again`);
  } catch (error) {
    counter.reloaded('policy', 'failed');
    log.warn({ problem: describeError(asOcicryptError(error)) }, `${name} not read again: the old one stays`);
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

/**
 * Finds out all that speaks against it, short of listening: said before anything is bound, since the second would fail
 * with the first already listening.
 *
 * @throws OcicryptError `configuration`
 */
export function checkDoors({ listen, listener, status }: DoorPlan): void {
  const seen = new Set<string>();
  for (const target of status === undefined ? listen : [...listen, status.address]) {
    const name = target.kind === 'inherited' ? `fd ${target.descriptor}` : formatTarget(target);
    const place = name.replace(/^tls:/, 'tcp:').replace(/^ttrpc:/, 'unix:');
    if (seen.has(place) && !place.endsWith(':0')) {
      throw new OcicryptError('configuration', `${name} is named twice to listen on`, { hint: 'leave one out' });
    }
    seen.add(place);
  }
  for (const target of listen) checkTarget(target, listener);
  if (status !== undefined) checkStatusTarget(status);
}

/** Waits until it is done, at most so long. */
export async function withinTime(done: Promise<void>, milliseconds: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  await Promise.race([done, promise]);
  clearTimeout(timer);
}
