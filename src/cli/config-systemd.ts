// systemd's unit files: one text for `config systemd`, for deploy/ and for the documentation.
// systemd.service(5), systemd.socket(5)

import { POLICY_FILE } from '../node/drop-in.ts';

/**
 * The service that `words`, a whole command line, start.
 *
 * @param helper whether a program of systemd's tells it that the server serves, because the server's runtime cannot
 */
export function serviceUnit(words: readonly string[], helper = false): string {
  const command = (more: readonly string[]) => [...words, ...more].map(quote).join(' ');
  return `# The key provider for this machine's container runtime.
[Unit]
Description=OCICrypt key provider
Documentation=man:systemd.exec(5)
Requires=ocicrypt-kms.socket
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
${helper ? 'NotifyAccess=all\n' : ''}ExecStart=${command([])}
# A file that cannot be served fails the reload, and the server keeps what it has.
ExecReload=${command(['--check'])}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# usage and configuration: what is wrong with the command line or the file is wrong the next time too.
RestartPreventExitStatus=64 78
# Calls end within 10 s; what drains is given two more.
TimeoutStopSec=12
UMask=0077
LimitCORE=0
LimitNOFILE=4096
MemoryMax=512M

StateDirectory=ocicrypt-kms
LogsDirectory=ocicrypt-kms
LogsDirectoryMode=0700
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged

[Install]
WantedBy=multi-user.target
`;
}

const SOCKET = '/run/ocicrypt-kms/ocicrypt-kms.sock';

/** Where clients find the service. */
export const SERVICE_ADDRESS = `unix://${SOCKET}`;

/** The socket that starts the service: its first client does. */
export const SOCKET_UNIT = `# Clients may connect as soon as this is there; the server is started by the first.
[Unit]
Description=Socket of the OCICrypt key provider

[Socket]
ListenStream=${SOCKET}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes
# Calls that start a server which cannot serve are told why; the socket stays.
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
`;

/** The command line of the units in deploy/, and of those that are printed without other options. */
export const DEFAULT_OPTIONS: readonly string[] = [`--config=${POLICY_FILE}`];

/** In the directory that systemd makes for the service's logs. */
export const AUDIT_LOG = '--audit-log=/var/log/ocicrypt-kms/audit.log';

/** A word of a command line: in quotes where it needs them, on one line, with nothing that systemd would replace. */
function quote(word: string): string {
  const literal = word.replaceAll('%', '%%').replaceAll('$', '$$$$');
  if (/^[\w@%+=:,./$*-]+$/.test(literal)) return literal;
  const escaped = literal.replaceAll(/["\\]/g, '\\$&');
  return `"${escaped.replaceAll(/\p{Cc}/gu, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`;
}
