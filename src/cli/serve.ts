// The command that a node or a build farm runs: the provider over gRPC, one warm process for all its clients.

import { isAbsolute, resolve } from 'node:path';
import { asOcicryptError, describeError, OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { createKekSharing } from '../kms/sharing.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import { createProvider, type ProviderOptions } from '../provider/handle.ts';
import { type AllowRule, parseAllowRule } from '../provider/policy.ts';
import { parseGrpcPort, parseListenAddress } from '../server/address.ts';
import { parseClientName } from '../server/client-names.ts';
import type { Probe } from '../server/health.ts';
import { Instruments } from '../server/instruments.ts';
import { DEFAULT_SERVER_LIMITS, type ServerLimits } from '../server/limits.ts';
import { inheritedTargets, type ListenTarget } from '../server/listener.ts';
import type { ClientRule } from '../server/service.ts';
import { runUntilStopped } from '../server/signals.ts';
import { type ServerLog, startServer } from '../server/start.ts';
import type { TlsFiles } from '../server/tls.ts';
import { defaultSocketPath } from '../server/unix-socket.ts';
import type { CommandContext } from './command.ts';
import { formatLogLine } from './logs/log-line.ts';
import type { Settings } from './options/settings.ts';
import { asConfiguration, openProvider } from './setup.ts';
import type { Terminal } from './terminal.ts';

/** Serves until it is told to stop. */
export async function runServe({ settings, terminal, personality }: CommandContext): Promise<void> {
  const log = createServerLog(terminal);
  const { options, reopenLogs, close } = await openProvider(settings, {
    personality,
    door: 'server',
    warn: (problem) => log.warn({ problem }, 'a key works, but check its configuration'),
  });
  try {
    const instruments = new Instruments();
    const shared = shareKeys(options, settings, instruments);
    const clients = clientRules(settings, shared);
    if (shared.rules.length === 0 && clients.length === 0) throw noKeyAllowed();
    const status = settings.text('status');
    const start = () =>
      startServer({
        listen: listenTargets(settings, log),
        listener: {
          access: {
            mode: settings.text('socket-mode') === '0660' ? 0o660 : 0o600,
            group: settings.text('socket-group'),
          },
          tls: tlsFiles(settings),
          insecurePlaintext: settings.switch('insecure-plaintext') || settings.text('grpcport') !== undefined,
        },
        service: { provider: createProvider(shared), clients },
        probes: probesOf(shared),
        limits: serverLimits(settings),
        instruments,
        status: status === undefined ? undefined : parseListenAddress(status),
        reopenLogs,
        log,
      });
    void warnOfKeyFiles(shared, log);
    await runUntilStopped(start, log);
  } finally {
    await close();
  }
}

/** JSON lines on standard error, as systemd and containers collect them. */
function createServerLog(terminal: Terminal): ServerLog {
  return {
    info: (fields, message) => terminal.say(formatLogLine('info', fields, message)),
    warn: (fields, message) => terminal.say(formatLogLine('warn', fields, message)),
  };
}

function noKeyAllowed(): OcicryptError {
  return new OcicryptError('configuration', 'no key is allowed, so no call could be answered', {
    hint: 'add at least one, as in --allow=gcpkms://projects/PROJECT/locations/global/keyRings/RING/cryptoKeys/KEY',
  });
}

/** The same keys for all clients: measured, limited, and shared by those that ask the same. */
function shareKeys(options: ProviderOptions, settings: Settings, instruments: Instruments): ProviderOptions {
  const perSecond = settings.count('key-rate') ?? DEFAULT_KEY_RATE;
  // Half of the server is for keys whose services are there.
  const waiting = Math.ceil(serverLimits(settings).active / 2);
  const limits = { rate: { perSecond, burst: 5 * perSecond }, waiting };
  const share = createKekSharing(limits, (event) => instruments.keyLimit(event));
  const measure = instruments.kekMeasure();
  return {
    ...options,
    openKek: async (uri) => share(measure(await options.openKek(uri), uri.scheme)),
    onDecision: (decision) => instruments.decision(decision),
  };
}

const DEFAULT_KEY_RATE = 200;

/** No `--listen` means what systemd handed over, else the default socket. */
function listenTargets(settings: Settings, log: ServerLog): readonly ListenTarget[] {
  const port = settings.text('grpcport');
  const named: readonly ListenTarget[] = settings.list('listen').map(parseListenAddress);
  if (port !== undefined) {
    const target = parseGrpcPort(port);
    log.warn({ grpcport: port }, 'serving in clear on the loopback: every local user may ask for keys; see --listen');
    return [...named, target];
  }
  const inherited = inheritedTargets(process.env);
  if (named.length > 0 || inherited.length > 0) return [...inherited, ...named];
  return [{ kind: 'unix', path: defaultSocketPath(process.env) }];
}

function tlsFiles(settings: Settings): TlsFiles | undefined {
  const certificate = settings.text('tls-cert');
  const privateKey = settings.text('tls-key');
  const clientAuthority = settings.text('tls-client-ca');
  if (certificate !== undefined && privateKey !== undefined) {
    checkClients(settings);
    const minVersion = settings.text('tls-min') === '1.2' ? 'TLSv1.2' : 'TLSv1.3';
    return { certificate, privateKey, clientAuthority, minVersion };
  }
  if (certificate === undefined && privateKey === undefined && clientAuthority === undefined) return undefined;
  throw new OcicryptError('configuration', 'TLS needs both a certificate and its key', {
    hint: 'give --tls-cert=FILE and --tls-key=FILE',
  });
}

/** On a network a server is for those whom it knows. */
function checkClients(settings: Settings): void {
  const [anybody, authority] = [settings.switch('insecure-any-client'), settings.text('tls-client-ca')];
  if (anybody && authority !== undefined) {
    throw new OcicryptError('configuration', '--insecure-any-client has no effect with --tls-client-ca', {
      hint: 'leave one of them out',
    });
  }
  if (anybody || authority !== undefined) return;
  throw new OcicryptError('configuration', 'without --tls-client-ca everybody who can connect is given layer keys', {
    hint: 'give --tls-client-ca=FILE and --allow-client=NAME; to answer everybody say --insecure-any-client',
  });
}

/** Who is called `NAME` in a certificate may use the server's keys, `NAME=KEY` only the keys that are given with this name. */
function clientRules(settings: Settings, shared: ProviderOptions): readonly ClientRule[] {
  const rules = new Map<string, AllowRule[]>();
  for (const text of settings.list('allow-client')) {
    const [, written = '', operation, key] = /^([^=]+)(?:=(?:(wrap|unwrap):)?(.*))?$/s.exec(text) ?? [];
    const name = parseClientName(written);
    const known = rules.get(name) ?? [];
    rules.set(name, known);
    if (key === undefined) continue;
    const rule = asConfiguration(() => parseAllowRule(isAbsolute(key) ? `keyfile://${resolve(key)}` : key));
    known.push(operation === 'wrap' || operation === 'unwrap' ? { ...rule, operation } : rule);
  }
  if (rules.size > 0 && settings.text('tls-client-ca') === undefined) {
    throw new OcicryptError('configuration', 'clients are named but not asked for a certificate', {
      hint: 'give --tls-client-ca=FILE',
    });
  }
  return [...rules].map(([name, own]) => ({
    name,
    provider: createProvider(own.length === 0 ? shared : { ...shared, rules: own }),
  }));
}

/** A key file that cannot be used is told now, not with the first image; the server's other keys are none the worse. */
async function warnOfKeyFiles({ rules, openKek }: ProviderOptions, log: ServerLog): Promise<void> {
  for (const rule of rules) {
    if (rule.kind !== 'key' || rule.uri.scheme !== 'keyfile') continue;
    try {
      await openKek(rule.uri);
    } catch (error) {
      log.warn({ problem: describeError(asOcicryptError(error)) }, 'a key cannot be used');
    }
  }
}

/** Keys that are named one by one; below a prefix it is not known which there are. */
function probesOf({ rules, openKek, limits = DEFAULT_LIMITS }: ProviderOptions): readonly Probe[] {
  const operations = new Map<string, { readonly uri: KeyUri; wrap: boolean; unwrap: boolean }>();
  for (const rule of rules) {
    if (rule.kind !== 'key') continue;
    const name = `${rule.uri.scheme} ${formatKeyUri(rule.uri)}`;
    const entry = operations.get(name) ?? { uri: rule.uri, wrap: false, unwrap: false };
    if (rule.operation !== 'unwrap') entry.wrap = true;
    if (rule.operation !== 'wrap') entry.unwrap = true;
    operations.set(name, entry);
  }
  return [...operations.values()].map(({ uri, wrap, unwrap }) => ({ open: () => openKek(uri), wrap, unwrap, limits }));
}

function serverLimits(settings: Settings): ServerLimits {
  return {
    ...DEFAULT_SERVER_LIMITS,
    connections: settings.count('max-connections') ?? DEFAULT_SERVER_LIMITS.connections,
    streams: settings.count('max-streams') ?? DEFAULT_SERVER_LIMITS.streams,
    active: settings.count('max-calls') ?? DEFAULT_SERVER_LIMITS.active,
    queue: settings.count('max-queue') ?? DEFAULT_SERVER_LIMITS.queue,
    call: settings.requestTime() ?? DEFAULT_SERVER_LIMITS.call,
  };
}
