// The image commands, part of the one table (cli/commands.ts).

import type { Command } from '../command.ts';
import type { OptionName } from '../options/table.ts';

/** Options of a client's requests; an image command names its keys itself. */
const NOT_FOR_IMAGES: ReadonlySet<OptionName> = new Set<OptionName>(['kmsURI', 'bytes', 'packet', 'config']);

/** Options with an effect even if no layer key is opened: a required file of age identities may ask for its passphrase. */
const WITHOUT_KEYS: ReadonlySet<OptionName> = new Set<OptionName>([
  'age-passphrase-file',
  'ca',
  'debugLog',
  'timeout',
  'authfile',
  'json',
  'quiet',
  'config',
]);

/** @param provider the options of a provider that wraps and unwraps */
export function imageCommands(provider: readonly OptionName[]): readonly (readonly [string, Command])[] {
  const keys = provider.filter((name) => !NOT_FOR_IMAGES.has(name));
  const common: readonly OptionName[] = [...keys, 'authfile', 'json', 'quiet', 'config'];
  // Our own name is in what is wrapped; nothing that is unwrapped depends on it.
  const unwrapping = common.filter((name) => name !== 'provider');
  return [
    [
      'encrypt',
      {
        operands: 'SRC DST',
        describe: 'encrypt an image to recipients, all platforms of it',
        examples: [
          'oci:app:latest oci:encrypted:latest --recipient=keyfile:///etc/keys/app.key',
          'docker://registry.example/app:1 docker://registry.example/app:1-encrypted --recipient=awskms:///alias/images --context=env=prod',
        ],
        options: ['recipient', 'recipients-file', 'layer', 'platform', 'packet', 'digestfile', 'digest-tag', ...common],
        isOpen: true,
        run: async (context) => (await import('./encrypt.ts')).runEncrypt(context),
      },
    ],
    [
      'decrypt',
      {
        operands: 'SRC DST',
        describe: 'decrypt an image; either all of it is written or nothing',
        examples: [
          'oci:encrypted:latest oci:decrypted:latest --key=app.key',
          'docker://registry.example/app:1-encrypted oci-archive:app.tar --allow=awskms:///alias/images',
        ],
        options: ['layer', 'platform', 'check-diff-ids', 'digestfile', ...unwrapping],
        isOpen: true,
        run: async (context) => (await import('./decrypt.ts')).runDecrypt(context),
      },
    ],
    [
      'rewrap',
      {
        operands: 'IMAGE',
        describe: 'change who can open an image; layers stay as they are, only manifests are written',
        examples: [
          'docker://registry.example/app:1-encrypted --add=awskms:///alias/backup --key=app.key',
          'oci:encrypted:latest --remove=awskms:///alias/images --key=app.key --dry-run',
        ],
        options: [
          'recipient',
          'recipients-file',
          'add',
          'remove',
          'platform',
          'dry-run',
          'packet',
          'digestfile',
          'digest-tag',
          ...common,
        ],
        isOpen: true,
        run: async (context) => (await import('./rewrap.ts')).runRewrap(context),
      },
    ],
    [
      'inspect',
      {
        operands: 'IMAGE',
        describe: 'show who can open an image; needs no key and fetches no layer',
        examples: ['oci:encrypted:latest', 'docker://registry.example/app:1-encrypted --json'],
        options: ['timeout', 'ca', 'authfile', 'json', 'quiet', 'config'],
        isOpen: true,
        run: async (context) => (await import('./inspect.ts')).runInspect(context),
      },
    ],
    [
      'verify',
      {
        operands: 'IMAGE',
        describe: 'fail unless every layer is encrypted to the recipients that you require',
        examples: [
          'docker://registry.example/app:1-encrypted --require=awskms:///alias/images --only=awskms:///alias/images',
          'oci:encrypted:latest --require=keyfile:///etc/keys/app.key --content',
        ],
        options: ['require', 'only', 'unwrap', 'content', 'post-quantum', 'digest-tag', 'allow-absent', ...unwrapping],
        modes: [
          {
            name: '--unwrap or --content',
            isOn: (settings) => settings.switch('unwrap') || settings.switch('content'),
            alone: unwrapping.filter((name) => !WITHOUT_KEYS.has(name)),
          },
        ],
        isOpen: true,
        run: async (context) => (await import('./verify.ts')).runVerify(context),
      },
    ],
  ];
}
