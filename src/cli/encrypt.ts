// The command that encrypts an image.

import { encryptImage } from '../image/encrypt.ts';
import type { CommandContext } from './command.ts';
import { adviseSigning, layerNumbers, nameResult, platformNames, printResult, runOnImage } from './image-run.ts';
import { namedRecipients } from './image-setup.ts';
import { type WatchedWrappers, warnOfClassic, watchWrappers } from './recipient-warning.ts';
import { count } from './text.ts';

/** Prints the digest of the encrypted image. */
export async function runEncrypt(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const [from, to] = settings.operands;
  const layers = layerNumbers(settings);
  let watched: WatchedWrappers | undefined;
  const written = await runOnImage(context, async ({ tools, signal, onProgress }) => {
    const { source, destination } = tools.between(from, to);
    watched = watchWrappers(await tools.wrappers(await namedRecipients(settings)));
    return encryptImage(source, destination, {
      recipients: watched.wrappers,
      ...(layers === undefined ? {} : { layers }),
      ...platformNames(settings),
      onProgress,
      signal,
    });
  });
  const result = nameResult(context, to, written);
  await printResult(context, result);
  const total = result.images.reduce((sum, image) => sum + image.layers, 0);
  terminal.say(`encrypted ${count(total, 'layer')} on ${count(result.images.length, 'platform')}`);
  warnOfClassic(terminal, watched?.packets() ?? []);
  adviseSigning(terminal, to, result);
}
