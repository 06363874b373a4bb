// A small layer that no image has, encrypted to try a decoder with.

import { createHash, randomBytes } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { concatBytes } from '../base/bytes.ts';
import { encodeBytesField } from '../base/grpc.ts';
import type { LayerKeyWrapper } from '../client/layer-keys.ts';
import { encryptLayer } from '../image/cipher/layer.ts';
import { type ByteSource, sourceFromStream } from '../image/cipher/streams.ts';
import { type Compression, compressionOf, decryptedType, encodeEncryption } from '../image/model/annotations.ts';
import { wrapForAll } from '../image/recipients.ts';

const TAR_END_BYTES = 1024;
const PACKET_BYTES = 64;

/** An encrypted layer, what a decoder gives back of it, and what containerd would say of it on descriptor 3. */
export type MadeUpLayer = {
  readonly encrypted: Uint8Array;
  readonly tar: Uint8Array;
  readonly compressed: Uint8Array;
  readonly payload: Uint8Array;
};

/**
 * @param mediaType of the encrypted layer, which says how it is compressed
 * @throws what the recipients throw
 */
export async function makeUpLayer(
  mediaType: string,
  recipients: readonly LayerKeyWrapper[],
  signal: AbortSignal,
): Promise<MadeUpLayer> {
  // The end of an archive that holds nothing.
  const tar = new Uint8Array(TAR_END_BYTES);
  const compressed = compress(compressionOf(decryptedType(mediaType) ?? ''), tar);
  const chunks: Uint8Array[] = [];
  const digest = `sha256:${createHash('sha256').update(compressed).digest('hex')}`;
  const layer = await encryptLayer(
    sourceOf(compressed),
    { write: async (bytes) => void chunks.push(Uint8Array.from(bytes)) },
    { digest, size: compressed.length },
    (record, running) => wrapForAll(recipients, record, running),
    { signal },
  );
  const annotations = encodeEncryption(layer.publicOptions, layer.wrapped);
  return {
    encrypted: concatBytes(...chunks),
    tar,
    compressed,
    payload: payloadOf({ mediaType, digest: layer.digest, size: layer.size, annotations }),
  };
}

/** Wraps nothing: no key opens such a layer, and what a decoder answers shows how far it comes. */
export const STRANGER: LayerKeyWrapper = {
  scheme: 'provider.kmscrypt',
  wrap: async () => [randomBytes(PACKET_BYTES)],
};

function compress(compression: Compression, tar: Uint8Array): Uint8Array {
  if (compression === 'gzip') return gzipSync(tar);
  return compression === 'zstd' ? zstdCompressSync(tar) : tar;
}

function sourceOf(bytes: Uint8Array): ByteSource {
  return sourceFromStream(
    (async function* once() {
      yield bytes;
    })(),
  );
}

type Described = {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations: ReadonlyMap<string, string>;
};

/** https://github.com/containerd/imgcrypt payload.go, in google.protobuf.Any */
function payloadOf({ mediaType, digest, size, annotations }: Described): Uint8Array {
  const descriptor = { mediaType, digest, size, annotations: Object.fromEntries(annotations) };
  const value = new TextEncoder().encode(
    JSON.stringify({ DecryptConfig: { Parameters: null }, Descriptor: descriptor }),
  );
  const type = encodeBytesField(new TextEncoder().encode('io.containerd.ocicrypt.v1.Payload'));
  const second = encodeBytesField(value);
  // The same field, but number 2.
  second[0] = 0x12;
  return concatBytes(type, second);
}
