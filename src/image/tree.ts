// The only code that walks an image: from its root through indexes to the manifests of its platforms, within bounds.

import { OcicryptError } from '../base/errors.ts';
import { isLayerType } from './annotations.ts';
import {
  type Descriptor,
  formatPlatform,
  type ImageIndex,
  type ImageManifest,
  isManifestType,
  MEDIA_TYPES,
  type Platform,
  parseConfig,
  parseManifest,
} from './manifest.ts';
import { type ImageSource, readSmallBlob, type StoredManifest } from './store.ts';

/** An image for one platform. */
export type PlatformImage = {
  readonly kind: 'image';
  readonly stored: StoredManifest;
  readonly manifest: ImageManifest;
  readonly platform: Platform | undefined;
};

/** Something that has no layers to encrypt: an attestation, a signature, an artifact. */
export type Attachment = {
  readonly kind: 'attachment';
  readonly stored: StoredManifest;
  readonly manifest: ImageManifest;
};

export type IndexNode = {
  readonly kind: 'index';
  readonly stored: StoredManifest;
  readonly index: ImageIndex;
  /** One for each entry of the index, in order. */
  readonly children: readonly ChildNode[];
};

/** A manifest as part of an image. */
export type ImageNode = PlatformImage | Attachment | IndexNode;

/** Entries whose type is not known are kept as they are named and not read. */
export type ChildNode = { readonly descriptor: Descriptor; readonly node: ImageNode | undefined };

/** Real indexes are one level deep; the bounds keep a hostile one from costing more than it sends. */
const MAXIMUM_DEPTH = 4;
const MAXIMUM_MANIFESTS = 1000;

/**
 * Reads the whole tree of manifests, every digest checked. No layer is read, and configs only where the index does not
 * tell the platform.
 *
 * @throws OcicryptError `not-found`, `bad-input`, `integrity`
 */
export async function readImageTree(source: ImageSource, signal?: AbortSignal): Promise<ImageNode> {
  return new Walk(source, signal).node(await source.readRoot(signal), undefined, 1);
}

/** All images of the tree that {@link readImageTree} has read, one for each platform, in order. */
export function imagesOf(node: ImageNode): readonly PlatformImage[] {
  if (node.kind === 'image') return [node];
  if (node.kind === 'attachment') return [];
  return node.children.flatMap((child) => (child.node === undefined ? [] : imagesOf(child.node)));
}

/** `os/architecture[/variant]`, or `unknown`. */
export function platformName({ platform }: PlatformImage): string {
  return platform === undefined ? 'unknown' : formatPlatform(platform);
}

/** All attachments of the tree, in order. */
export function attachmentsOf(node: ImageNode): readonly Attachment[] {
  if (node.kind === 'attachment') return [node];
  if (node.kind === 'image') return [];
  return node.children.flatMap((child) => (child.node === undefined ? [] : attachmentsOf(child.node)));
}

/**
 * The images that `platforms` (`os/architecture[/variant]`) name; all where it is empty. A platform without variant
 * names every variant.
 *
 * @throws OcicryptError `not-found` where one names none
 */
export function selectPlatforms(
  images: readonly PlatformImage[],
  platforms: readonly string[],
): readonly PlatformImage[] {
  const names = images.map(platformName);
  for (const wanted of platforms) {
    if (names.some((name) => isPlatform(name, wanted))) continue;
    throw new OcicryptError('not-found', `no platform ${wanted} in this image`, {
      hint: `it has ${names.slice(0, 12).join(', ')}`,
    });
  }
  if (platforms.length === 0) return images;
  return images.filter((_, index) => platforms.some((wanted) => isPlatform(names[index] ?? '', wanted)));
}

function isPlatform(name: string, wanted: string): boolean {
  return name === wanted || name.startsWith(`${wanted}/`);
}

class Walk {
  readonly #source: ImageSource;
  readonly #signal: AbortSignal | undefined;
  #manifests = 0;

  constructor(source: ImageSource, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#signal = signal;
  }

  async node(stored: StoredManifest, descriptor: Descriptor | undefined, depth: number): Promise<ImageNode> {
    if (depth > MAXIMUM_DEPTH || ++this.#manifests > MAXIMUM_MANIFESTS) {
      throw new OcicryptError(
        'bad-input',
        `${this.#source.name} nests deeper than ${MAXIMUM_DEPTH} indexes or has more than ${MAXIMUM_MANIFESTS} manifests`,
      );
    }
    const manifest = parseManifest(stored.bytes, stored.mediaType, `manifest ${stored.digest}`);
    if (manifest.kind === 'index') {
      const children: ChildNode[] = [];
      for (const entry of manifest.manifests)
        children.push({ descriptor: entry, node: await this.#child(entry, depth) });
      return { kind: 'index', stored, index: manifest, children };
    }
    if (!isImage(manifest, descriptor)) return { kind: 'attachment', stored, manifest };
    return { kind: 'image', stored, manifest, platform: descriptor?.platform ?? (await this.#platformOf(manifest)) };
  }

  async #child(entry: Descriptor, depth: number): Promise<ImageNode | undefined> {
    if (!isManifestType(entry.mediaType)) return undefined;
    return this.node(await this.#source.readManifest(entry, this.#signal), entry, depth + 1);
  }

  async #platformOf(manifest: ImageManifest): Promise<Platform | undefined> {
    const { config } = manifest;
    if (!isConfigType(config.mediaType)) return undefined;
    return parseConfig(await readSmallBlob(this.#source, config, 'config', this.#signal), `config ${config.digest}`)
      .platform;
  }
}

/**
 * An attestation has the config of an image and is known by its place in the index (github.com/moby/buildkit
 * docs/attestations). What holds a file system's layer is an image whatever the index calls it: nobody hides a plain
 * layer behind that annotation.
 */
function isImage(manifest: ImageManifest, descriptor: Descriptor | undefined): boolean {
  if (manifest.layers.some((layer) => isLayerType(layer.mediaType))) return true;
  if (descriptor?.annotations.get('vnd.docker.reference.type') === 'attestation-manifest') return false;
  return isConfigType(manifest.config.mediaType);
}

function isConfigType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.config || mediaType === MEDIA_TYPES.dockerConfig;
}
