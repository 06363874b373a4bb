// The command that a cluster runs: a webhook that lets in only pods whose images are encrypted as a policy says.

import { createAdmission } from '../admission/admission.ts';
import { findCluster } from '../admission/cluster.ts';
import type { NetworkAddress } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { parseListenAddress } from '../server/address.ts';
import { findServiceManager } from '../server/service-manager.ts';
import { runUntilStopped } from '../server/signals.ts';
import { readTlsOptions, type TlsFiles } from '../server/tls.ts';
import type { WebLimits } from '../server/web.ts';
import { DEFAULT_WEB_LIMITS, startWebhook } from '../server/webhook.ts';
import { WebhookInstruments } from '../server/webhook-instruments.ts';
import { openCourts } from './admission-policy.ts';
import type { CommandContext } from './command.ts';
import { createServerLog } from './logs/server-log.ts';
import type { Settings } from './options/settings.ts';
import { openLogs } from './setup.ts';

/** So many namespaces whose registries hang may take all places between them. */
const NAMESPACES = 4;

/** Serves until it is told to stop; with `--check` it only finds out whether it could. */
export async function runAdmission(context: CommandContext): Promise<void> {
  const { settings, terminal, personality } = context;
  const log = createServerLog(terminal);
  const warn = (problem: string) => log.warn({ problem }, 'no debug log');
  const tls = tlsFiles(settings);
  readTlsOptions(tls);
  const listen = listenTargets(settings);
  const logs = await openLogs(settings, { personality, door: 'server', warn });
  const instruments = new WebhookInstruments();
  const limits = webLimits(settings);
  const cluster = findCluster(process.env);
  const onVerdict = (source: 'kept' | 'made') => instruments.verdict(source);
  const courts = await openCourts(context, { logs, isInCluster: cluster !== undefined, onVerdict });
  try {
    if (settings.switch('check')) return terminal.write('the configuration can be served\n');
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
    const status = settings.text('status');
    const manager = findServiceManager(process.env, (problem) =>
      log.warn({ problem }, 'the service manager was not told'),
    );
    const start = () =>
      startWebhook({
        ...{ listen, tls, limits, instruments, log },
        policy: { handler, hasChanged: () => courts.hasChanged(), reread: () => courts.reread() },
        status:
          status === undefined
            ? undefined
            : { address: parseListenAddress(status), tls, insecure: settings.switch('insecure-status') },
        reopenLogs() {
          logs.audit?.reopen();
          logs.log?.reopen();
          return logs.audit !== undefined || logs.log !== undefined;
        },
      });
    await runUntilStopped(start, log, manager);
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

function tlsFiles(settings: Settings): TlsFiles {
  const certificate = settings.text('tls-cert');
  const privateKey = settings.text('tls-key');
  if (certificate === undefined || privateKey === undefined) {
    throw new OcicryptError('configuration', 'TLS needs both a certificate and its key', {
      hint: 'give --tls-cert=FILE and --tls-key=FILE',
    });
  }
  const minVersion = settings.text('tls-min') === '1.2' ? 'TLSv1.2' : 'TLSv1.3';
  return { certificate, privateKey, clientAuthority: settings.text('tls-client-ca'), minVersion };
}

function webLimits(settings: Settings): WebLimits {
  return {
    ...DEFAULT_WEB_LIMITS,
    connections: settings.count('max-connections') ?? DEFAULT_WEB_LIMITS.connections,
    active: settings.count('max-calls') ?? DEFAULT_WEB_LIMITS.active,
    queue: settings.count('max-queue') ?? DEFAULT_WEB_LIMITS.queue,
  };
}
