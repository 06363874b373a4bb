// What a server that cannot start still does for those who wait at a socket of systemd: it tells them why.

import type { OcicryptError } from '../base/errors.ts';
import { encodeHealth, HEALTH_METHOD, messageLimit } from '../base/grpc.ts';
import { MAXIMUM_REQUEST_BYTES } from '../provider/protocol.ts';
import { createConnections } from '../server/connections.ts';
import { CallGate, DEFAULT_SERVER_LIMITS, PageBudget } from '../server/limits.ts';
import { inheritedTargets, openListener } from '../server/listener.ts';
import { KEY_PROVIDER_METHODS } from '../server/service.ts';

/** Also the least time between two starts, each of which the callers that are left cause. */
const TIME_MILLISECONDS = 1000;

/**
 * Ends every call at the sockets that systemd hands over with `error`, for a moment. Its callers began to wait when they
 * caused this start: systemd would hold them until a start succeeds, and clients have no deadline.
 */
export async function refuseCallers(error: OcicryptError): Promise<void> {
  const targets = inheritedTargets(process.env);
  if (targets.length === 0) return;
  const refuse = async () => {
    throw error;
  };
  const limits = DEFAULT_SERVER_LIMITS;
  const connections = createConnections({
    methods: new Map([
      ...KEY_PROVIDER_METHODS.map((path) => [path, refuse] as const),
      [HEALTH_METHOD, async () => encodeHealth(false)] as const,
    ]),
    maximumMessage: messageLimit(MAXIMUM_REQUEST_BYTES),
    limits,
    budget: new PageBudget(limits.buffered),
    gate: new CallGate(limits.active, limits.queue),
    draining: () => false,
    report: () => undefined,
    failed: () => undefined,
    closedBecause: () => undefined,
  });
  const access = { mode: 0o600, group: undefined };
  const options = { access, tls: undefined, insecurePlaintext: true };
  const opening = targets.map((target) => openListener(target, connections, options));
  // Without its certificate nothing can be said over a network.
  const listeners = (await Promise.allSettled(opening)).flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  await new Promise((resolve) => setTimeout(resolve, TIME_MILLISECONDS));
  for (const listener of listeners) listener.close();
  connections.destroy();
}
