// A server for documents over HTTPS as a whole: listeners, status page, certificates and policy that are read again, drained.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { DEFAULT_SERVER_LIMITS } from './limits.ts';
import type { ListenTarget } from './listener.ts';
import type { StatusTarget } from './status-page.ts';
import type { TlsFiles } from './tls.ts';
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
import { WebConnections, type WebHandler, type WebLimits } from './web.ts';
import type { WebhookInstruments } from './webhook-instruments.ts';

/**
 * The largest review: two objects, each of the three mebibytes that an API server takes, in which every byte may be a `<`.
 * Go writes that as six; and what is around them. A review that is not read is not judged, so its author must not be able to make one.
 */
const MAXIMUM_REVIEW_BYTES = (2 * 3 * 6 + 1) * 1024 * 1024;

/** An API server opens a connection for each request that it has open, and asks again over those that are idle. */
export const DEFAULT_WEB_LIMITS: WebLimits = {
  connections: 1024,
  // A review mostly waits for a registry. A namespace has a quarter of these: as many as an API server asks about at once.
  active: 1024,
  queue: DEFAULT_SERVER_LIMITS.queue,
  body: MAXIMUM_REVIEW_BYTES,
  buffered: 3 * MAXIMUM_REVIEW_BYTES,
  // Go gives a handshake ten seconds, and hundreds may begin at once.
  handshake: 10_000,
  request: 5_000,
  call: 35_000,
  idle: DEFAULT_SERVER_LIMITS.idle,
};

/** What decides the answers, and how it is read again. */
export interface WebPolicy {
  readonly handler: WebHandler;
  /** Whether its file is not as it was when it was last read, or read in vain. */
  hasChanged(): boolean;
  /** Reads it again. @throws OcicryptError the one before stays */
  reread(): Promise<void>;
}

export type WebhookPlaces = {
  readonly listen: readonly ListenTarget[];
  readonly tls: TlsFiles;
  readonly status: StatusTarget | undefined;
};

export type WebhookOptions = WebhookPlaces & {
  readonly policy: WebPolicy;
  readonly limits: WebLimits;
  readonly instruments: WebhookInstruments;
  /** Goes on in the log files that have their names now; returns whether there are any. @throws OcicryptError */
  readonly reopenLogs: () => boolean;
  readonly log: ServerLog;
};

export function webhookDoors({ listen, tls, status }: WebhookPlaces): DoorPlan {
  const access = { mode: 0o600, group: undefined };
  return { listen, listener: { access, tls, insecurePlaintext: false, protocol: 'http/1.1' }, status };
}

/**
 * Starts a server: it listens on every target when this returns, or on none.
 *
 * @throws OcicryptError `configuration`
 */
export async function startWebhook(options: WebhookOptions): Promise<RunningServer> {
  const { limits, instruments, log, policy, tls } = options;
  let draining = false;
  const isDraining = () => draining;
  const web = new WebConnections({
    handler: policy.handler,
    limits,
    isDraining,
    failed: (problem) => log.warn({ problem }, 'a request failed'),
  });
  const expiry = watchExpiry(tls);
  const readings = {
    connections: () => web.connections,
    activeCalls: () => web.gate.entered,
    queuedCalls: () => web.gate.waiting,
    bufferedBytes: () => web.buffered,
  };
  instruments.read(readings, expiry);
  const page = { metrics: () => instruments.render(), isReady: async () => true, isDraining };
  const doors = await openDoors(webhookDoors(options), () => web, page);
  const reread = () => rereadPolicy('policy', () => policy.reread(), instruments, log);
  const renew = () => {
    doors.reloadCertificates(instruments, log);
    expiry();
  };
  let isExpired = false;
  const poll = setInterval(() => {
    renew();
    if (policy.hasChanged()) void reread();
    const was = isExpired;
    isExpired = expiry() * 1000 < Date.now();
    if (isExpired && !was) log.warn({}, 'the certificate has expired: callers refuse it until it is replaced');
  }, FILE_POLL_MILLISECONDS).unref();
  const close = () => {
    clearInterval(poll);
    web.destroy();
    doors.close();
  };
  return {
    addresses: doors.addresses,
    status: doors.status,
    async reload() {
      renew();
      reopen(options.reopenLogs, log);
      await reread();
    },
    async drain() {
      draining = true;
      doors.shut();
      await withinTime(web.drain(), limits.call);
      close();
    },
    close,
  };
}

/** Tells when the certificate ends, in seconds since 1970. While a new one cannot be read, the one before is served. */
function watchExpiry({ certificate }: TlsFiles): () => number {
  let last = 0;
  return () => {
    try {
      last = Date.parse(new X509Certificate(readFileSync(certificate)).validTo) / 1000;
    } catch {
      // That it is not read is said, and counted, where it is loaded.
    }
    return last;
  };
}
