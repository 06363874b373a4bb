// The command that encrypts an image.

import { type EncryptedImage, encryptImage } from '../../image/encrypt.ts';
import type { CommandContext } from '../command.ts';
import { count } from '../text.ts';
import { type WatchedWrappers, warnOfClassic, watchWrappers } from './recipient-warning.ts';
import { adviseSigning, layerNumbers, nameResult, platformNames, printResult, runOnImage } from './run.ts';
import { namedRecipients } from './setup.ts';

/** Prints the digest of the encrypted image. */
export async function runEncrypt(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const [from, to] = settings.operands;
  const layers = layerNumbers(settings);
  let watched: WatchedWrappers | undefined;
  await runOnImage(
    context,
    async ({ tools, signal, onProgress, onTotal, onSwitch }) => {
      const { source, destination } = tools.between(from, to);
      watched = watchWrappers(await (await tools.keys()).wrappers(await namedRecipients(settings)));
      return encryptImage(source, destination, {
        recipients: watched.wrappers,
        layers,
        ...platformNames(settings),
        onProgress,
        onTotal,
        onSwitch,
        signal,
      });
    },
    async (written) => {
      const result = nameResult(context, to, written);
      await printResult(context, result);
      const total = result.images.reduce((sum, image) => sum + image.layers, 0);
      terminal.say(`encrypted ${count(total, 'layer')} on ${count(result.images.length, 'platform')}`, 'advice');
      warnOfClassic(terminal, watched?.packets() ?? []);
      for (const line of describePlain(result, from === to ? to : undefined)) terminal.say(line);
      adviseSigning(terminal, to, result);
    },
  );
}

/** @param image the image that was encrypted in place, if it was */
function* describePlain({ foreign, leftPlain, previousDigest }: EncryptedImage, image?: string): Generator<string> {
  for (const digest of foreign) {
    yield `layer ${digest} stays plain: runtimes fetch foreign layers from their owner; --layer encrypts a copy`;
  }
  if (leftPlain.length > 0) {
    yield `plain layers stay beside the image, remove them if nothing else needs them: ${leftPlain.join(', ')}`;
  }
  if (image?.startsWith('docker:')) {
    yield `the registry still has the plain image by its digest: delete ${previousDigest} there`;
  }
}
