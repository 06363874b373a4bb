// Says who can open what in an image, from its manifests alone: no layer is fetched and no key is used.

import { asOcicryptError } from '../base/errors.ts';
import { createJsonRoom, type JsonRoom, memoryOfRoom } from '../base/json-room.ts';
import { decodeEncryption, findShortcut, isEncryptedType } from './model/annotations.ts';
import type { Descriptor } from './model/descriptor.ts';
import { LAYER_CIPHER } from './model/layer-options.ts';
import { describePacket, type PacketDescription } from './model/packets.ts';
import type { ImageSource } from './transports/store.ts';
import {
  absentEntriesOf,
  attachmentsOf,
  entryPlatform,
  type ImageNode,
  imagesOf,
  type PlatformImage,
  platformName,
  readImageTree,
  unknownEntriesOf,
} from './tree.ts';

/** A layer as its manifest has it, and who can open it as its annotations say. */
export type InspectedLayer = {
  readonly digest: string;
  /** Bytes, as stored. */
  readonly size: number;
  readonly mediaType: string;
  readonly encrypted: boolean;
  /** Undefined if the layer is plain, or its annotations make no sense. */
  readonly cipher: string | undefined;
  readonly keys: readonly PacketDescription[];
  /** The annotation of an encrypted layer by which clients never look at its own bytes. */
  readonly shortcut: string | undefined;
  /** Why the annotations of an encrypted layer make no sense, where they make none. */
  readonly problem: string | undefined;
};

/** The image of one platform. */
export type InspectedPlatform = {
  /** `os/architecture[/variant]`, or `unknown`. */
  readonly platform: string;
  readonly digest: string;
  readonly layers: readonly InspectedLayer[];
};

/** What an image is, as its metadata claims. */
export type ImageReport = {
  readonly name: string;
  readonly digest: string;
  readonly mediaType: string;
  readonly platforms: readonly InspectedPlatform[];
  /** Attestations beside the image, which are for no platform: no client runs them, and they are not encrypted. */
  readonly attachments: readonly { readonly digest: string; readonly artifactType: string }[];
  /** Entries of an index whose media type or kind of digest is not known: what they hold was not read, and some clients run it. */
  readonly unknown: readonly { readonly digest: string; readonly mediaType: string }[];
  /** Entries of an index whose manifests are not here: only some platforms were copied. */
  readonly absent: readonly { readonly digest: string; readonly platform: string }[];
};

/**
 * Reads what the image's manifests say.
 *
 * @param source where the image is
 * @throws OcicryptError `not-found`, `bad-input`, `integrity`: for the manifests; senseless annotations are reported
 * @example
 * const { platforms } = await inspectImage(openImageSource(parseImageReference('oci:app:latest')));
 */
export async function inspectImage(source: ImageSource, signal?: AbortSignal): Promise<ImageReport> {
  return reportOf(source.name, await readImageTree(source, signal));
}

/** The report of an image whose manifests have been read. @param hold told how many bytes its packets take of memory */
export function reportOf(name: string, tree: ImageNode, hold?: (bytes: number) => void): ImageReport {
  // One manifest may be part of many images.
  const layers = new Map<Descriptor, InspectedLayer>();
  const room = createJsonRoom(ROOM_DOCUMENTS);
  const platforms = imagesOf(tree).map((image) => inspectPlatform(image, layers, room));
  hold?.(memoryOfRoom(room, ROOM_DOCUMENTS));
  return {
    name,
    digest: tree.stored.digest,
    mediaType: tree.stored.mediaType,
    platforms,
    attachments: attachmentsOf(tree).map(({ stored, manifest }) => ({
      digest: stored.digest,
      artifactType: manifest.layers[0]?.mediaType ?? manifest.config.mediaType,
    })),
    unknown: unknownEntriesOf(tree).map(({ digest, mediaType }) => ({ digest, mediaType })),
    absent: absentEntriesOf(tree).map((entry) => ({ digest: entry.digest, platform: entryPlatform(entry) })),
  };
}

/** For all packets of an image: those of 20 platforms of 100 layers for four keys need less than two. */
const ROOM_DOCUMENTS = 5;

function inspectPlatform(
  image: PlatformImage,
  known: Map<Descriptor, InspectedLayer>,
  room: JsonRoom,
): InspectedPlatform {
  const layers = image.manifest.layers.map((layer) => {
    const inspected = known.get(layer) ?? inspectLayer(layer, room);
    known.set(layer, inspected);
    return inspected;
  });
  return { platform: platformName(image), digest: image.stored.digest, layers };
}

function inspectLayer(layer: Descriptor, room: JsonRoom): InspectedLayer {
  const { digest, size, mediaType } = layer;
  const encrypted = isEncryptedType(mediaType);
  const plain = { digest, size, mediaType, encrypted, cipher: undefined, keys: [] };
  if (!encrypted) return { ...plain, shortcut: undefined, problem: undefined };
  const shortcut = findShortcut(layer.annotations);
  try {
    const { keys } = decodeEncryption(layer.annotations, `layer ${digest}`);
    const described = keys.map((key) => describePacket(key, room));
    return { ...plain, cipher: LAYER_CIPHER, keys: described, shortcut, problem: undefined };
  } catch (error) {
    return { ...plain, shortcut, problem: asOcicryptError(error).message };
  }
}
