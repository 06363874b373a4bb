// Opens layer keys only to learn which keys and providers can.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper, WrappedLayerKey } from '../client/layer-keys.ts';
import { decodeEncryption, isEncryptedType } from './model/annotations.ts';
import type { Descriptor } from './model/descriptor.ts';
import { decodeLayerKeyRecord, type LayerKeyRecord } from './model/layer-options.ts';
import { describePacket, type PacketDescription } from './model/packets.ts';
import type { ImageSource } from './transports/store.ts';
import { imagesOf, platformName, readImageTree } from './tree.ts';

/** Layers whose keys are wrapped for the same recipients, as far as their packets tell: one stands for all. */
export type LayerGroup = {
  readonly layers: readonly { readonly platform: string; readonly index: number }[];
  /** Those of the first layer, and what they say of themselves. Empty if the layers are plain. */
  readonly keys: readonly { readonly wrapped: WrappedLayerKey; readonly description: PacketDescription }[];
};

/** Each is tried with every key and provider there is. */
const MAXIMUM_GROUPS = 64;

/**
 * Sorts the layers of an image by who can open them.
 *
 * @throws OcicryptError `not-found`, `bad-input` (senseless annotations too, and more than 64 groups), `integrity`
 */
export async function groupLayers(source: ImageSource, signal: AbortSignal): Promise<readonly LayerGroup[]> {
  const tree = await readImageTree(source, signal);
  // One manifest may be part of many images.
  const known = new Map<Descriptor, Group>();
  const groups = new Map<string, Group>();
  for (const image of imagesOf(tree)) {
    for (const [index, layer] of image.manifest.layers.entries()) {
      const group = known.get(layer) ?? groupOf(layer, groups);
      known.set(layer, group);
      group.layers.push({ platform: platformName(image), index });
    }
  }
  return [...groups.values()];
}

type Group = LayerGroup & { readonly layers: LayerGroup['layers'][number][] };

function groupOf(layer: Descriptor, groups: Map<string, Group>): Group {
  const wrapped = isEncryptedType(layer.mediaType)
    ? decodeEncryption(layer.annotations, `layer ${layer.digest}`).keys
    : [];
  const keys = wrapped.map((key) => ({ wrapped: key, description: describePacket(key) }));
  const name = JSON.stringify(keys.map(({ description }) => description));
  const group = groups.get(name) ?? { layers: [], keys };
  groups.set(name, group);
  if (groups.size <= MAXIMUM_GROUPS) return group;
  throw new OcicryptError('bad-input', `the layers are for more than ${MAXIMUM_GROUPS} different sets of recipients`);
}

/** Opens a layer key and forgets it. @throws OcicryptError as {@link openLayerKey} */
export async function tryLayerKey(...words: Parameters<typeof openLayerKey>): Promise<void> {
  wipe((await openLayerKey(...words)).key);
}

/**
 * Opens a layer key, for who reads no layer or keeps nothing of it.
 *
 * @param what names the layer in an error
 * @returns the key among others, to be wiped
 * @throws OcicryptError what the unwrapper throws; `integrity` if it opened something that is no layer key
 */
export async function openLayerKey(
  keys: readonly WrappedLayerKey[],
  unwrapper: LayerKeyUnwrapper,
  what: string,
  signal: AbortSignal,
): Promise<LayerKeyRecord> {
  const record = await unwrapper.unwrap(keys, signal);
  try {
    return decodeLayerKeyRecord(record, what);
  } finally {
    wipe(record);
  }
}
