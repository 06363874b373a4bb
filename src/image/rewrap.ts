// Changes who can open an image: new wrapped keys in new manifests, the same layers.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { thaw } from '../base/json-writer.ts';
import type { LayerKeyUnwrapper, LayerKeyWrapper, WrappedLayerKey } from '../client/layer-keys.ts';
import { forEachLimited, KEY_CALLS } from './concurrency.ts';
import {
  decodeEncryption,
  encodeEncryption,
  identifyLayer,
  isEncryptedType,
  withoutEncryption,
} from './model/annotations.ts';
import { changeDescriptor, type Descriptor } from './model/descriptor.ts';
import { decodeLayerKeyRecord, encodePublicOptions } from './model/layer-options.ts';
import { MEDIA_TYPES, writeManifest } from './model/manifest.ts';
import { checkDistinct, describePacket, type PacketDescription, type PacketRecipient } from './model/packets.ts';
import { wrapForAll } from './recipients.ts';
import { rewriteTree, writeTree } from './transform.ts';
import { createNewManifest, findReferrers, type ImageStore, type StoredManifest } from './transports/store.ts';
import { type ImageNode, type PlatformImage, readImageTree, selectPlatforms } from './tree.ts';

/** Turns the wrapped keys of one layer into others. */
export interface LayerKeyRewrapper {
  /** @returns all keys that the layer is to have afterwards, in the order in which they are to be tried */
  rewrap(keys: readonly WrappedLayerKey[], signal: AbortSignal): Promise<readonly WrappedLayerKey[]>;
}

/** How wrapped keys change, and in which platforms of an image. */
export type RewrapOptions = {
  readonly keys: LayerKeyRewrapper;
  /** `os/architecture[/variant]`; all if it is left out. The others stay in the index as they are. */
  readonly platforms?: readonly string[];
  /** Only says what would change. */
  readonly dryRun?: boolean;
  /** Called with the digest of the new image when only its name is to be moved: afterwards it may stand for that. */
  readonly onSwitch?: ((digest: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** What changed, or would. */
export type RewrappedImage = {
  readonly digest: string;
  readonly mediaType: string;
  readonly previousDigest: string;
  /** Signatures, attestations and whatever else refers to the previous digests, and not to these. */
  readonly referrers: readonly string[];
  /** Whether the registry has told of all of them. */
  readonly referrersComplete: boolean;
  readonly written: boolean;
  readonly layers: readonly {
    readonly digest: string;
    readonly before: readonly PacketDescription[];
    readonly after: readonly PacketDescription[];
  }[];
};

/**
 * Changes the wrapped keys of every encrypted layer of the selected platforms; no layer is read or written. Keys that are wrapped
 * alike are changed once. All succeed before the first manifest is written, and the name moves last: a failure, or a
 * death at any moment, leaves the old image. The old manifest stays readable by its digest, signatures of it do not
 * cover the new one, and everybody who once obtained a layer's key keeps it.
 *
 * @param store where the image is, and stays
 * @throws OcicryptError `not-found` for a selected platform that is not here, `bad-input` for an image without an
 *   encrypted layer or with senseless annotations, and what
 *   `keys` and the store throw
 * @example
 * const { digest } = await rewrapImage(store, { keys: addKeys(unwrapper, [recipient]), dryRun: true });
 */
export async function rewrapImage(store: ImageStore, options: RewrapOptions): Promise<RewrappedImage> {
  return rewrapTree(store, await readImageTree(store, options.signal), options);
}

/** The same of an image whose manifests have been read. */
export async function rewrapTree(store: ImageStore, tree: ImageNode, options: RewrapOptions): Promise<RewrappedImage> {
  const { signal } = options;
  const images = selectPlatforms(tree, options.platforms ?? [], store.name);
  const layers = images.flatMap(({ manifest }) => manifest.layers.filter((layer) => isEncryptedType(layer.mediaType)));
  const packets = new Map(layers.map((layer) => [identifyLayer(layer), layer]));
  if (packets.size === 0) {
    throw new OcicryptError('bad-input', `${store.name} is not encrypted`, {
      hint: `run ocicrypt-kms inspect ${store.name}`,
    });
  }
  const changes = new Map<string, Change>();
  await forEachLimited(
    [...packets],
    KEY_CALLS,
    async ([key, layer], running) => {
      changes.set(key, await rewrapLayer(layer, options.keys, running));
    },
    signal,
  );
  const encrypted = images.filter(({ manifest }) => manifest.layers.some((layer) => isEncryptedType(layer.mediaType)));
  const replaced = new Map<ImageNode, StoredManifest>(encrypted.map((image) => [image, rewriteImage(image, changes)]));
  const digests = new Set([tree, ...encrypted].map(({ stored }) => stored.digest));
  const { found, complete } = await findReferrers(store, [...digests], signal);
  const written = rewriteTree(tree, replaced);
  if (options.dryRun !== true) await writeTree(store, written, options);
  return {
    digest: written.root.digest,
    mediaType: written.root.mediaType,
    previousDigest: tree.stored.digest,
    referrers: found,
    referrersComplete: complete,
    written: options.dryRun !== true,
    layers: [...changes.values()].map(({ digest, before, after }) => ({
      digest,
      before: before.map((key) => describePacket(key)),
      after: after.map((key) => describePacket(key)),
    })),
  };
}

/**
 * New recipients in place of all old ones.
 *
 * @param unwrapper opens the layer keys
 * @param wrappers the new recipients
 * @throws nothing; what it makes throws what those throw
 * @example
 * await rewrapImage(store, { keys: replaceKeys(unwrapper, [recipient]) });
 */
export function replaceKeys(unwrapper: LayerKeyUnwrapper, wrappers: readonly LayerKeyWrapper[]): LayerKeyRewrapper {
  return { rewrap: (keys, signal) => wrapAgain(keys, unwrapper, wrappers, signal) };
}

/**
 * New recipients beside the old ones, whose entries stay byte for byte: their keys may not be ours to wrap with.
 *
 * @param unwrapper opens the layer keys
 * @param wrappers the new recipients
 * @throws nothing; what it makes throws what those throw, and `bad-input` for a recipient that is there already
 * @example
 * await rewrapImage(store, { keys: addKeys(unwrapper, [recipient]) });
 */
export function addKeys(unwrapper: LayerKeyUnwrapper, wrappers: readonly LayerKeyWrapper[]): LayerKeyRewrapper {
  return {
    async rewrap(keys, signal) {
      const added = await wrapAgain(keys, unwrapper, wrappers, signal);
      checkDistinct(added, keys);
      return [...keys, ...added];
    },
  };
}

/**
 * The same recipients without some. Packets that none of those is in stay byte for byte; one that was for others too is
 * made anew, under a new data key, for those others.
 *
 * @param unwrapper opens the layer keys
 * @param isRemoved whether a recipient in a packet of `scheme` is to go; packets that name no recipient are asked about once
 * @param wrapperFor gives what wraps for the keys that stay in a packet of `scheme`; throws if one cannot be
 * @throws OcicryptError `not-found` if a layer has no such recipient
 * @example
 * await rewrapImage(store, {
 *   keys: removeKeys(unwrapper, ({ key }) => key === old, (scheme, staying) => wrapperFor(staying)),
 * });
 */
export function removeKeys(
  unwrapper: LayerKeyUnwrapper,
  isRemoved: (recipient: PacketRecipient, scheme: string) => boolean,
  wrapperFor: (scheme: string, keys: readonly string[]) => LayerKeyWrapper | Promise<LayerKeyWrapper>,
): LayerKeyRewrapper {
  return {
    async rewrap(keys, signal) {
      const after: WrappedLayerKey[] = [];
      let removed = 0;
      for (const key of keys) {
        const { scheme, recipients } = describePacket(key);
        const all = recipients.length === 0 ? [NOBODY_NAMED] : recipients;
        const staying = all.filter((recipient) => !isRemoved(recipient, scheme));
        removed += all.length - staying.length;
        if (staying.length === all.length) after.push(key);
        else if (staying.length > 0) {
          const names = staying.flatMap((recipient) => recipient.key ?? []);
          // Of this very packet, whose seal covers its recipients: opened from another one, the layer key would go to
          // whomever a forged packet names.
          after.push(...(await wrapAgain([key], unwrapper, [await wrapperFor(scheme, names)], signal)));
        }
      }
      if (removed > 0) return after;
      throw new OcicryptError('not-found', 'no layer key is wrapped for the key to be removed', {
        hint: 'ocicrypt-kms inspect shows the keys of an image',
      });
    },
  };
}

const NOBODY_NAMED: PacketRecipient = {
  key: undefined,
  version: undefined,
  algorithm: undefined,
  postQuantum: false,
};

type Change = {
  readonly digest: string;
  readonly before: readonly WrappedLayerKey[];
  readonly after: readonly WrappedLayerKey[];
  readonly annotations: ReadonlyMap<string, string>;
};

async function rewrapLayer(layer: Descriptor, rewrapper: LayerKeyRewrapper, signal: AbortSignal): Promise<Change> {
  const what = `layer ${layer.digest}`;
  const { publicOptions, keys } = decodeEncryption(layer.annotations, what);
  const after = await rewrapper.rewrap(keys, signal);
  if (after.length === 0)
    throw new OcicryptError('bad-input', `no recipient could open ${what}`, { hint: 'keep or add a recipient' });
  const added = encodeEncryption(encodePublicOptions(publicOptions), after);
  // What is written must be readable: the bounds of reading hold for it too.
  decodeEncryption(added, what);
  return { digest: layer.digest, before: keys, after, annotations: added };
}

async function wrapAgain(
  keys: readonly WrappedLayerKey[],
  unwrapper: LayerKeyUnwrapper,
  wrappers: readonly LayerKeyWrapper[],
  signal: AbortSignal,
): Promise<readonly WrappedLayerKey[]> {
  const record = await unwrapper.unwrap(keys, signal);
  try {
    // Nothing but a layer key is ever wrapped.
    wipe(decodeLayerKeyRecord(record, 'the layer').key);
    return await wrapForAll(wrappers, record, signal);
  } finally {
    wipe(record);
  }
}

function rewriteImage(image: PlatformImage, changes: ReadonlyMap<string, Change>): StoredManifest {
  const layers = image.manifest.layers.map((layer) => {
    const change = isEncryptedType(layer.mediaType) ? changes.get(identifyLayer(layer)) : undefined;
    if (change === undefined) return thaw(layer.json);
    const annotations = new Map([...withoutEncryption(layer.annotations), ...change.annotations]);
    return changeDescriptor(layer, { annotations });
  });
  return createNewManifest(writeManifest(image.manifest, layers), MEDIA_TYPES.manifest);
}
