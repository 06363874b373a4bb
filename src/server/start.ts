// The server as a whole: methods, limits, listeners and status page put together, reloaded, drained.

import { formatAddress } from '../base/address.ts';
import { asOcicryptError, describeError, OcicryptError } from '../base/errors.ts';
import { messageLimit } from '../base/grpc.ts';
import { MAXIMUM_REQUEST_BYTES } from '../provider/protocol.ts';
import { type Connections, createConnections } from './connections.ts';
import { createFailureLog } from './failure-log.ts';
import { createReadiness, healthMethods, type Probe } from './health.ts';
import type { Instruments } from './instruments.ts';
import { CallGate, PageBudget, type ServerLimits } from './limits.ts';
import { type Listener, type ListenerOptions, type ListenTarget, openListener } from './listener.ts';
import { keyProviderMethods, type ServiceOptions } from './service.ts';
import { type StatusPage, type StatusTarget, startStatusPage } from './status-page.ts';

export type ServerOptions = {
  readonly listen: readonly ListenTarget[];
  readonly listener: ListenerOptions;
  readonly policy: ServerPolicy;
  /** Reads the policy again. @throws OcicryptError the one before stays */
  readonly rereadPolicy: () => Promise<ServerPolicy>;
  readonly limits: ServerLimits;
  readonly instruments: Instruments;
  /** Where metrics and health are served over HTTP, if anywhere. */
  readonly status: StatusTarget | undefined;
  /** Goes on in the log files that have their names now; returns whether there are any. @throws OcicryptError */
  readonly reopenLogs: () => boolean;
  readonly log: ServerLog;
};

/** Who may use which keys. */
export type ServerPolicy = {
  readonly service: ServiceOptions;
  /** The keys that readiness is about. */
  readonly probes: readonly Probe[];
  /** Closes what it has opened, once no call uses it. */
  readonly close: () => Promise<void>;
};

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

/** How often certificate files are looked at, in milliseconds: file events miss what a mounted secret does. */
const CERTIFICATE_POLL_MILLISECONDS = 5_000;
/** After the deadline of the last call. */
const DRAIN_GRACE_MILLISECONDS = 500;

/**
 * Starts a server: it listens on every target when this returns, or on none.
 *
 * @throws OcicryptError `configuration`
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { limits, instruments, log } = options;
  checkTargets(options.listen);
  let draining = false;
  let { policy } = options;
  let readiness = createReadiness(policy.probes);
  const budget = new PageBudget(limits.buffered);
  const gate = new CallGate(limits.active, limits.queue);
  const connections = createConnections({
    methods: new Map([
      ...keyProviderMethods(() => policy.service),
      ...healthMethods(
        () => readiness,
        () => draining,
      ),
    ]),
    maximumMessage: messageLimit(MAXIMUM_REQUEST_BYTES),
    limits,
    budget,
    gate,
    draining: () => draining,
    report: (report) => instruments.call(report),
    failed: createFailureLog((fields, message) => log.warn(fields, message)),
    closedBecause: (reason) => instruments.closed(reason),
  });
  instruments.read({
    connections: () => connections.size,
    activeCalls: () => gate.entered,
    queuedCalls: () => gate.waiting,
    bufferedBytes: () => budget.total,
  });
  const listeners = await openAll(options, connections);
  let status: StatusPage | undefined;
  try {
    if (options.status !== undefined) {
      const isReady = () => readiness.isReady();
      const page = { metrics: () => instruments.render(), isReady, isDraining: () => draining };
      status = await startStatusPage(options.status, page);
    }
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  const poll = setInterval(() => reload(listeners, instruments, log), CERTIFICATE_POLL_MILLISECONDS).unref();

  const close = () => {
    clearInterval(poll);
    for (const listener of listeners) listener.close();
    connections.destroy();
    status?.close();
  };
  const rereadPolicy = async () => {
    try {
      const old = policy;
      policy = await options.rereadPolicy();
      readiness = createReadiness(policy.probes);
      // Calls that have begun with the old one may yet open its keys.
      setTimeout(() => void old.close(), limits.call + DRAIN_GRACE_MILLISECONDS).unref();
      instruments.reloaded('policy', 'ok');
      log.info({}, 'configuration read again');
    } catch (error) {
      instruments.reloaded('policy', 'failed');
      log.warn({ problem: describeError(asOcicryptError(error)) }, 'configuration not read again: the old one stays');
    }
  };
  return {
    addresses: listeners.map(({ address }) => address),
    status: status?.address,
    async reload() {
      reload(listeners, instruments, log);
      reopen(options);
      await rereadPolicy();
    },
    async drain() {
      draining = true;
      for (const listener of listeners) listener.close();
      await withinTime(connections.drain(), limits.call + DRAIN_GRACE_MILLISECONDS);
      close();
    },
    close,
  };
}

async function openAll(options: ServerOptions, connections: Connections): Promise<readonly Listener[]> {
  const listeners: Listener[] = [];
  try {
    for (const target of options.listen) {
      listeners.push(await openListener(target, connections, options.listener));
    }
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  return listeners;
}

function reload(listeners: readonly Listener[], instruments: Instruments, log: ServerLog): void {
  for (const listener of listeners) {
    try {
      if (!listener.reload()) continue;
      instruments.reloaded('certificates', 'ok');
      log.info({ address: listener.address }, 'certificates reloaded');
    } catch (error) {
      instruments.reloaded('certificates', 'failed');
      const fields = { address: listener.address, problem: describeError(asOcicryptError(error)) };
      log.warn(fields, 'certificates not reloaded: the old ones stay');
    }
  }
}

function reopen({ reopenLogs, log }: ServerOptions): void {
  try {
    if (reopenLogs()) log.info({}, 'logs reopened');
  } catch (error) {
    log.warn({ problem: describeError(asOcicryptError(error)) }, 'logs not reopened');
  }
}

/** Said before anything is bound: the second would fail with the first already listening. */
function checkTargets(targets: readonly ListenTarget[]): void {
  const seen = new Set<string>();
  for (const target of targets) {
    const name = target.kind === 'inherited' ? `fd ${target.descriptor}` : formatAddress(target);
    const place = name.replace(/^tls:/, 'tcp:');
    if (seen.has(place) && !place.endsWith(':0')) {
      throw new OcicryptError('configuration', `${name} is named twice to listen on`, { hint: 'leave one out' });
    }
    seen.add(place);
  }
}

async function withinTime(done: Promise<void>, milliseconds: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  await Promise.race([done, promise]);
  clearTimeout(timer);
}
