// The command that a cluster runs: a webhook that lets in only pods whose images are encrypted as a policy says.

import { createAdmission } from '../admission/admission.ts';
import { findCluster } from '../admission/cluster.ts';
import type { NetworkAddress } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { parseListenAddress } from '../server/address.ts';
import { readTlsOptions } from '../server/tls.ts';
import type { WebLimits } from '../server/web.ts';
import { DEFAULT_WEB_LIMITS, startWebhook, webhookDoors } from '../server/webhook.ts';
import { WebhookInstruments } from '../server/webhook-instruments.ts';
import { openCourts } from './admission-policy.ts';
import type { CommandContext } from './command.ts';
import { createServerLog } from './logs/server-log.ts';
import type { Settings } from './options/settings.ts';
import {
  incompleteTls,
  reopenLogs,
  sayServable,
  serveUntilStopped,
  statusTarget,
  tlsFiles,
  warnOfFiles,
} from './serving.ts';
import { openLogs } from './setup.ts';

/** So many namespaces whose registries hang may take all places between them. */
const NAMESPACES = 4;

/** Serves until it is told to stop; with `--check` it only finds out whether it could. */
export async function runAdmission(context: CommandContext): Promise<void> {
  const { settings, terminal, personality } = context;
  const log = createServerLog(terminal);
  const warn = (problem: string) => log.warn({ problem }, 'no debug log');
  const tls = tlsFiles(settings);
  if (tls === undefined) throw incompleteTls();
  readTlsOptions(tls);
  const listen = listenTargets(settings);
  const status = statusTarget(settings, tls);
  const logs = await openLogs(settings, { personality, door: 'server', warn });
  const instruments = new WebhookInstruments();
  const limits = webLimits(settings);
  const cluster = findCluster(process.env);
  const onVerdict = (source: 'kept' | 'made') => instruments.verdict(source);
  const courts = await openCourts(context, { logs, isInCluster: cluster !== undefined, onVerdict });
  try {
    await warnOfFiles(settings, log);
    if (settings.switch('check')) return sayServable(terminal, webhookDoors({ listen, tls, status }));
    const handler = createAdmission({
      court: () => courts.current,
      cluster,
      perNamespace: Math.max(1, Math.floor(limits.active / NAMESPACES)),
      async record(event) {
        logs.log?.debug(event, 'admission');
        await logs.audit?.record(event);
      },
      onReview: (action, outcome, milliseconds) => instruments.review(action, outcome, milliseconds),
      onImage: (outcome) => instruments.image(outcome),
    });
    const start = () =>
      startWebhook({
        ...{ listen, tls, limits, status, instruments, log },
        policy: { handler, hasChanged: () => courts.hasChanged(), reread: () => courts.reread() },
        reopenLogs: () => reopenLogs(logs),
      });
    await serveUntilStopped(start, log);
  } finally {
    await courts.close();
  }
}

/** API servers speak to webhooks over TLS alone. */
function listenTargets(settings: Settings): readonly NetworkAddress[] {
  const targets = settings.list('listen').map(parseListenAddress);
  if (targets.length === 0) {
    throw new OcicryptError('configuration', 'it is not said where to listen', {
      hint: 'give --listen=tls://0.0.0.0:8443',
    });
  }
  return targets.map((target) => {
    if (target.kind === 'tls') return target;
    throw new OcicryptError('configuration', 'API servers ask webhooks over TLS alone', {
      hint: 'give --listen=tls://HOST:PORT',
    });
  });
}

function webLimits(settings: Settings): WebLimits {
  return {
    ...DEFAULT_WEB_LIMITS,
    connections: settings.count('max-connections') ?? DEFAULT_WEB_LIMITS.connections,
    active: settings.count('max-calls') ?? DEFAULT_WEB_LIMITS.active,
    queue: settings.count('max-queue') ?? DEFAULT_WEB_LIMITS.queue,
  };
}
