// The options of the server, and of a command that forwards to it; part of the one table (table.ts).

import type { OptionGroup } from './spec.ts';

export const SERVER_OPTIONS = {
  remote: {
    kind: 'text',
    value: 'ADDRESS',
    describe: 'the server that answers in place of this process: unix:///PATH or tls://HOST:PORT',
  },
  listen: {
    kind: 'list',
    value: 'ADDRESS',
    describe: 'where to serve: unix:///PATH, tls://HOST:PORT or tcp://HOST:PORT, or ttrpc:///PATH for ocicrypt-rs',
    fallback: 'unix:///run/ocicrypt-kms/ocicrypt-kms.sock as root, else unix://$XDG_RUNTIME_DIR/ocicrypt-kms.sock',
  },
  'socket-mode': {
    kind: 'choice',
    value: '0600|0660',
    choices: ['0600', '0660'],
    describe: 'the mode of the unix socket: only this user may connect, or its group too',
    fallback: '0600',
  },
  'socket-group': { kind: 'text', value: 'GROUP', describe: 'the group of the unix socket' },
  grpcport: {
    kind: 'text',
    value: ':PORT',
    describe: "the reference server's option: serve in clear on this port of the loopback",
  },
  'insecure-plaintext': {
    kind: 'switch',
    isPolicy: true,
    describe: 'allow tcp:// on the loopback, where every local user may call and read',
  },
  policy: {
    kind: 'text',
    value: 'FILE',
    describe: 'the admission policy, YAML or JSON: what is asked of the images of which pods (docs/admission.md)',
    member: null,
  },
  status: {
    kind: 'text',
    value: 'ADDRESS',
    describe: 'serve /metrics, /livez and /readyz: unix:///PATH, tls://HOST:PORT or tcp://127.0.0.1:PORT',
  },
  'insecure-status': {
    kind: 'switch',
    describe:
      'show --status to everyone who can connect: in clear on any interface, or over TLS without a client certificate; it tells what is used how often, and no key',
  },
  live: {
    kind: 'switch',
    describe: 'ask only whether the server answers, whatever its keys do',
    member: null,
  },
  check: {
    kind: 'switch',
    describe:
      'read everything that a server reads when it starts, check its addresses without listening, say whether it could serve, and end',
    member: null,
  },
} as const satisfies OptionGroup;

export const TLS_OPTIONS = {
  'tls-cert': { kind: 'text', value: 'FILE', describe: 'our certificate and its chain, PEM' },
  'tls-key': { kind: 'text', value: 'FILE', describe: 'the private key of --tls-cert, PEM, mode 0600' },
  'tls-ca': { kind: 'text', value: 'FILE', describe: "CAs to trust for the server's certificate, PEM" },
  'tls-client-ca': {
    kind: 'text',
    isPolicy: true,
    value: 'FILE',
    describe: 'require TLS clients to present a certificate from these CAs, PEM',
  },
  'insecure-any-client': {
    kind: 'switch',
    isPolicy: true,
    describe: 'answer every host that can connect over TLS, without a client certificate',
  },
  'tls-min': {
    kind: 'choice',
    isPolicy: true,
    value: '1.2|1.3',
    choices: ['1.2', '1.3'],
    describe: 'the oldest TLS version to accept; 1.2 with forward secrecy and AEAD ciphers only',
    fallback: '1.3',
  },
  'allow-client': {
    kind: 'list',
    isPolicy: true,
    value: 'NAME[=[wrap:|unwrap:]KEY]',
    describe:
      "only clients with this DNS name (or URI:…, email:…, IP:…) in their certificate may call, with the server's keys or with this key alone",
  },
} as const satisfies OptionGroup;

export const LIMIT_OPTIONS = {
  'max-connections': {
    kind: 'count',
    value: 'N',
    describe: 'connections of all clients together',
    fallback: '256; of admission 1024',
  },
  'max-streams': { kind: 'count', value: 'N', describe: 'open calls on one connection', fallback: '32' },
  'max-calls': {
    kind: 'count',
    value: 'N',
    describe: 'calls that are worked on at the same time',
    fallback: '256; of admission 1024',
  },
  'max-queue': { kind: 'count', value: 'N', describe: 'calls that wait; more are refused', fallback: '1024' },
  'key-rate': {
    kind: 'count',
    value: 'N',
    describe:
      'calls a second to a key of a key service, or to all keys of one prefix; five times as many at once, more wait',
    fallback: '200',
  },
} as const satisfies OptionGroup;
