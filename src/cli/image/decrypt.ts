// The command that decrypts an image.

import { decryptImage } from '../../image/decrypt.ts';
import type { CommandContext } from '../command.ts';
import { count } from '../text.ts';
import { layerNumbers, platformNames, printResult, runOnImage } from './run.ts';

/** Prints the digest of the decrypted image. */
export async function runDecrypt(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const [from, to] = settings.operands;
  const layers = layerNumbers(settings);
  await runOnImage(
    context,
    async ({ tools, signal, onProgress, onTotal, onSwitch }) => {
      const { source, destination } = tools.between(from, to);
      return decryptImage(source, destination, {
        keys: (await tools.keys()).unwrapper(),
        layers,
        ...platformNames(settings),
        checkDiffIds: settings.switch('check-diff-ids'),
        onProgress,
        onTotal,
        onSwitch,
        signal,
      });
    },
    async (result) => {
      await printResult(context, result);
      const total = result.images.reduce((sum, image) => sum + image.layers, 0);
      terminal.say(`decrypted ${count(total, 'layer')} on ${count(result.images.length, 'platform')}`, 'advice');
    },
  );
}
