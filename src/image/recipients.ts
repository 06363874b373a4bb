// The recipients of a layer: each of them gets its key, or none does.

import { OcicryptError } from '../base/errors.ts';
import type { LayerKeyWrapper, WrappedLayerKey } from '../client/layer-keys.ts';
import { checkDistinct } from './model/packets.ts';

/**
 * Wraps a layer-key record for all recipients.
 *
 * @throws OcicryptError what the first recipient that fails throws, and `bad-input` for two that are one key
 */
export async function wrapForAll(
  recipients: readonly LayerKeyWrapper[],
  record: Uint8Array,
  signal: AbortSignal,
): Promise<readonly WrappedLayerKey[]> {
  const keys = await Promise.all(
    recipients.map(async (recipient): Promise<readonly WrappedLayerKey[]> => {
      const { scheme } = recipient;
      const packets = await recipient.wrap(record, signal);
      if (packets.length === 0) throw new OcicryptError('internal', `no wrapped key from ${scheme}`);
      return packets.map((packet) => ({ scheme, packet }));
    }),
  );
  const all = keys.flat();
  checkDistinct(all);
  return all;
}
