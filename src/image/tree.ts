// The only code that walks an image: from its root through indexes to the manifests of its platforms, within bounds.

import { OcicryptError } from '../base/errors.ts';
import { isLayerType } from './annotations.ts';
import {
  type Descriptor,
  formatPlatform,
  type ImageIndex,
  type ImageManifest,
  isConfigType,
  isManifestType,
  type Platform,
  parseConfig,
  parseManifest,
} from './manifest.ts';
import { type ImageSource, readSmallBlob, type StoredManifest } from './store.ts';

/** An image for one platform, or whatever else a client might run or unpack. */
export type PlatformImage = {
  readonly kind: 'image';
  readonly stored: StoredManifest;
  readonly manifest: ImageManifest;
  readonly platform: Platform | undefined;
};

/** What an index names for no platform at all: an attestation. Clients pass it over. */
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
/** Of manifests and indexes, as often as they are named, and of configs: 20 platforms of 100 layers for four keys have 10 MiB. */
export const MAXIMUM_BYTES = 16 * 1024 * 1024;
/** Of all images together, those that are named twice counted twice. Runtimes take 127 of one image. */
const MAXIMUM_LAYERS = 10_000;

/**
 * Reads the whole tree of manifests, every digest checked. No layer is read, and configs only where the index does not
 * tell the platform. What is named several times is read once.
 *
 * @throws OcicryptError `not-found`, `bad-input`, `integrity`
 */
export async function readImageTree(source: ImageSource, signal?: AbortSignal): Promise<ImageNode> {
  return new Walk(source, signal).root();
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

/** All entries of the tree that are of no known type, in order. */
export function unknownEntriesOf(node: ImageNode): readonly Descriptor[] {
  if (node.kind !== 'index') return [];
  return node.children.flatMap((child) =>
    child.node === undefined ? [child.descriptor] : unknownEntriesOf(child.node),
  );
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

type Parsed = { readonly stored: StoredManifest; readonly manifest: ImageManifest | ImageIndex };

class Walk {
  readonly #source: ImageSource;
  readonly #signal: AbortSignal | undefined;
  /** By digest, size and media type, since one content may be read as several. */
  readonly #parsed = new Map<string, Parsed>();
  readonly #platforms = new Map<string, Platform | undefined>();
  #manifests = 0;
  #bytes = 0;
  #layers = 0;

  constructor(source: ImageSource, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#signal = signal;
  }

  async root(): Promise<ImageNode> {
    const stored = await this.#source.readRoot(this.#signal);
    this.#spend(stored.size);
    return this.#node(parse(stored), undefined, 1);
  }

  async #node({ stored, manifest }: Parsed, descriptor: Descriptor | undefined, depth: number): Promise<ImageNode> {
    if (depth > MAXIMUM_DEPTH) throw this.#excess(`nests deeper than ${MAXIMUM_DEPTH} indexes`);
    if (++this.#manifests > MAXIMUM_MANIFESTS) throw this.#excess(`has more than ${MAXIMUM_MANIFESTS} manifests`);
    if (manifest.kind === 'index') {
      const children: ChildNode[] = [];
      for (const entry of manifest.manifests)
        children.push({ descriptor: entry, node: await this.#child(entry, depth) });
      return { kind: 'index', stored, index: manifest, children };
    }
    this.#layers += manifest.layers.length;
    if (this.#layers > MAXIMUM_LAYERS) throw this.#excess(`has more than ${MAXIMUM_LAYERS} layers`);
    if (isAttachment(manifest, descriptor)) return { kind: 'attachment', stored, manifest };
    return { kind: 'image', stored, manifest, platform: descriptor?.platform ?? (await this.#platformOf(manifest)) };
  }

  async #child(entry: Descriptor, depth: number): Promise<ImageNode | undefined> {
    if (!isManifestType(entry.mediaType)) return undefined;
    this.#spend(entry.size);
    const key = `${entry.digest} ${entry.size} ${entry.mediaType}`;
    let parsed = this.#parsed.get(key);
    if (parsed === undefined) {
      parsed = parse(await this.#source.readManifest(entry, this.#signal));
      this.#parsed.set(key, parsed);
    }
    return this.#node(parsed, entry, depth + 1);
  }

  async #platformOf({ config }: ImageManifest): Promise<Platform | undefined> {
    if (!isConfigType(config.mediaType)) return undefined;
    const key = `${config.digest} ${config.size}`;
    if (!this.#platforms.has(key)) {
      this.#spend(config.size);
      const bytes = await readSmallBlob(this.#source, config, 'config', this.#signal);
      this.#platforms.set(key, parseConfig(bytes, `config ${config.digest}`).platform);
    }
    return this.#platforms.get(key);
  }

  /** Before anything is read: a descriptor says how large its content is, and content of another size is refused. */
  #spend(bytes: number): void {
    this.#signal?.throwIfAborted();
    this.#bytes += bytes;
    if (this.#bytes > MAXIMUM_BYTES) throw this.#excess(`has more than ${MAXIMUM_BYTES} bytes of manifests`);
  }

  #excess(what: string): OcicryptError {
    return new OcicryptError('bad-input', `${this.#source.name} ${what}`);
  }
}

function parse(stored: StoredManifest): Parsed {
  return { stored, manifest: parseManifest(stored.bytes, stored.mediaType, `manifest ${stored.digest}`) };
}

/**
 * Clients choose by platform, whatever an entry's annotations say of it and whatever its layers are called. So only what
 * is for `unknown/unknown`, as attestations are (github.com/moby/buildkit docs/attestations), is no image, and not even
 * that where it holds the layer of a file system.
 */
function isAttachment(manifest: ImageManifest, descriptor: Descriptor | undefined): boolean {
  if (descriptor?.platform === undefined || formatPlatform(descriptor.platform) !== 'unknown/unknown') return false;
  return !manifest.layers.some((layer) => isLayerType(layer.mediaType));
}
