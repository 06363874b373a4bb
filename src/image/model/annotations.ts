// The media types and annotations of encrypted layers: containers/ocicrypt spec/spec.go.

import { base64Text, decodeBase64 } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { WrappedLayerKey } from '../../client/layer-keys.ts';
import { MAXIMUM_PACKET_BYTES } from '../../provider/protocol.ts';
import type { Descriptor } from './descriptor.ts';
import { decodePublicOptions, type PublicOptions } from './layer-options.ts';

/** What the annotations of an encrypted layer say. */
export type LayerEncryption = { readonly publicOptions: PublicOptions; readonly keys: readonly WrappedLayerKey[] };

/** Every annotation that encryption adds starts with this. */
const ENCRYPTION_PREFIX = 'org.opencontainers.image.enc.';

const PUBLIC_OPTIONS = `${ENCRYPTION_PREFIX}pubopts`;
const KEYS_PREFIX = `${ENCRYPTION_PREFIX}keys.`;
const SUFFIX = '+encrypted';

/** 32 KiB is the most that a provider is given; the bound on their number keeps one layer from costing 10,000 calls. */
const MAXIMUM_PACKETS = 64;

const OCI = 'application/vnd.oci.image.layer.v1.tar';
const OCI_FOREIGN = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar';
const DOCKER_FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar';

/** What a plain layer may be called, and what OCI calls the same. */
const PLAIN_TYPES: ReadonlyMap<string, string> = new Map([
  ...['', '+gzip', '+zstd'].flatMap((packed): [string, string][] => [
    [OCI + packed, OCI + packed],
    [OCI_FOREIGN + packed, OCI_FOREIGN + packed],
    [DOCKER + packed.replace('+', '.'), OCI + packed],
    [DOCKER_FOREIGN + packed.replace('+', '.'), OCI_FOREIGN + packed],
  ]),
  ['application/vnd.wasm.content.layer.v1+wasm', 'application/vnd.wasm.content.layer.v1+wasm'],
]);

/** How the bytes of a layer are compressed, by its media type. */
export type Compression = 'none' | 'gzip' | 'zstd';

/** Whether a layer of this type is encrypted. */
export function isEncryptedType(mediaType: string): boolean {
  return mediaType.endsWith(SUFFIX);
}

/** Whether this is the type of a layer, encrypted or not; as containerd sees it, known or not (core/images/mediatypes.go). */
export function isLayerType(mediaType: string): boolean {
  return LAYER_PREFIX.test(mediaType);
}

const LAYER_PREFIX =
  /^application\/vnd\.(?:oci\.image\.layer\.|docker\.image\.rootfs\.|wasm\.content\.layer\.|erofs\.layer\.)/;

/** Whether this is the type of a plain layer that may not be passed on: runtimes fetch it from an address in the manifest. */
export function isForeignType(mediaType: string): boolean {
  return (PLAIN_TYPES.get(mediaType) ?? '').startsWith(OCI_FOREIGN);
}

/** The type that a plain layer has in OCI (Docker's types have no encrypted form), or undefined if it is no layer. */
export function ociLayerType(mediaType: string): string | undefined {
  return PLAIN_TYPES.get(mediaType);
}

/** The encrypted form of a plain layer's type, or undefined if it has none. */
export function encryptedType(mediaType: string): string | undefined {
  const plain = PLAIN_TYPES.get(mediaType);
  return plain === undefined ? undefined : plain + SUFFIX;
}

/** The plain form of an encrypted layer's type, or undefined if that is no type of a layer. */
export function decryptedType(mediaType: string): string | undefined {
  return isEncryptedType(mediaType) ? PLAIN_TYPES.get(mediaType.slice(0, -SUFFIX.length)) : undefined;
}

/** How a layer of this plain type is compressed. */
export function compressionOf(mediaType: string): Compression {
  if (/[+.]gzip$/.test(mediaType)) return 'gzip';
  return /[+.]zstd$/.test(mediaType) ? 'zstd' : 'none';
}

/**
 * The annotations of an encrypted layer, to be added to those that the layer has.
 *
 * @param publicOptions JSON bytes
 * @param keys in the order in which they are to be tried; those of one scheme share one annotation
 */
export function encodeEncryption(
  publicOptions: Uint8Array,
  keys: readonly WrappedLayerKey[],
): ReadonlyMap<string, string> {
  const annotations = new Map<string, string>();
  for (const { scheme, packet } of keys) {
    const name = KEYS_PREFIX + scheme;
    const before = annotations.get(name);
    annotations.set(name, before === undefined ? base64Text(packet) : `${before},${base64Text(packet)}`);
  }
  annotations.set(PUBLIC_OPTIONS, base64Text(publicOptions));
  return annotations;
}

/**
 * What the annotations of an encrypted layer say, strictly.
 *
 * @param what names the layer in an error
 * @throws OcicryptError `bad-input`: no public options or no keys, anything that is not strict base64, more than 64 keys,
 *   a key of more than 32 KiB
 */
export function decodeEncryption(annotations: ReadonlyMap<string, string>, what: string): LayerEncryption {
  const encoded = annotations.get(PUBLIC_OPTIONS);
  if (encoded === undefined) throw new OcicryptError('bad-input', `${what} has no annotation ${PUBLIC_OPTIONS}`);
  if (encoded.length > MAXIMUM_PACKET_BYTES)
    throw new OcicryptError('bad-input', `public options of ${what} are too long`);
  const publicOptions = decodePublicOptions(unbase64(encoded, PUBLIC_OPTIONS, what), what);
  const keys: WrappedLayerKey[] = [];
  for (const [name, value] of annotations) {
    if (!name.startsWith(KEYS_PREFIX) || value === '') continue;
    for (const packet of splitPackets(value, what)) {
      if (keys.length === MAXIMUM_PACKETS) {
        throw new OcicryptError('bad-input', `${what} has more than ${MAXIMUM_PACKETS} wrapped keys`);
      }
      keys.push({ scheme: name.slice(KEYS_PREFIX.length), packet: unbase64(packet, name, what) });
    }
  }
  if (keys.length === 0) {
    throw new OcicryptError('bad-input', `${what} is encrypted, but no recipient has its key`, {
      hint: 'its annotations hold no wrapped key: fetch the image again from where it was encrypted',
    });
  }
  return { publicOptions, keys };
}

/** Layers with one identity are alike in their bytes and in all that decides who can open them. */
export function identifyLayer(layer: Descriptor): string {
  const known = identities.get(layer);
  if (known !== undefined) return known;
  const { mediaType, digest, size, annotations } = layer;
  const encryption = [...annotations].filter(([name]) => name.startsWith(ENCRYPTION_PREFIX)).sort();
  const identity = JSON.stringify([mediaType, digest, size, encryption]);
  identities.set(layer, identity);
  return identity;
}

/** Annotations may be large, and one manifest may be part of many images. */
const identities = new WeakMap<Descriptor, string>();

/**
 * The annotation by which clients take parts of a layer, or another one that they have, and never look at the whole: a
 * table of contents of zstd:chunked or eStargz, or whatever else containerd hands to its snapshotters. Of an encrypted
 * layer that would be something in the clear.
 */
export function findShortcut(annotations: ReadonlyMap<string, string>): string | undefined {
  return [...annotations.keys()].find(isShortcut);
}

/** The annotations that a layer keeps when its bytes change: without those of encryption, and without shortcuts to the old ones. */
export function withoutEncryption(annotations: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...annotations].filter(([name]) => !name.startsWith(ENCRYPTION_PREFIX) && !isShortcut(name)));
}

function isShortcut(name: string): boolean {
  return name.startsWith('io.github.containers.zstd-chunked.') || name.startsWith('containerd.io/snapshot/');
}

function splitPackets(value: string, what: string): readonly string[] {
  const packets = value.split(',', MAXIMUM_PACKETS + 1);
  if (packets.some((packet) => packet.length > (MAXIMUM_PACKET_BYTES * 4) / 3 + 4)) {
    throw new OcicryptError('bad-input', `${what} has a wrapped key of more than ${MAXIMUM_PACKET_BYTES} bytes`);
  }
  return packets;
}

function unbase64(text: string, name: string, what: string): Uint8Array {
  const bytes = decodeBase64(new TextEncoder().encode(text));
  if (bytes === undefined || bytes.length === 0) {
    throw new OcicryptError('bad-input', `annotation ${name} of ${what} is not base64`);
  }
  return bytes;
}
