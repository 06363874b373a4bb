// Decrypts one layer of a stream for a container runtime: whichever key of its annotations opens it, and its bytes.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { decryptStream } from '../image/cipher/layer.ts';
import type { ByteSink, ByteSource } from '../image/cipher/streams.ts';
import { createUncompressingSink } from '../image/cipher/uncompress.ts';
import { compressionOf, decodeEncryption, decryptedType } from '../image/model/annotations.ts';
import { decodePrivateOptions } from '../image/model/layer-options.ts';
import type { Descriptor } from '../image/model/manifest.ts';

/**
 * Writes the plain tar of a layer. What was written is worthless if this throws: the HMAC decides at the end, before the
 * last bytes.
 *
 * @throws OcicryptError `bad-input` (not encrypted, senseless annotations), `integrity`, and what `keys`, source and sink throw
 */
export async function decodeLayer(
  source: ByteSource,
  sink: ByteSink,
  layer: Descriptor,
  keys: LayerKeyUnwrapper,
  signals: { readonly unwrap: AbortSignal; readonly whole: AbortSignal },
): Promise<void> {
  const what = `layer ${layer.digest}`;
  const mediaType = decryptedType(layer.mediaType);
  if (mediaType === undefined)
    throw new OcicryptError('bad-input', `${what} is of the unknown type ${layer.mediaType}`);
  const { publicOptions, keys: wrapped } = decodeEncryption(layer.annotations, what);
  const record = await keys.unwrap(wrapped, signals.unwrap);
  const privateOptions = decodePrivateOptions(record, what);
  wipe(record);
  const plain = compressionOf(mediaType) === 'none' ? undefined : createUncompressingSink(sink);
  try {
    await decryptStream(source, plain ?? sink, layer, publicOptions, privateOptions, { signal: signals.whole });
    await plain?.finish();
  } finally {
    plain?.discard();
    wipe(privateOptions.key);
  }
}
