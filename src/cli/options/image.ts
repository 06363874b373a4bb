// The options of the image commands, part of the one table (table.ts).

import type { OptionSpec } from './table.ts';

export const IMAGE_OPTIONS = {
  recipient: {
    kind: 'list',
    value: 'RECIPIENT',
    describe:
      'who can open the image: a key URI, provider:NAME:VALUE as OCICRYPT_KEYPROVIDER_CONFIG has it, or jwe:PUBLIC.pem; repeatable',
    member: null,
  },
  'recipients-file': {
    kind: 'list',
    value: 'FILE',
    describe: 'recipients, one a line; lines that begin with # are comments; repeatable',
    member: null,
  },
  layer: {
    kind: 'list',
    value: 'N',
    describe: 'the number of a layer, from 0, or from -1 backwards; repeatable',
    member: null,
    fallback: 'all',
  },
  platform: {
    kind: 'list',
    value: 'OS/ARCH[/VARIANT]',
    describe: 'a platform of the image; the others stay as they are; repeatable',
    member: null,
    fallback: 'all',
  },
  'check-diff-ids': {
    kind: 'switch',
    describe: "also compare what each decrypted layer holds with the image's config",
    member: null,
  },
  add: {
    kind: 'list',
    value: 'RECIPIENT',
    describe: 'give a further recipient the same layer keys; all others stay byte for byte; repeatable',
    member: null,
  },
  remove: {
    kind: 'list',
    value: 'KEY',
    describe: 'take a key URI, or all of jwe, pgp, pkcs7 or provider:NAME, from the recipients; repeatable',
    member: null,
  },
  'dry-run': { kind: 'switch', describe: 'say what would change, and change nothing', member: null },
  require: {
    kind: 'list',
    value: 'KEY',
    describe: 'a key URI that every layer must be encrypted to; repeatable',
  },
  only: {
    kind: 'list',
    value: 'KEY',
    describe:
      'no recipient other than these (a key URI, or a prefix that ends in /*) may be able to open a layer; repeatable',
  },
  unwrap: {
    kind: 'switch',
    describe: 'really open the layer keys, with each required key, or with any that may unwrap where none is required',
    member: null,
  },
  content: {
    kind: 'switch',
    describe: 'also read every layer, and check that it is encrypted under its key; with --unwrap, which this includes',
    member: null,
  },
  'post-quantum': {
    kind: 'switch',
    describe:
      'no layer may be wrapped for RSA, X25519 or an unknown kind of key; symmetric keys and age1pq… recipients hold against quantum computers',
    member: null,
  },
  'allow-absent': {
    kind: 'switch',
    describe: 'pass an index some platforms of which were not copied: nothing is known of them',
    member: null,
  },
  authfile: {
    kind: 'text',
    value: 'FILE',
    describe: 'credentials of registries',
    fallback: 'REGISTRY_AUTH_FILE, else those that podman login and docker login wrote',
  },
  digestfile: {
    kind: 'text',
    value: 'FILE',
    describe: 'write the digest of the new image to FILE too',
    member: null,
  },
  'digest-tag': {
    kind: 'switch',
    describe:
      'give the image in its registry a tag that is made of its digest, or verify that it has it: for runtimes that decrypt nothing that is named by a digest',
    member: null,
  },
} as const satisfies Readonly<Record<string, OptionSpec>>;
