// Decrypts the layer that a container runtime reads: by whichever of its annotations opens it, to its plain tar.

import { timingSafeEqual } from 'node:crypto';
import { wipe } from '../base/bytes.ts';
import { combineErrors } from '../base/combine.ts';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { decryptStream } from '../image/cipher/layer.ts';
import { startStage } from '../image/cipher/passes.ts';
import { type ByteSink, type ByteSource, sourceFromFile } from '../image/cipher/streams.ts';
import { compressionOf, decodeEncryption, decryptedType } from '../image/model/annotations.ts';
import type { Descriptor } from '../image/model/descriptor.ts';
import { decodeLayerKeyRecord, type LayerKeyRecord, type PublicOptions } from '../image/model/layer-options.ts';
import type { StoredLayer } from './content-store.ts';

/** A layer and the key that opens it, to be wiped. */
export type OpenedLayer = {
  readonly descriptor: Descriptor;
  readonly publicOptions: PublicOptions;
  readonly layerKey: LayerKeyRecord;
};

/**
 * Opens the key of a layer.
 *
 * @throws OcicryptError `bad-input` for what is not encrypted or has senseless annotations, `integrity`, and what `keys` throws
 */
export async function openLayer(
  descriptor: Descriptor,
  keys: LayerKeyUnwrapper,
  signal: AbortSignal,
): Promise<OpenedLayer> {
  const what = `layer ${descriptor.digest}`;
  if (decryptedType(descriptor.mediaType) === undefined)
    throw new OcicryptError('bad-input', `${what} is of the unknown type ${descriptor.mediaType}`);
  const { publicOptions, keys: wrapped } = decodeEncryption(descriptor.annotations, what);
  const record = await keys.unwrap(wrapped, signal);
  try {
    return { descriptor, publicOptions, layerKey: decodeLayerKeyRecord(record, what) };
  } finally {
    wipe(record);
  }
}

/**
 * Opens one of several layers that may be meant: one blob under the annotations of several manifests, any of which may be
 * forged. If there are several, a key counts only if the blob has its HMAC, so that no image can spoil another one. The
 * first of each manifest comes before the second of any, and then those with the fewest wrapped keys: a forged manifest may
 * name the blob a thousand times, and a forged layer have many keys that fail.
 *
 * @param layers at least one
 * @param openKey opens the key of one
 * @throws OcicryptError of all of them
 */
export async function openOneOf(
  layers: readonly StoredLayer[],
  openKey: (descriptor: Descriptor) => Promise<OpenedLayer>,
  signal: AbortSignal,
): Promise<OpenedLayer> {
  const [first] = layers;
  if (first !== undefined && layers.length === 1) return openKey(first.descriptor);
  const failures: OcicryptError[] = [];
  for (const layer of layers.toSorted((a, b) => a.turn - b.turn || countKeys(a) - countKeys(b))) {
    try {
      const opened = await openKey(layer.descriptor);
      if (await hasMac(layer.blob, opened, signal)) return opened;
      wipe(opened.layerKey.key);
      failures.push(new OcicryptError('integrity', `layer ${layer.descriptor.digest} does not match its HMAC`));
    } catch (error) {
      signal.throwIfAborted();
      failures.push(asOcicryptError(error));
    }
  }
  throw combineErrors(failures, `none of ${layers.length} manifests that name the layer opened it`);
}

/**
 * Writes the plain tar of a layer, and wipes its key. What was written is worthless if this throws: the HMAC decides at
 * the end, before the last bytes.
 *
 * @throws OcicryptError `integrity`, `bad-input` if it cannot be uncompressed, and what source and sink throw
 */
export async function writeLayer(
  { descriptor, publicOptions, layerKey }: OpenedLayer,
  source: ByteSource,
  sink: ByteSink,
  signal: AbortSignal,
): Promise<void> {
  const compression = compressionOf(decryptedType(descriptor.mediaType) ?? '');
  const plain =
    compression === 'none'
      ? undefined
      : (await import('../image/cipher/uncompress.ts')).createUncompressingSink(sink, descriptor.size);
  try {
    await decryptStream(source, plain ?? sink, descriptor, publicOptions, layerKey, { signal });
    await plain?.finish();
  } finally {
    plain?.discard();
    wipe(layerKey.key);
  }
}

function countKeys({ descriptor }: StoredLayer): number {
  try {
    return decodeEncryption(descriptor.annotations, 'layer').keys.length;
  } catch {
    return 0;
  }
}

/** Reads the blob once more than it has to be read, and nothing of it is kept. */
async function hasMac(path: string, { publicOptions, layerKey }: OpenedLayer, signal: AbortSignal): Promise<boolean> {
  const running = startStage(['hmac'], layerKey);
  const { open } = await import('node:fs/promises');
  const file = await open(path);
  try {
    const source = sourceFromFile(file);
    const buffer = new Uint8Array(BLOCK_BYTES);
    for (let read = -1; read !== 0; ) {
      signal.throwIfAborted();
      read = await source.read(buffer);
      running.apply(buffer.subarray(0, read));
    }
  } finally {
    await file.close();
  }
  const [mac] = running.finish();
  return mac !== undefined && timingSafeEqual(mac, publicOptions.hmac);
}

const BLOCK_BYTES = 1024 * 1024;
