// Modes that several commands have: which options have an effect only where a server is asked, or where one listens.

import type { CommandMode } from './command.ts';
import { REMOTE_OPTIONS } from './options/sets.ts';
import type { Settings } from './options/settings.ts';

/** What a command that asks a server takes for TLS alone. */
export const OVER_TLS: CommandMode = {
  name: '--remote=tls://HOST:PORT',
  isOn: (settings) => settings.text('remote')?.startsWith('tls:') ?? false,
  alone: REMOTE_OPTIONS,
};

/** What `node` is to do besides. */
const NODE_ACTIONS = ['root', 'dry-run', 'no-restart', 'pull', 'json'] as const;

/** The server that a request is forwarded to has its own keys, policy and audit. */
export const FORWARDING: readonly CommandMode[] = [
  {
    name: '--remote',
    isOn: (settings) => settings.text('remote') !== undefined,
    takes: [
      ...['remote', 'provider', 'timeout', 'debugLog', 'config', 'content-store'],
      ...['decoder', 'runtime-version', 'grpc', ...NODE_ACTIONS, ...REMOTE_OPTIONS],
    ] as const,
    alone: [],
  },
  OVER_TLS,
];

export const STATUS_ON_NETWORK: CommandMode = {
  name: '--status=tls://HOST:PORT or tcp://HOST:PORT',
  isOn: (settings) => hasStatus(settings, 'tls:') || hasStatus(settings, 'tcp:'),
  alone: ['insecure-status'],
};

/** A socket handed over by systemd may be of any kind, but systemd sets its mode. */
export const LISTENING: readonly CommandMode[] = [
  {
    name: '--listen=tls://HOST:PORT',
    isOn: (settings, { LISTEN_FDS }) => listensOn(settings, 'tls:') || mayBeHandedOver(settings, LISTEN_FDS),
    alone: ['insecure-any-client', 'allow-client'],
  },
  {
    name: '--listen or --status=tls://HOST:PORT',
    isOn: (settings, { LISTEN_FDS }) =>
      listensOn(settings, 'tls:') || hasStatus(settings, 'tls:') || mayBeHandedOver(settings, LISTEN_FDS),
    alone: ['tls-cert', 'tls-key', 'tls-client-ca', 'tls-min'],
  },
  {
    name: '--listen=tcp://127.0.0.1:PORT',
    isOn: (settings, { LISTEN_FDS }) =>
      listensOn(settings, 'tcp:') || settings.text('grpcport') !== undefined || mayBeHandedOver(settings, LISTEN_FDS),
    alone: ['insecure-plaintext'],
  },
  {
    name: '--listen=unix:///PATH or ttrpc:///PATH',
    isOn: (settings, { LISTEN_FDS }) =>
      listensOn(settings, 'unix:') ||
      listensOn(settings, 'ttrpc:') ||
      (settings.list('listen').length === 0 && settings.text('grpcport') === undefined && LISTEN_FDS === undefined),
    alone: ['socket-mode', 'socket-group'],
  },
  STATUS_ON_NETWORK,
];

/** By systemd, which hands nothing to a check. */
function mayBeHandedOver(settings: Settings, listenFds: string | undefined): boolean {
  return listenFds !== undefined || settings.switch('check');
}

function hasStatus(settings: Settings, scheme: string): boolean {
  return settings.text('status')?.startsWith(scheme) ?? false;
}

function listensOn(settings: Settings, scheme: string): boolean {
  return settings.list('listen').some((address) => address.startsWith(scheme));
}
