// The server as a whole: methods, limits, listeners and status page put together, reloaded, drained.

import { messageLimit } from '../base/grpc.ts';
import { MAXIMUM_REQUEST_BYTES } from '../provider/protocol.ts';
import { createConnections } from './connections.ts';
import { createFailureLog } from './failure-log.ts';
import { createReadiness, healthMethods, type Probe } from './health.ts';
import type { Instruments } from './instruments.ts';
import { CallGate, PageBudget, type ServerLimits } from './limits.ts';
import type { Acceptor } from './listener.ts';
import { keyProviderMethods, type ServiceOptions } from './service.ts';
import {
  type DoorPlan,
  FILE_POLL_MILLISECONDS,
  openDoors,
  type RunningServer,
  reopen,
  rereadPolicy,
  type ServerLog,
  withinTime,
} from './upkeep.ts';

/** The status page is where metrics and health are served over HTTP. */
export type ServerOptions = DoorPlan & {
  readonly policy: ServerPolicy;
  /** Reads the policy again. @throws OcicryptError the one before stays */
  readonly rereadPolicy: () => Promise<ServerPolicy>;
  readonly limits: ServerLimits;
  readonly instruments: Instruments;
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

/** After the deadline of the last call. */
const DRAIN_GRACE_MILLISECONDS = 500;

/**
 * Starts a server: it listens on every target when this returns, or on none.
 *
 * @throws OcicryptError `configuration`
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { limits, instruments, log } = options;
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
  const ttrpc: Acceptor = {
    begin: (socket) => connections.begin(socket),
    accept: (socket, peer) => connections.acceptTtrpc(socket, peer),
  };
  const doors = await openDoors(options, ({ kind }) => (kind === 'ttrpc' ? ttrpc : connections), {
    metrics: () => instruments.render(),
    isReady: () => readiness.isReady(),
    isDraining: () => draining,
  });
  const reread = () => doors.reloadCertificates(instruments, log);
  const poll = setInterval(reread, FILE_POLL_MILLISECONDS).unref();

  const close = () => {
    clearInterval(poll);
    connections.destroy();
    doors.close();
  };
  const replacePolicy = async () => {
    const old = policy;
    policy = await options.rereadPolicy();
    readiness = createReadiness(policy.probes);
    // Calls that have begun with the old one may yet open its keys.
    setTimeout(() => void old.close(), limits.call + DRAIN_GRACE_MILLISECONDS).unref();
  };
  return {
    addresses: doors.addresses,
    status: doors.status,
    async reload() {
      reread();
      reopen(options.reopenLogs, log);
      await rereadPolicy('configuration', replacePolicy, instruments, log);
    },
    async drain() {
      draining = true;
      doors.shut();
      await withinTime(connections.drain(), limits.call + DRAIN_GRACE_MILLISECONDS);
      close();
    },
    close,
  };
}
