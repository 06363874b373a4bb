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
  service: {
    kind: 'switch',
    describe: 'keep the keys in a service of this node, which decoders ask: its units are written and started',
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
    describe: 'really pull this image by each containerd that runs, and remove it again',
    member: null,
  },
  node: {
    kind: 'text',
    value: 'NODE',
    describe: 'the node of the cluster that is set up, as Kubernetes names it',
    member: null,
  },
  'daemon-set': {
    kind: 'text',
    value: 'NAMESPACE/NAME',
    describe: 'the DaemonSet that the agents are pods of; when it is deleted, they undo their nodes',
    member: null,
  },
  source: {
    kind: 'text',
    value: 'DIR',
    describe: 'what the agent brings to the node: policy/config.yaml, and the files that it names',
    member: null,
  },
  directory: {
    kind: 'text',
    value: 'DIR',
    describe: 'where the agent keeps the program and what it brings, on the node',
    member: null,
    fallback: '/opt/ocicrypt-kms/node',
  },
  'socket-user': {
    kind: 'count',
    value: 'UID',
    describe: 'the user of a server in another pod, for whom the agent makes /run/ocicrypt-kms on the node',
    member: null,
  },
  period: {
    kind: 'duration',
    value: 'TIME',
    describe: 'how often the agent tries the node',
    member: null,
    fallback: '10m',
  },
  grpc: {
    kind: 'switch',
    describe: 'clients connect to the socket of --remote themselves, instead of by a command',
    member: null,
  },
} as const satisfies OptionGroup;
