// The command that a node or a build farm runs: the provider over gRPC, one warm process for all its clients.

import { OcicryptError } from '../base/errors.ts';
import { parseGrpcPort, parseListenTarget } from '../server/address.ts';
import { Instruments } from '../server/instruments.ts';
import { inheritedTargets, type ListenTarget } from '../server/listener.ts';
import { type ServerOptions, startServer } from '../server/start.ts';
import { readTlsOptions } from '../server/tls.ts';
import { defaultSocketPath } from '../server/unix-socket.ts';
import type { ServerLog } from '../server/upkeep.ts';
import type { CommandContext } from './command.ts';
import { createServerLog } from './logs/server-log.ts';
import type { Settings } from './options/settings.ts';
import type { OptionName } from './options/table.ts';
import { openPolicy, serverLimits } from './serve-policy.ts';
import { reopenLogs, sayServable, serveUntilStopped, statusTarget, tlsFiles } from './serving.ts';
import { openLogs } from './setup.ts';

/** Serves until it is told to stop; with `--check` it only finds out whether it could. */
export async function runServe({ settings, terminal, personality, reread }: CommandContext): Promise<void> {
  const log = createServerLog(terminal);
  const warn = (problem: string) => log.warn({ problem }, 'no debug log');
  const logs = await openLogs(settings, { personality, door: 'server', warn });
  const instruments = new Instruments();
  const read = (now: Settings) => openPolicy(now, { personality, logs, instruments, log });
  let policy = await read(settings);
  try {
    const options: ServerOptions = {
      ...serverOptions(settings, log),
      policy,
      async rereadPolicy() {
        const now = await reread();
        warnOfRestart(settings, now, log);
        policy = await read(now.keeping(NEEDS_RESTART, settings));
        return policy;
      },
      instruments,
      reopenLogs: () => reopenLogs(logs),
    };
    if (settings.switch('check')) return sayServable(terminal, { ...options, listen: saidTargets(settings, options) });
    await serveUntilStopped(() => startServer(options), log);
  } finally {
    await policy.close();
  }
}

/** What a server does not change while it runs. */
const NEEDS_RESTART: readonly OptionName[] = [
  ...([
    'listen',
    'grpcport',
    'insecure-plaintext',
    'socket-mode',
    'socket-group',
    'status',
    'insecure-status',
  ] as const),
  ...(['tls-cert', 'tls-key', 'tls-client-ca', 'insecure-any-client', 'tls-min'] as const),
  ...(['max-connections', 'max-streams', 'max-calls', 'max-queue', 'timeout', 'audit-log', 'debugLog'] as const),
];

function warnOfRestart(before: Settings, now: Settings, log: ServerLog): void {
  const options = NEEDS_RESTART.filter((name) => !now.hasSame(name, before));
  if (options.length > 0) log.warn({ options }, 'these options have changed, and count after a restart only');
}

/** All but what policy and logs are. The sockets of systemd are taken last: until then who waits there can be told. */
function serverOptions(
  settings: Settings,
  log: ServerLog,
): Pick<ServerOptions, 'limits' | 'listen' | 'listener' | 'log' | 'status'> {
  const tls = tlsFiles(settings);
  if (tls !== undefined && mayCallOverTls(settings)) checkClients(settings);
  if (tls !== undefined) readTlsOptions(tls);
  const options = {
    listener: {
      access: {
        mode: settings.text('socket-mode') === '0660' ? 0o660 : 0o600,
        group: settings.text('socket-group'),
      },
      tls,
      insecurePlaintext: settings.switch('insecure-plaintext') || settings.text('grpcport') !== undefined,
    },
    limits: serverLimits(settings),
    status: statusTarget(settings, tls),
    log,
  };
  return { ...options, listen: listenTargets(settings, log) };
}

/** No `--listen` means what systemd handed over, else the default socket. */
function listenTargets(settings: Settings, log: ServerLog): readonly ListenTarget[] {
  const port = settings.text('grpcport');
  const named: readonly ListenTarget[] = settings.list('listen').map(parseListenTarget);
  if (port !== undefined) {
    const target = parseGrpcPort(port);
    log.warn({ grpcport: port }, 'serving in clear on the loopback: every local user may ask for keys; see --listen');
    return [...named, target];
  }
  const inherited = inheritedTargets(process.env);
  if (named.length > 0 || inherited.length > 0) return [...inherited, ...named];
  return [{ kind: 'unix', path: defaultSocketPath(process.env) }];
}

/** Without a word about it a start may find sockets of systemd in place of the usual one, which is then not looked at. */
function saidTargets(settings: Settings, { listen }: ServerOptions): readonly ListenTarget[] {
  return settings.list('listen').length > 0 || settings.text('grpcport') !== undefined ? listen : [];
}

/** Not if TLS is for the status page alone. A socket of systemd may be of any kind. */
function mayCallOverTls(settings: Settings): boolean {
  const isForStatus = settings.text('status')?.startsWith('tls:') ?? false;
  const hasListener = settings.list('listen').some((address) => address.startsWith('tls:'));
  return !isForStatus || hasListener || process.env.LISTEN_FDS !== undefined;
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
