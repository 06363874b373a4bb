// The options of a node's set-up; part of the one table (table.ts).

import type { OptionGroup } from './spec.ts';

export const NODE_OPTIONS = {
  decoder: {
    kind: 'choice',
    value: 'ocicrypt-kms|ctd-decoder',
    choices: ['ocicrypt-kms', 'ctd-decoder'],
    describe:
      'who decrypts for containerd; ctd-decoder must be installed, and not every containerd gives it what it needs',
    member: null,
    fallback: 'ocicrypt-kms',
  },
  'runtime-version': {
    kind: 'text',
    value: 'VERSION',
    describe: 'the version of containerd, if it is not on this machine',
    member: null,
    fallback: 'that of the containerd here',
  },
  root: {
    kind: 'text',
    value: 'DIR',
    describe: 'set up the image of a machine that lies in DIR; nothing is started or restarted',
    member: null,
  },
  'no-restart': {
    kind: 'switch',
    describe: 'leave the restart of services to the operator',
    member: null,
  },
  pull: {
    kind: 'list',
    value: 'NAME',
    describe: 'really pull this image by containerd, and remove it again',
    member: null,
  },
  grpc: {
    kind: 'switch',
    describe: 'clients connect to the socket of --remote themselves, instead of by a command',
    member: null,
  },
} as const satisfies OptionGroup;
