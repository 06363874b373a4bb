// The command that containerd runs for each encrypted layer: its bytes on standard input, the plain ones on standard output.

import { OcicryptError } from '../base/errors.ts';
import { createUnwrapper } from '../client/holders.ts';
import { decodeLayer } from '../node/open-layer.ts';
import { decodePayload, MAXIMUM_PAYLOAD } from '../node/payload.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import type { CommandContext } from './command.ts';
import { createHolders, NO_HOLDER, openKeys } from './image/keys.ts';
import { untilInterrupted } from './interrupt.ts';

/** Where containerd gives a decoder its payload: the first of `ExtraFiles` of Go. */
const PAYLOAD_DESCRIPTOR = 3;

/** Decrypts the layer on standard input. */
export async function runDecoder(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const limit = settings.requestTime() ?? DEFAULT_LIMITS.total;
  const { input, output, inherited } = await terminal.streams();
  const keys = await openKeys(context);
  try {
    await untilInterrupted(
      terminal,
      async (interrupted) => {
        const bytes = await inherited(PAYLOAD_DESCRIPTOR, MAXIMUM_PAYLOAD);
        if (bytes === undefined) throw new OcicryptError('usage', 'no payload');
        const { descriptor, parameters } = decodePayload(bytes);
        const { own, configured } = createHolders(keys, parameters);
        const unwrapper = createUnwrapper([...own, ...configured.values()], NO_HOLDER);
        await decodeLayer(input, output, descriptor, unwrapper, {
          unwrap: AbortSignal.any([interrupted, AbortSignal.timeout(limit)]),
          whole: interrupted,
        });
      },
      () => new OcicryptError('deadline-exceeded', 'interrupted: the layer was not decrypted'),
    );
  } finally {
    await keys.close();
  }
}
