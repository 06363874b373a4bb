// The image commands, part of the one table (cli/commands.ts).

import type { Command } from '../command.ts';
import type { OptionName } from '../options/table.ts';

/** A client's requests have these; an image command names its keys itself. */
const NOT_FOR_IMAGES: ReadonlySet<OptionName> = new Set<OptionName>(['kmsURI', 'bytes', 'packet', 'config']);

/** What has an effect where no layer key is opened; a file of age identities that is required may ask for its passphrase. */
const WITHOUT_KEYS: ReadonlySet<OptionName> = new Set<OptionName>([
  'age-passphrase-file',
  'ca',
  'debugLog',
  'timeout',
  'authfile',
  'json',
  'config',
]);

/** @param provider the options of whoever wraps and unwraps */
export function imageCommands(provider: readonly OptionName[]): readonly (readonly [string, Command])[] {
  const keys = provider.filter((name) => !NOT_FOR_IMAGES.has(name));
  const common: readonly OptionName[] = [...keys, 'authfile', 'json', 'config'];
  // Packets know no name of ours: it is for what is wrapped.
  const unwrapping = common.filter((name) => name !== 'provider');
  return [
    [
      'encrypt',
      {
        operands: 'SRC DST',
        describe: 'encrypt an image to recipients',
        options: ['recipient', 'recipients-file', 'layer', 'platform', 'packet', 'digestfile', 'digest-tag', ...common],
        run: async (context) => (await import('./encrypt.ts')).runEncrypt(context),
      },
    ],
    [
      'decrypt',
      {
        operands: 'SRC DST',
        describe: 'decrypt an image with a key; all of it or nothing',
        options: ['layer', 'platform', 'check-diff-ids', 'digestfile', ...unwrapping],
        run: async (context) => (await import('./decrypt.ts')).runDecrypt(context),
      },
    ],
    [
      'rewrap',
      {
        operands: 'IMAGE',
        describe: 'change who can open an image; its layers stay, only manifests are written',
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
        run: async (context) => (await import('./rewrap.ts')).runRewrap(context),
      },
    ],
    [
      'inspect',
      {
        operands: 'IMAGE',
        describe: 'show who can open what in an image; needs no key and fetches no layer',
        options: ['timeout', 'ca', 'authfile', 'json', 'config'],
        run: async (context) => (await import('./inspect.ts')).runInspect(context),
      },
    ],
    [
      'verify',
      {
        operands: 'IMAGE',
        describe: 'succeed only if every layer of every platform is encrypted, and to whom it should be',
        options: ['require', 'only', 'unwrap', 'content', 'post-quantum', 'digest-tag', 'allow-absent', ...unwrapping],
        modes: [
          {
            name: '--unwrap or --content',
            isOn: (settings) => settings.switch('unwrap') || settings.switch('content'),
            alone: unwrapping.filter((name) => !WITHOUT_KEYS.has(name)),
          },
        ],
        run: async (context) => (await import('./verify.ts')).runVerify(context),
      },
    ],
  ];
}
