// The table of commands: what each is for, which options it takes, and where its code is, loaded when it is run; that of
// `keyprovider`, which is started for each layer, is there at once.

import type { Command } from './command.ts';
import { imageCommands } from './image/commands.ts';
import { runKeyprovider } from './keyprovider.ts';
import { FORWARDING, LISTENING, OVER_TLS, STATUS_ON_NETWORK } from './modes.ts';
import {
  ADMISSION_OPTIONS,
  DECODER_OPTIONS,
  KEYPROVIDER_OPTIONS,
  PROVIDER_OPTIONS,
  REMOTE_OPTIONS,
} from './options/sets.ts';
import type { OptionName } from './options/table.ts';

/** Options of requests and replies, which the doctor does not make. */
const OF_REQUESTS: readonly OptionName[] = ['packet', 'bytes', 'provider'];

/** What a server needs besides. */
const SERVE_OPTIONS: readonly OptionName[] = [
  'listen',
  'grpcport',
  'insecure-plaintext',
  'socket-mode',
  'socket-group',
  'tls-cert',
  'tls-key',
  'tls-client-ca',
  'insecure-any-client',
  'tls-min',
  'allow-wrap',
  'allow-unwrap',
  'allow-client',
  'status',
  'insecure-status',
  'check',
  'max-connections',
  'max-streams',
  'max-calls',
  'max-queue',
  'key-rate',
];

/** What `node` takes whatever it is to do, or refuses for another reason. */
const OF_EVERY_ACTION: readonly OptionName[] = ['debugLog', 'config', ...REMOTE_OPTIONS];

/** What an agent of a cluster takes. */
const AGENT_OPTIONS = [
  'node',
  'daemon-set',
  'source',
  'directory',
  'socket-user',
  'period',
  'status',
  'insecure-status',
] as const;

export const COMMANDS: ReadonlyMap<string, Command> = new Map<string, Command>([
  [
    'keyprovider',
    {
      operands: '',
      describe: 'answer one key-provider request on standard input; clients run it as "cmd"',
      examples: [
        '--allow=gcpkms://projects/example/locations/global/keyRings/images/*',
        '--remote=unix:///run/ocicrypt-kms/ocicrypt-kms.sock',
      ],
      options: KEYPROVIDER_OPTIONS,
      modes: FORWARDING,
      run: runKeyprovider,
    },
  ],
  [
    'serve',
    {
      operands: '',
      describe: 'answer key-provider requests over gRPC, on a unix socket or with TLS',
      examples: [
        '--allow=gcpkms://projects/example/locations/global/keyRings/images/*',
        '--listen=tls://0.0.0.0:7443 --tls-cert=tls.crt --tls-key=tls.key --tls-client-ca=clients.pem --key=/etc/keys/app.key',
      ],
      options: [...PROVIDER_OPTIONS, ...SERVE_OPTIONS],
      modes: LISTENING,
      run: async (context) => (await import('./serve.ts')).runServe(context),
      failed: async (_line, error) => (await import('./serve-refusal.ts')).refuseCallers(error),
    },
  ],
  [
    'health',
    {
      operands: '',
      describe: 'ask a server whether it is ready; probes run it, and exit status 0 is yes',
      examples: ['', '--remote=tls://127.0.0.1:7443 --tls-ca=server-ca.pem --live'],
      options: ['remote', 'live', 'timeout', ...REMOTE_OPTIONS, 'config'],
      modes: [OVER_TLS],
      run: async (context) => (await import('./health.ts')).runHealth(context),
    },
  ],
  [
    'admission',
    {
      operands: '',
      describe: 'answer API servers over HTTPS: keep out pods whose images are not encrypted as a policy says',
      examples: [
        '--policy=/etc/ocicrypt-kms/admission.yaml --listen=tls://0.0.0.0:8443 --tls-cert=tls.crt --tls-key=tls.key',
        '--policy=admission.yaml --listen=tls://0.0.0.0:8443 --tls-cert=tls.crt --tls-key=tls.key --check',
      ],
      options: ADMISSION_OPTIONS,
      modes: [STATUS_ON_NETWORK],
      run: async (context) => (await import('./admission.ts')).runAdmission(context),
    },
  ],
  [
    'decoder',
    {
      operands: '',
      describe: 'decrypt one layer from standard input to standard output; containerd runs it as a stream processor',
      examples: ['--config=/etc/ocicrypt-kms/config.yaml', '--key=/etc/keys/app.key'],
      options: DECODER_OPTIONS,
      modes: FORWARDING,
      run: async (context) => (await import('./decoder.ts')).runDecoder(context),
      failed: async (line) => (await import('./last-words.ts')).leaveLastWords(line),
    },
  ],
  ...imageCommands(PROVIDER_OPTIONS),
  [
    'keygen',
    {
      operands: 'FILE',
      describe: 'make a local key in FILE, which must not exist yet (mode 0600)',
      examples: ['app.key', '/etc/keys/app.key --json'],
      options: ['json', 'quiet'],
      isOpen: true,
      run: async (context) => (await import('./keygen.ts')).runKeygen(context),
    },
  ],
  [
    'doctor',
    {
      operands: '[KEY|IMAGE]…',
      describe: 'try each key, try to open each image, and find what is wrong with the set-up',
      examples: ['awskms:///alias/images', 'docker://registry.example/app:1-encrypted --key=app.key'],
      options: [...PROVIDER_OPTIONS.filter((name) => !OF_REQUESTS.includes(name)), 'authfile', 'json'],
      modes: [
        {
          name: 'an image docker://IMAGE',
          isOn: ({ operands }) => operands.some((text) => text.startsWith('docker:')),
          alone: ['authfile'],
        },
      ],
      isOpen: true,
      run: async (context) => (await import('./doctor/doctor.ts')).runDoctor(context),
    },
  ],
  [
    'config',
    {
      operands: 'ocicrypt|containerd|k3s|crio|crio-unit|systemd|systemd-socket|policy',
      describe: 'print a configuration file that works with this executable',
      examples: ['ocicrypt --key=/etc/keys/app.key', 'containerd --config=/etc/ocicrypt-kms/config.yaml'],
      options: [...KEYPROVIDER_OPTIONS, 'content-store', 'decoder', 'runtime-version', 'grpc', 'quiet'],
      modes: [
        ...FORWARDING,
        {
          name: '--remote=unix:///PATH',
          isOn: (settings) => settings.text('remote')?.startsWith('unix:') ?? false,
          alone: ['grpc'],
        },
        {
          name: '--decoder=ctd-decoder',
          isOn: (settings) => settings.text('decoder') === 'ctd-decoder',
          alone: ['runtime-version'],
        },
      ],
      run: async (context) => (await import('./config.ts')).runConfig(context),
    },
  ],
  [
    'completion',
    {
      operands: 'bash|zsh|fish',
      describe: 'print a script by which the shell completes commands, options, keys, images and files',
      examples: ['bash', 'zsh'],
      options: [],
      run: async (context) => (await import('./completion/completion.ts')).runCompletion(context, COMMANDS),
    },
  ],
  [
    'node',
    {
      operands: 'install|check|uninstall|purge|agent|dismiss [NAME]…',
      describe:
        'set up the container runtimes of this node, try them, undo it, or remove an image with all that is unpacked of it; agents do so on the nodes of a cluster',
      examples: ['install --key=/etc/keys/app.key', 'purge registry.example/app:1'],
      options: [
        ...DECODER_OPTIONS,
        'runtime-version',
        'root',
        'dry-run',
        'service',
        'no-restart',
        'pull',
        'json',
        ...AGENT_OPTIONS,
      ],
      modes: [
        ...FORWARDING,
        {
          name: 'node install',
          isOn: ({ operands }) => operands[0] === 'install',
          alone: [...DECODER_OPTIONS.filter((name) => !OF_EVERY_ACTION.includes(name)), 'runtime-version', 'service'],
        },
        {
          name: 'node install or uninstall',
          isOn: ({ operands }) => operands[0] === 'install' || operands[0] === 'uninstall',
          alone: ['root', 'no-restart'],
        },
        {
          name: 'node install or purge',
          isOn: ({ operands }) => operands[0] === 'install' || operands[0] === 'purge',
          alone: ['dry-run'],
        },
        {
          name: 'node agent or dismiss',
          isOn: ({ operands }) => operands[0] === 'agent' || operands[0] === 'dismiss',
          alone: ['daemon-set'],
        },
        {
          name: 'node agent',
          isOn: ({ operands }) => operands[0] === 'agent',
          alone: AGENT_OPTIONS.filter((name) => name !== 'daemon-set'),
        },
        {
          name: 'node check',
          isOn: ({ operands }) => operands[0] === 'check',
          alone: ['pull', 'json'],
        },
      ],
      run: async (context) => (await import('./node/node.ts')).runNode(context),
    },
  ],
  [
    'version',
    {
      operands: '',
      describe: 'print the version; with --json also the commit, its date, the runtime and the platform',
      examples: ['', '--json'],
      options: ['json'],
      run: async (context) => (await import('./version.ts')).runVersion(context),
    },
  ],
  [
    'licenses',
    {
      operands: '',
      describe: 'print the licences of all that the executable holds',
      examples: ['', '--help'],
      options: [],
      run: async (context) => (await import('./licenses.ts')).runLicenses(context),
    },
  ],
]);
