// Proves what an image's metadata claims: opens the layer keys, and reads the layers that they belong to.

import { equalBytes, wipe } from '../base/bytes.ts';
import { asOcicryptError, type ErrorCode, OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { decryptLayer } from './cipher/layer.ts';
import { fill } from './cipher/pipeline-input.ts';
import { type ByteSource, sourceAfter } from './cipher/streams.ts';
import { forEachLimited, KEY_CALLS } from './concurrency.ts';
import { createDiffIdSink, readDiffIds } from './diff-id.ts';
import {
  compressionOf,
  decodeEncryption,
  decryptedType,
  identifyLayer,
  type LayerEncryption,
} from './model/annotations.ts';
import type { Descriptor } from './model/descriptor.ts';
import type { LayerKeyRecord } from './model/layer-options.ts';
import { HEAD_BYTES, isPlainContent } from './plain-content.ts';
import { openLayerKey } from './probe.ts';
import { retry } from './retry.ts';
import type { BlobReader, ImageSource } from './transports/store.ts';
import type { PlatformImage } from './tree.ts';
import type { VerifyReason } from './verify-reason.ts';

export type ProofOptions = {
  /** Each must open every layer; undefined stands for any key that can. */
  readonly keys: readonly (string | undefined)[];
  readonly unwrapper: (key: string | undefined) => LayerKeyUnwrapper;
  /** Whether to read the layers too. */
  readonly content: boolean;
  /** Whether a fault of the image is known already. */
  readonly isFaulty: boolean;
  readonly signal: AbortSignal | undefined;
};

/** A layer that fails costs as many calls as it has wrapped keys: after so many the rest is not tried. */
const MAXIMUM_FAILURES = 16;

/** Each takes as long as a request may: after so many layers of which nothing is known the rest is not tried. */
const MAXIMUM_UNKNOWN = 4;

/**
 * With these a key or a blob could not be asked for, and nothing is known of the layer. Which key is asked is the image's
 * own word.
 */
const NOT_ASKED: ReadonlySet<ErrorCode> = new Set([
  'configuration',
  'deadline-exceeded',
  'internal',
  'not-written',
  'throttled',
  'unauthenticated',
  'unavailable',
]);

/**
 * Opens every layer key of the images with every key. With `content` each layer is read once: it has the digest of its
 * descriptor and the HMAC of its annotation, is no layer in the clear, and decrypts to what the config says. Nothing is
 * written.
 *
 * @returns why not, in the order of the images; empty when all is well. A fault that was found is one, whatever is not
 * known of other layers
 * @throws OcicryptError `not-found`, `bad-input`, `integrity` for a config, the signal's reason, and, if no fault is
 * known, what kept a key from being asked or a layer from being read
 */
export async function proveLayers(
  source: ImageSource,
  images: readonly PlatformImage[],
  options: ProofOptions,
): Promise<readonly VerifyReason[]> {
  const layers = [...(await distinctLayers(source, images, options)).values()];
  const reasons: VerifyReason[][] = layers.map(() => []);
  const unknown: OcicryptError[] = [];
  let failures = 0;
  let skipped = 0;
  const limit = options.content ? source.transfers : KEY_CALLS;
  await forEachLimited(
    [...layers.entries()],
    limit,
    async ([index, claimed], signal) => {
      if (failures >= MAXIMUM_FAILURES || unknown.length >= MAXIMUM_UNKNOWN) return void skipped++;
      try {
        for await (const reason of proveLayer(source, claimed, options, signal)) reasons[index]?.push(reason);
      } catch (error) {
        unknown.push(asOcicryptError(error));
      }
      if (reasons[index]?.length !== 0) failures++;
    },
    options.signal,
  );
  const found = reasons.flat();
  const [cause] = unknown;
  if (cause !== undefined && found.length === 0 && !options.isFaulty) throw cause;
  const untried = skipped + unknown.length;
  if (untried === 0) return found;
  const why = cause === undefined ? `after ${MAXIMUM_FAILURES} had failed` : `to their end: ${cause.message}`;
  return [...found, { code: 'not-tried', message: `${untried} layers were not tried ${why}` }];
}

/** A layer, and the diff ids that configs have for it: one, unless images differ about it. */
type ClaimedLayer = { readonly layer: Descriptor; readonly diffIds: Set<string> };

async function distinctLayers(
  source: ImageSource,
  images: readonly PlatformImage[],
  { content, signal }: ProofOptions,
): Promise<ReadonlyMap<string, ClaimedLayer>> {
  const configured = content ? await readDiffIds(source, images, signal) : undefined;
  const layers = new Map<string, ClaimedLayer>();
  for (const image of images) {
    const diffIds = configured?.get(image);
    for (const [index, layer] of image.manifest.layers.entries()) {
      const key = identifyLayer(layer);
      const claimed = layers.get(key) ?? { layer, diffIds: new Set() };
      layers.set(key, claimed);
      if (diffIds !== undefined) claimed.diffIds.add(diffIds[index] ?? 'none');
    }
  }
  return layers;
}

/** Yields what is wrong with the layer. @throws OcicryptError in the end what kept a key from being asked, or the layer from being read */
async function* proveLayer(
  source: ImageSource,
  claimed: ClaimedLayer,
  { keys, unwrapper, content }: ProofOptions,
  signal: AbortSignal,
): AsyncGenerator<VerifyReason> {
  const { layer } = claimed;
  const what = `layer ${layer.digest}`;
  const encryption = decodeEncryption(layer.annotations, what);
  let opened: LayerKeyRecord | undefined;
  let openedBy: string | undefined;
  let notAsked: OcicryptError | undefined;
  try {
    for (const key of keys) {
      try {
        const other = await openLayerKey(encryption.keys, unwrapper(key), what, signal);
        if (opened === undefined) [opened, openedBy] = [other, key];
        else {
          const same = equalBytes(opened.key, other.key) && equalBytes(opened.nonce, other.nonce);
          wipe(other.key);
          if (!same)
            yield { code: 'key-mismatch', message: `${what} has another layer key for ${key} than for ${openedBy}` };
        }
      } catch (error) {
        const cause = asOcicryptError(error);
        if (NOT_ASKED.has(cause.code)) notAsked ??= cause;
        else yield { code: 'not-opened', message: `${what} is not opened by ${key ?? 'any key'}: ${cause.message}` };
      }
    }
    if (content && opened !== undefined) {
      try {
        const { publicOptions } = encryption;
        const record = opened;
        await retry((running) => readLayer(source, claimed, publicOptions, record, running), signal);
      } catch (error) {
        const cause = asOcicryptError(error);
        if (NOT_ASKED.has(cause.code)) notAsked ??= cause;
        else yield { code: 'content', message: `${what} is not what it claims: ${cause.message}` };
      }
    }
  } finally {
    wipe(opened?.key);
  }
  if (notAsked !== undefined) throw notAsked;
}

/** @throws OcicryptError `integrity` */
async function readLayer(
  source: ImageSource,
  { layer, diffIds }: ClaimedLayer,
  publicOptions: LayerEncryption['publicOptions'],
  layerKey: LayerKeyRecord,
  signal: AbortSignal,
): Promise<void> {
  const reader = await source.openBlob(layer, signal);
  const sink = createDiffIdSink(compressionOf(decryptedType(layer.mediaType) ?? ''));
  try {
    const checked = await checkHead(reader, `layer ${layer.digest}`, signal);
    await decryptLayer(checked, sink, layer, publicOptions, layerKey, { signal, checkDigest: true });
    const diffId = await sink.finish();
    if ([...diffIds].every((expected) => expected === diffId)) return;
    throw new OcicryptError('integrity', "what it decrypts to is not what the image's config says");
  } finally {
    sink.discard();
    await reader.close();
  }
}

/**
 * A key that anybody may wrap for makes a valid HMAC over any bytes, a layer in the clear among them, which clients
 * without a key run. Ciphertext begins like one by chance alone.
 */
async function checkHead(reader: BlobReader, what: string, signal: AbortSignal): Promise<ByteSource> {
  const head = new Uint8Array(HEAD_BYTES);
  const start = head.subarray(0, await fill(reader, head, { signal }));
  if (!isPlainContent(start)) return sourceAfter(start, reader);
  throw new OcicryptError('integrity', `${what} is stored in the clear`, {
    hint: 'by chance this is so once in eight million layers: encrypt the image again',
  });
}
