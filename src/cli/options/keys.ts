// The options that say whose keys open an image, and which keys may be used; part of the one table (table.ts).

import type { OptionGroup } from './spec.ts';

export const KEY_OPTIONS = {
  recipient: {
    kind: 'list',
    hasVariable: true,
    value: 'RECIPIENT',
    describe: 'encrypt to this recipient, who can then open the image alone',
    member: null,
  },
  'recipients-file': {
    kind: 'list',
    hasVariable: true,
    value: 'FILE',
    describe: 'encrypt to the recipients in FILE, one a line; lines that begin with # are comments',
    member: null,
  },
  add: {
    kind: 'list',
    value: 'RECIPIENT',
    describe: 'give one more recipient the same layer keys; the entries of all others stay byte for byte',
    member: null,
  },
  remove: {
    kind: 'list',
    value: 'KEY',
    describe: 'remove a key, or all of jwe, pgp, pkcs7 or provider:NAME, from the recipients',
    member: null,
  },
  require: {
    kind: 'list',
    isPolicy: true,
    hasVariable: true,
    value: 'KEY',
    describe: 'a key that every layer must be encrypted to',
  },
  only: {
    kind: 'list',
    isPolicy: true,
    hasVariable: true,
    value: 'KEY',
    describe: 'no recipient other than these (KEY or PREFIX/*) may be able to open a layer',
  },
  unwrap: {
    kind: 'switch',
    describe: 'really open the layer keys: with each required key, or with any allowed key if none is required',
    member: null,
  },
  'post-quantum': {
    kind: 'switch',
    describe:
      'fail if a layer is wrapped for RSA, X25519 or an unknown kind of key; symmetric keys and age1pq… recipients resist quantum computers',
    member: null,
  },
  key: {
    kind: 'list',
    isPolicy: true,
    hasVariable: true,
    value: 'FILE',
    describe:
      'a key file or age identity file that may be used; image commands also take a KEY or a private key in PEM (for jwe:)',
  },
  allow: {
    kind: 'list',
    isPolicy: true,
    hasVariable: true,
    value: 'KEY',
    describe: 'a key that may be used; PREFIX/* allows all keys below a prefix',
  },
  'allow-wrap': {
    kind: 'list',
    isPolicy: true,
    value: 'KEY',
    describe: 'a key, or PREFIX/*, that may only encrypt',
  },
  'allow-unwrap': {
    kind: 'list',
    isPolicy: true,
    value: 'KEY',
    describe: 'a key, or PREFIX/*, that may only decrypt',
  },
  kmsURI: {
    kind: 'text',
    isPolicy: true,
    value: 'KEY',
    describe: 'default key if a call names none; a call that names another one is refused',
  },
  'kbs-key': {
    kind: 'pairs',
    isPolicy: true,
    value: 'KEY=FILE',
    describe:
      "a key kbs:///REPOSITORY/TYPE/TAG of Confidential Containers' broker, and the file that holds its 32 bytes; it may unwrap",
  },
  context: {
    kind: 'pairs',
    isPolicy: true,
    hasVariable: true,
    value: 'NAME=VALUE',
    describe: 'a public label: new packets are bound to it, and a packet without it is not unwrapped',
  },
  packet: {
    kind: 'choice',
    value: 'v1|v2|coco-v2',
    choices: ['v1', 'v2', 'coco-v2'],
    describe:
      'the packet to write: the reference provider reads v1, guests of Confidential Containers unwrap coco-v2 with AWS KMS',
    fallback: 'v2; v1 for a single Google key as kms_oci_crypt and with --grpcport',
  },
  provider: {
    kind: 'text',
    value: 'NAME',
    describe: "this provider's name in the caller's configuration",
    fallback: 'kmscrypt or grpc-keyprovider, else the only name that carries keys',
  },
  bytes: {
    kind: 'choice',
    value: 'base64|array',
    choices: ['base64', 'array'],
    describe: 'how replies write bytes: array for clients written in Rust',
    fallback: 'array for gRPC clients written in Rust and for requests that write arrays, else base64',
  },
} as const satisfies OptionGroup;
