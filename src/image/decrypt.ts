// Decrypts an image: its layer keys by the keys and providers that can open them, its layers with those.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { decryptLayer } from './cipher/layer.ts';
import { createDiffIdSink, type DiffIdSink, readDiffIds } from './diff-id.ts';
import { compressionOf, decodeEncryption, decryptedType, isEncryptedType } from './model/annotations.ts';
import type { Descriptor } from './model/descriptor.ts';
import { decodeLayerKeyRecord } from './model/layer-options.ts';
import { countProgress, describeWritten, type WrittenImage } from './result.ts';
import { retry } from './retry.ts';
import { selectLayers } from './select.ts';
import { type ChangedLayer, type ImageProgress, transformImage } from './transform.ts';
import { type ImageSource, type ImageStore, moveBlob } from './transports/store.ts';
import { type PlatformImage, readImageTree, selectPlatforms } from './tree.ts';

/** What opens the layer keys of an image, and which of its layers are decrypted. */
export type DecryptOptions = {
  readonly keys: LayerKeyUnwrapper;
  /** Numbers of the layers to decrypt, from 0, or from -1 backwards; every encrypted layer if it is left out. */
  readonly layers?: readonly number[] | undefined;
  /** `os/architecture[/variant]`; all if it is left out. The others stay in the index as they are. */
  readonly platforms?: readonly string[] | undefined;
  /** Also compares what each layer holds when it is uncompressed with the image's config. */
  readonly checkDiffIds?: boolean;
  readonly onProgress?: (progress: ImageProgress) => void;
  /** Called once with the bytes of all that `onProgress` will tell of. */
  readonly onTotal?: (bytes: number) => void;
  /** Called with the digest of the new image when only its name is to be moved: afterwards it may stand for that. */
  readonly onSwitch?: (digest: string) => void;
  readonly signal?: AbortSignal;
};

/**
 * Decrypts an image from `source` to `destination`, which may be the same place. All selected layers are decrypted or
 * nothing changes: an image that is opened in part must be asked for with `layers`.
 *
 * @param source may be `destination`
 * @param destination where the decrypted image goes
 * @throws OcicryptError `not-found` (image, platform, layer), `bad-input` (not encrypted, senseless annotations),
 *   `integrity`, `not-written`, and what `keys` throws
 * @example
 * await decryptImage(encrypted, opened, { keys: createUnwrapper([holder], 'allow the key') });
 */
export async function decryptImage(
  source: ImageSource,
  destination: ImageStore,
  options: DecryptOptions,
): Promise<WrittenImage> {
  const { signal } = options;
  const tree = await readImageTree(source, signal);
  const images = selectPlatforms(tree, options.platforms ?? [], source.name);
  const selected = selectEncrypted(images, options.layers, source.name);
  const diffIds = options.checkDiffIds === true ? await readDiffIds(source, [...selected.keys()], signal) : undefined;

  const transformed = await transformImage<DecryptedLayer>(source, destination, tree, {
    selects: (image, index) => selected.get(image)?.has(index) ?? false,
    change: (layer, running) => decryptOne(source, destination, layer, options, running),
    check: (image, index, { diffId, digest }) => {
      if (diffIds === undefined || diffId === diffIds.get(image)?.[index]) return;
      throw new OcicryptError('integrity', `layer ${digest} is not what the image's config says`, {
        hint: 'the image was assembled from layers of other images: fetch it again from a source that you trust',
      });
    },
    onProgress: options.onProgress,
    onTotal: options.onTotal,
    onSwitch: options.onSwitch,
    signal,
  });
  return describeWritten(tree, transformed);
}

type DecryptedLayer = ChangedLayer & { readonly diffId: string | undefined };

/** Layers in the clear stay as they are, except if one is asked for by its number. */
function selectEncrypted(
  images: readonly PlatformImage[],
  numbers: readonly number[] | undefined,
  name: string,
): ReadonlyMap<PlatformImage, ReadonlySet<number>> {
  const selected = new Map<PlatformImage, ReadonlySet<number>>();
  for (const [image, indexes] of selectLayers(images, numbers)) {
    const encrypted = [...indexes].filter((index) => isEncryptedType(image.manifest.layers[index]?.mediaType ?? ''));
    if (numbers !== undefined && encrypted.length < indexes.size) {
      throw new OcicryptError('bad-input', `a layer of ${name} that is to be decrypted is not encrypted`);
    }
    if (encrypted.length > 0) selected.set(image, new Set(encrypted));
  }
  if (selected.size > 0) return selected;
  throw new OcicryptError('bad-input', `${name} is not encrypted`, { hint: `run ocicrypt-kms inspect ${name}` });
}

async function decryptOne(
  source: ImageSource,
  destination: ImageStore,
  layer: Descriptor,
  options: DecryptOptions,
  signal: AbortSignal,
): Promise<DecryptedLayer> {
  const what = `layer ${layer.digest}`;
  const mediaType = decryptedType(layer.mediaType);
  if (mediaType === undefined)
    throw new OcicryptError('bad-input', `${what} is of the unknown type ${layer.mediaType}`);
  const { publicOptions, keys } = decodeEncryption(layer.annotations, what);
  const record = await options.keys.unwrap(keys, signal);
  let key: Uint8Array | undefined;
  try {
    const layerKey = decodeLayerKeyRecord(record, what);
    key = layerKey.key;
    const transfer = (running: AbortSignal) =>
      moveBlob(source, destination, layer, running, async (reader, writer): Promise<DecryptedLayer> => {
        const diff = options.checkDiffIds === true ? createDiffIdSink(compressionOf(mediaType)) : undefined;
        try {
          const plain = await decryptLayer(reader, both(writer, diff), layer, publicOptions, layerKey, {
            signal,
            onProgress: countProgress('decrypt', layer, options.onProgress),
          });
          const diffId = await diff?.finish();
          await writer.commit(plain);
          return { ...plain, mediaType, annotations: new Map(), diffId };
        } finally {
          diff?.discard();
        }
      });
    return await retry(transfer, signal);
  } finally {
    wipe(record, key);
  }
}

function both(first: DecryptSink, second: DiffIdSink | undefined): DecryptSink {
  if (second === undefined) return first;
  return {
    write: async (bytes) => {
      await Promise.all([first.write(bytes), second.write(bytes)]);
    },
  };
}

type DecryptSink = Parameters<typeof decryptLayer>[1];
