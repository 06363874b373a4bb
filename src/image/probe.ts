// The only code that opens layer keys for no layer's sake: to learn who can.

import { wipe } from '../base/bytes.ts';
import type { LayerKeyUnwrapper, WrappedKey } from '../client/layer-keys.ts';
import { decodeEncryption, isEncryptedType } from './annotations.ts';
import { decodePrivateOptions } from './layer-options.ts';
import { describePacket, type PacketDescription } from './packets.ts';
import type { ImageSource } from './store.ts';
import { imagesOf, platformName, readImageTree } from './tree.ts';

/** Layers whose keys are wrapped for the same recipients, as far as their packets tell: one stands for all. */
export type LayerGroup = {
  readonly layers: readonly { readonly platform: string; readonly index: number }[];
  /** Those of the first layer, and what they say of themselves. Empty where the layers are plain. */
  readonly keys: readonly { readonly wrapped: WrappedKey; readonly description: PacketDescription }[];
};

/**
 * Sorts the layers of an image by who can open them.
 *
 * @throws OcicryptError `not-found`, `bad-input` (senseless annotations too), `integrity`
 */
export async function groupLayers(source: ImageSource, signal: AbortSignal): Promise<readonly LayerGroup[]> {
  const tree = await readImageTree(source, signal);
  const all = imagesOf(tree).flatMap((image) =>
    image.manifest.layers.map((layer, index): LayerGroup => {
      const encrypted = isEncryptedType(layer.mediaType);
      const keys = encrypted ? decodeEncryption(layer.annotations, `layer ${layer.digest}`).keys : [];
      return {
        layers: [{ platform: platformName(image), index }],
        keys: keys.map((wrapped) => ({ wrapped, description: describePacket(wrapped) })),
      };
    }),
  );
  const alike = Map.groupBy(all, ({ keys }) => JSON.stringify(keys.map(({ description }) => description)));
  return [...alike.values()].map((groups) => ({
    layers: groups.flatMap(({ layers }) => layers),
    keys: groups[0]?.keys ?? [],
  }));
}

/**
 * Opens a layer key and forgets it.
 *
 * @param what names the layer in an error
 * @throws OcicryptError what the unwrapper throws; `integrity` where it opened something that is no layer key
 */
export async function tryLayerKey(
  keys: readonly WrappedKey[],
  unwrapper: LayerKeyUnwrapper,
  what: string,
  signal: AbortSignal,
): Promise<void> {
  const record = await unwrapper.unwrap(keys, signal);
  try {
    wipe(decodePrivateOptions(record, what).key);
  } finally {
    wipe(record);
  }
}
