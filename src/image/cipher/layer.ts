// Encrypts and decrypts layers: AES_256_CTR_HMAC_SHA256 as containers/ocicrypt has it.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import {
  encodeLayerKeyRecord,
  encodePublicOptions,
  type LayerKeyRecord,
  type PublicOptions,
} from '../model/layer-options.ts';
import type { Stage } from './passes.ts';
import { runPipeline } from './pipeline.ts';
import type { ByteSink, ByteSource } from './streams.ts';

/** The bytes of a blob by what a descriptor says of them: `sha256:` and 64 hexadecimal digits, and their number. */
export type BlobIdentity = {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
};

/** What the caller may see and do while a layer runs. */
export type LayerRunOptions = {
  /** Bytes read since the last call. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
};

/** An encrypted layer: what names its blob, what its annotation says, and what became of its key. */
export type EncryptedLayer<Wrapped> = BlobIdentity & {
  /** JSON for the annotation `org.opencontainers.image.enc.pubopts`, before its base64. */
  readonly publicOptions: Uint8Array;
  readonly wrapped: Wrapped;
};

/** Each hash has a thread of its own; CTR goes with the HMAC, so that three threads share two cores evenly. */
const ENCRYPT: readonly Stage[] = [['digest'], ['crypt', 'hmac'], ['digest']];

/**
 * No digest of the ciphertext: the HMAC covers the same bytes, and it stands in the manifest, whose digest has been
 * checked. One pass of SHA-256 is a third of the work.
 */
const DECRYPT: readonly Stage[] = [['hmac'], ['crypt', 'digest']];

/** For who reads on as it comes and checks the plaintext itself: one thread is faster than what uncompresses after it. */
const STREAM: readonly Stage[] = [['hmac', 'crypt']];

/** With it: clients without a key know the layer by its digest alone. */
const PROVE: readonly Stage[] = [['digest'], ['hmac', 'crypt'], ['digest']];

/**
 * Encrypts a layer with a new random key and nonce.
 *
 * @param source the layer's bytes
 * @param sink gets the ciphertext; the last bytes only after the digest of the source has been checked. Its content is
 *   worthless when this throws
 * @param layer what the manifest says of the layer; a source that differs is an error
 * @param wrap gets the layer-key record (wiped afterwards) while the layer is being encrypted, so that a key
 *   service that refuses ends the work at once
 * @throws OcicryptError `integrity`, and what `wrap`, source and sink throw
 */
export async function encryptLayer<Wrapped>(
  source: ByteSource,
  sink: ByteSink,
  layer: BlobIdentity,
  wrap: (record: Uint8Array, signal: AbortSignal) => Promise<Wrapped>,
  options: LayerRunOptions = {},
): Promise<EncryptedLayer<Wrapped>> {
  const key = randomBytes(32);
  const nonce = randomBytes(16);
  const record = encodeLayerKeyRecord({ key, nonce, digest: layer.digest });
  const failed = new AbortController();
  const signal = options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal]);
  const crypt = runPipeline(
    source,
    sink,
    ENCRYPT,
    { key, nonce },
    {
      ...options,
      signal,
      size: layer.size,
      check: (sums) => checkDigestOf(sumOf(sums, -3), layer, 'the image is damaged: fetch or build it again'),
    },
  );
  try {
    const [wrapped, sums] = await Promise.all([wrap(record, signal), crypt]);
    return {
      digest: formatDigest(sumOf(sums, -1)),
      size: layer.size,
      publicOptions: encodePublicOptions({ hmac: sumOf(sums, -2) }),
      wrapped,
    };
  } catch (error) {
    failed.abort(error);
    // Nothing may still be writing to the sink when its owner closes it.
    await crypt.catch(() => undefined);
    throw error;
  } finally {
    wipe(key, record);
  }
}

/**
 * Decrypts a layer.
 *
 * @param source the ciphertext; its size and HMAC are checked, and its digest only with `checkDigest`
 * @param sink gets the plaintext; the last bytes only after the HMAC has been found right, so that a sink that commits
 *   nothing before its end never shows unchecked bytes
 * @param layer what the manifest says of the encrypted layer
 * @returns digest and size of the plaintext. The digest in the record may be another (skopeo compresses first)
 * @throws OcicryptError `integrity`; the text holds neither of the two HMACs
 */
export async function decryptLayer(
  source: ByteSource,
  sink: ByteSink,
  layer: BlobIdentity,
  publicOptions: PublicOptions,
  layerKey: LayerKeyRecord,
  { checkDigest = false, ...options }: LayerRunOptions & { readonly checkDigest?: boolean } = {},
): Promise<BlobIdentity> {
  const sums = await runPipeline(source, sink, checkDigest ? PROVE : DECRYPT, layerKey, {
    ...options,
    size: layer.size,
    check: (found) => {
      if (checkDigest) checkDigestOf(sumOf(found, -3), layer, 'the image is damaged: fetch it again');
      checkMac(sumOf(found, -2), layer, publicOptions);
    },
  });
  return { digest: formatDigest(sumOf(sums, -1)), size: layer.size };
}

/**
 * Decrypts a layer as {@link decryptLayer} does, for a reader that checks the digest of the plaintext itself.
 *
 * @throws OcicryptError `integrity`, and what source and sink throw
 */
export async function decryptStream(
  source: ByteSource,
  sink: ByteSink,
  layer: BlobIdentity,
  publicOptions: PublicOptions,
  layerKey: LayerKeyRecord,
  options: LayerRunOptions = {},
): Promise<void> {
  await runPipeline(source, sink, STREAM, layerKey, {
    ...options,
    size: layer.size,
    check: (sums) => checkMac(sumOf(sums, -1), layer, publicOptions),
  });
}

function checkDigestOf(sha256: Uint8Array, { digest }: BlobIdentity, hint: string): void {
  if (formatDigest(sha256) === digest) return;
  throw new OcicryptError('integrity', `layer ${digest} does not have that digest`, { hint });
}

function checkMac(mac: Uint8Array, layer: BlobIdentity, { hmac }: PublicOptions): void {
  if (mac.length === hmac.length && timingSafeEqual(mac, hmac)) return;
  throw new OcicryptError('integrity', `layer ${layer.digest} does not match its HMAC`, {
    hint: 'the layer or its annotations were changed: fetch the image again',
  });
}

/** A SHA-256 as descriptors write it. */
export function formatDigest(sha256: Uint8Array): string {
  return `sha256:${Buffer.from(sha256).toString('hex')}`;
}

/** Counted from the last: stages that sum up more do so before the others. */
function sumOf(sums: readonly Uint8Array[], index: number): Uint8Array {
  const sum = sums.at(index);
  if (sum === undefined) throw new OcicryptError('internal', 'the layer cipher lost a sum');
  return sum;
}
