// Encrypts an image: its layers with keys of their own, those keys to the recipients.

import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import type { LayerKeyWrapper } from '../client/layer-keys.ts';
import { encryptLayer } from './cipher/layer.ts';
import { encodeEncryption, encryptedType, isEncryptedType, isForeignType } from './model/annotations.ts';
import type { Descriptor } from './model/descriptor.ts';
import { wrapForAll } from './recipients.ts';
import { countProgress, describeWritten, type WrittenImage } from './result.ts';
import { retry } from './retry.ts';
import { selectLayers } from './select.ts';
import { type ChangedLayer, type ImageProgress, transformImage } from './transform.ts';
import { findReferrers, type ImageSource, type ImageStore, moveBlob, removeUnnamed } from './transports/store.ts';
import { type PlatformImage, readImageTree, selectPlatforms } from './tree.ts';

/** For whom an image is encrypted, and which of its layers are. */
export type EncryptOptions = {
  /** Every one wraps every layer key, or nothing is written. */
  readonly recipients: readonly LayerKeyWrapper[];
  /** Numbers of the layers to encrypt, from 0, or from -1 backwards; all but foreign ones if it is left out. */
  readonly layers?: readonly number[] | undefined;
  /** `os/architecture[/variant]`; all if it is left out. The others stay in the index as they are. */
  readonly platforms?: readonly string[] | undefined;
  readonly onProgress?: (progress: ImageProgress) => void;
  /** Called once with the bytes of all that `onProgress` will tell of. */
  readonly onTotal?: (bytes: number) => void;
  /** Called with the digest of the new image when only its name is to be moved: afterwards it may stand for that. */
  readonly onSwitch?: (digest: string) => void;
  readonly signal?: AbortSignal;
};

/** What was done; `digest` is the one to sign. */
export type EncryptedImage = WrittenImage & {
  /** Signatures, attestations and whatever else refers to the previous digests, and not to these. */
  readonly referrers: readonly string[];
  /** Whether the source has told of all of them. */
  readonly referrersComplete: boolean;
  /** Digests of plain layers that are still at the destination although nothing there names them any more. */
  readonly leftPlain: readonly string[];
  /** Digests of foreign layers, which stay plain: runtimes fetch them from where their owner has them. */
  readonly foreign: readonly string[];
};

/**
 * Encrypts an image from `source` to `destination`, which may be the same place. Index, attestations and platforms that
 * are not selected are kept. A layer that several platforms share is encrypted once.
 *
 * @param source may be `destination`
 * @param destination where the encrypted image goes
 * @throws OcicryptError `not-found` (image, platform), `bad-input` (a layer that is encrypted already or cannot be),
 *   `integrity`, `not-written`, and what the recipients throw. The destination's name then stands for what it stood for
 * @example
 * const { digest } = await encryptImage(plain, encrypted, { recipients: [recipient] });
 */
export async function encryptImage(
  source: ImageSource,
  destination: ImageStore,
  options: EncryptOptions,
): Promise<EncryptedImage> {
  const { signal, onProgress } = options;
  if (options.recipients.length === 0)
    throw new OcicryptError('usage', 'no recipient to encrypt to', { hint: `add ${setting('recipients')} KEY` });
  const tree = await readImageTree(source, signal);
  const images = selectPlatforms(tree, options.platforms ?? [], source.name);
  if (images.length === 0) throw new OcicryptError('bad-input', `${source.name} holds no image`);
  const foreign = new Set<string>();
  const selected = new Map(
    [...selectLayers(images, options.layers)].map(([image, layers]) => [
      image,
      options.layers === undefined ? withoutForeign(image, layers, foreign) : layers,
    ]),
  );
  for (const [image, layers] of selected) for (const index of layers) checkLayer(image, index, source.name);

  const digests = new Set([tree, ...selected.keys()].map(({ stored }) => stored.digest));
  const { found, complete } = await findReferrers(source, [...digests], signal);
  const transformed = await transformImage(source, destination, tree, {
    selects: (image, index) => selected.get(image)?.has(index) ?? false,
    change: (layer, outer) =>
      retry((running) => encryptOne(source, destination, layer, options.recipients, onProgress, running), outer),
    onProgress,
    onTotal: options.onTotal,
    onSwitch: options.onSwitch,
    signal,
  });
  const plain = [...selected].flatMap(([image, layers]) =>
    [...layers].flatMap((index) => image.manifest.layers[index]?.digest ?? []),
  );
  return {
    ...describeWritten(tree, transformed),
    referrers: found,
    referrersComplete: complete,
    leftPlain: await removeUnnamed(destination, plain),
    foreign: [...foreign],
  };
}

/** The numbers of layers without foreign ones, which are collected. */
function withoutForeign(image: PlatformImage, layers: ReadonlySet<number>, foreign: Set<string>): ReadonlySet<number> {
  const isOurs = (index: number) => {
    const layer = image.manifest.layers[index];
    if (layer === undefined || !isForeignType(layer.mediaType)) return true;
    foreign.add(layer.digest);
    return false;
  };
  return new Set([...layers].filter(isOurs));
}

function checkLayer(image: PlatformImage, index: number, name: string): void {
  const layer = image.manifest.layers[index];
  if (layer === undefined) return;
  if (isEncryptedType(layer.mediaType)) {
    throw new OcicryptError('bad-input', `layer ${index} of ${name} is encrypted already`, {
      hint: `to add a recipient run ocicrypt-kms rewrap ${name} ${setting('add')} KEY`,
    });
  }
  if (encryptedType(layer.mediaType) === undefined) {
    throw new OcicryptError(
      'bad-input',
      `layer ${index} of ${name} is of a type that has no encrypted form: ${layer.mediaType}`,
      {
        hint: `choose the layers to encrypt with ${setting('layers')} N`,
      },
    );
  }
}

async function encryptOne(
  source: ImageSource,
  destination: ImageStore,
  layer: Descriptor,
  recipients: readonly LayerKeyWrapper[],
  onProgress: EncryptOptions['onProgress'],
  signal: AbortSignal,
): Promise<ChangedLayer> {
  return moveBlob(source, destination, layer, signal, async (reader, writer) => {
    const encrypted = await encryptLayer(
      reader,
      writer,
      layer,
      (record, running) => wrapForAll(recipients, record, running),
      { signal, onProgress: countProgress('encrypt', layer, onProgress) },
    );
    await writer.commit(encrypted);
    return {
      digest: encrypted.digest,
      size: encrypted.size,
      mediaType: encryptedType(layer.mediaType) ?? layer.mediaType,
      annotations: encodeEncryption(encrypted.publicOptions, encrypted.wrapped),
    };
  });
}
