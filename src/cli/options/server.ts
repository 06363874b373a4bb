// The options of the server, and of a command that forwards to it.

import type { OptionSpec } from './table.ts';

export const SERVER_OPTIONS = {
  'allow-wrap': {
    kind: 'list',
    value: 'KEY',
    describe: 'a key or prefix that may only encrypt; repeatable',
  },
  'allow-unwrap': {
    kind: 'list',
    value: 'KEY',
    describe: 'a key or prefix that may only decrypt; repeatable',
  },
  'allow-client': {
    kind: 'list',
    value: 'NAME[=[wrap:|unwrap:]KEY]',
    describe:
      'a name in client certificates that may call, with the keys of the server or with this one alone; repeatable',
  },
  listen: {
    kind: 'list',
    value: 'ADDRESS',
    describe: 'where to serve: unix:///PATH, tls://HOST:PORT or tcp://HOST:PORT; repeatable',
    fallback: 'unix:///run/ocicrypt-kms/ocicrypt-kms.sock as root, else unix://$XDG_RUNTIME_DIR/ocicrypt-kms.sock',
  },
  grpcport: {
    kind: 'text',
    value: ':PORT',
    describe: "the reference server's option: serve on this port of the loopback, in clear",
  },
  'insecure-plaintext': {
    kind: 'switch',
    describe: 'allow tcp:// on the loopback, where every local user may call and read',
  },
  'socket-mode': {
    kind: 'choice',
    value: '0600|0660',
    choices: ['0600', '0660'],
    describe: 'who may connect to the unix socket: this user, or its group too',
    fallback: '0600',
  },
  'socket-group': { kind: 'text', value: 'GROUP', describe: 'the group of the unix socket' },
  'tls-cert': { kind: 'text', value: 'FILE', describe: 'our certificate and its chain, PEM' },
  'tls-key': { kind: 'text', value: 'FILE', describe: 'the private key of --tls-cert, PEM, mode 0600' },
  'tls-ca': { kind: 'text', value: 'FILE', describe: "authorities of the server's certificate, PEM" },
  'tls-client-ca': {
    kind: 'text',
    value: 'FILE',
    describe: 'require TLS clients to present a certificate from these CAs (PEM)',
  },
  'tls-min': {
    kind: 'choice',
    value: '1.2|1.3',
    choices: ['1.2', '1.3'],
    describe: 'the oldest TLS that is spoken; 1.2 with forward secrecy and AEAD ciphers only',
    fallback: '1.3',
  },
  remote: {
    kind: 'text',
    value: 'ADDRESS',
    describe: 'forward the request to a server: unix:///PATH or tls://HOST:PORT',
  },
  status: {
    kind: 'text',
    value: 'ADDRESS',
    describe: 'serve /metrics, /livez and /readyz: tcp://127.0.0.1:PORT or unix:///PATH',
  },
  'max-connections': { kind: 'count', value: 'N', describe: 'connections of all clients together', fallback: '256' },
  'max-streams': { kind: 'count', value: 'N', describe: 'open calls on one connection', fallback: '32' },
  'max-calls': { kind: 'count', value: 'N', describe: 'calls that are worked on at the same time', fallback: '256' },
  'max-queue': { kind: 'count', value: 'N', describe: 'calls that wait; more are refused', fallback: '1024' },
  'key-rate': {
    kind: 'count',
    value: 'N',
    describe: 'calls of one key a second, where a key service has it; five times as many at once',
    fallback: '200',
  },
} as const satisfies Readonly<Record<string, OptionSpec>>;
