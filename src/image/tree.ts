// Walks an image: from its root through indexes to the manifests of its platforms, within bounds.

import { type ErrorDetails, OcicryptError } from '../base/errors.ts';
import { createJsonRoom } from '../base/json-room.ts';
import { setting } from '../base/setting.ts';
import { isLayerType } from './model/annotations.ts';
import { type Descriptor, formatPlatform, isDigest, type OtherEntry, type Platform } from './model/descriptor.ts';
import {
  type ImageIndex,
  type ImageManifest,
  isConfigType,
  isManifestType,
  parseConfig,
  parseManifest,
} from './model/manifest.ts';
import { type ImageSource, readSmallBlob, type StoredManifest } from './transports/store.ts';

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

/** Without a node are entries whose type is not known, and those of a sparse index: they stay as they are named. */
export type ChildNode = { readonly descriptor: Descriptor; readonly node: ImageNode | undefined };

/** Real indexes are one level deep; the bounds keep a hostile one from costing more than it sends. */
const MAXIMUM_DEPTH = 4;
const MAXIMUM_MANIFESTS = 1000;
/** Of manifests and indexes, as often as they are named, and of configs: 20 platforms of 100 layers for four keys have 10 MiB. */
export const MAXIMUM_BYTES = 16 * 1024 * 1024;
/**
 * Of all images together, those that are named twice counted twice: of distinct encrypted layers some thousands have as
 * many values as are read. Runtimes take 127 layers of one image.
 */
const MAXIMUM_LAYERS = 10_000;

/**
 * Reads the whole tree of manifests, every digest checked. No layer is read, and configs only if the index does not
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

/** All entries of the tree that are of no known type, or named by a digest of another algorithm: nothing is known of them. */
export function unknownEntriesOf(node: ImageNode): readonly OtherEntry[] {
  return [...entriesWithoutNode(node).filter(({ mediaType }) => !isManifestType(mediaType)), ...otherEntriesOf(node)];
}

/** All entries of the tree whose manifest is not where the index is, in order: the index is sparse. */
export function absentEntriesOf(node: ImageNode): readonly Descriptor[] {
  return entriesWithoutNode(node).filter(({ mediaType }) => isManifestType(mediaType));
}

function otherEntriesOf(node: ImageNode): readonly OtherEntry[] {
  if (node.kind !== 'index') return [];
  const inner = node.children.flatMap((child) => (child.node === undefined ? [] : otherEntriesOf(child.node)));
  return [...node.index.others, ...inner];
}

function entriesWithoutNode(node: ImageNode): readonly Descriptor[] {
  if (node.kind !== 'index') return [];
  return node.children.flatMap((child) =>
    child.node === undefined ? [child.descriptor] : entriesWithoutNode(child.node),
  );
}

/**
 * The images that `platforms` (`os/architecture[/variant]`) name; all if it is empty. A platform without variant
 * names every variant.
 *
 * @param name of the image, for errors
 * @throws OcicryptError `not-found` if one names none, or one that is not where the index is or cannot be read
 */
export function selectPlatforms(tree: ImageNode, platforms: readonly string[], name: string): readonly PlatformImage[] {
  const images = imagesOf(tree);
  const others = otherEntriesOf(tree).filter(({ mediaType }) => isManifestType(mediaType));
  const absent = [...absentEntriesOf(tree), ...others].filter((entry) => entryPlatform(entry) !== NO_PLATFORM);
  const here = images.map(platformName);
  const named = [...here, ...absent.map(entryPlatform)];
  for (const wanted of platforms) {
    if (named.some((platform) => isPlatform(platform, wanted))) continue;
    const known = [...new Set(named)].filter((platform) => platform !== 'unknown');
    throw new OcicryptError('not-found', `no platform ${wanted} in this image`, {
      hint:
        known.length === 0
          ? `it names none: leave ${setting('platforms')} out`
          : `it has ${known.slice(0, 12).join(', ')}`,
    });
  }
  const isWanted = (platform: string) =>
    platforms.length === 0 || platforms.some((wanted) => isPlatform(platform, wanted));
  const missing = absent.find((entry) => isWanted(entryPlatform(entry)));
  if (missing !== undefined) {
    throw new OcicryptError(
      'not-found',
      `${name} names ${missing.digest} (${entryPlatform(missing)}), which is not ${isDigest(missing.digest) ? 'here' : 'read: only SHA-256 digests are'}`,
      {
        hint:
          here.length === 0
            ? 'copy the image with all its platforms'
            : `choose with ${setting('platforms')}: ${here.slice(0, 12).join(', ')}`,
      },
    );
  }
  return images.filter((_, index) => isWanted(here[index] ?? ''));
}

/** What attestations are for: no client chooses it. */
const NO_PLATFORM = 'unknown/unknown';

/** The platform that an index says an entry is for, or `unknown`. */
export function entryPlatform({ platform }: OtherEntry): string {
  return platform === undefined ? 'unknown' : formatPlatform(platform);
}

function isPlatform(name: string, wanted: string): boolean {
  return name.startsWith(`${wanted}/`) || withoutUsual(name) === withoutUsual(wanted);
}

/** The variant that a platform has if none is named: https://github.com/containerd/platforms */
function withoutUsual(platform: string): string {
  return platform.replace(/(?<=\/arm64)\/v8$|(?<=\/amd64)\/v1$|(?<=\/arm)\/v7$/, '');
}

type Parsed = { readonly stored: StoredManifest; readonly manifest: ImageManifest | ImageIndex };

class Walk {
  readonly #source: ImageSource;
  readonly #signal: AbortSignal | undefined;
  /** By digest, size and media type, since one content may be read as several. */
  readonly #parsed = new Map<string, Parsed>();
  readonly #platforms = new Map<string, Platform | undefined>();
  readonly #room = createJsonRoom();
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
    return this.#node(this.#parse(stored), undefined, 1);
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
      const stored = await this.#readIfThere(entry);
      if (stored === undefined) return undefined;
      parsed = this.#parse(stored);
      this.#parsed.set(key, parsed);
    }
    return this.#node(parsed, entry, depth + 1);
  }

  /** What is too much for one manifest is so for the image, all of whose manifests share the room. */
  #parse(stored: StoredManifest): Parsed {
    const { bytes, digest, mediaType } = stored;
    try {
      return { stored, manifest: parseManifest(bytes, mediaType, `manifest ${digest}`, this.#room) };
    } catch (error) {
      if (this.#room.weight >= 0) throw error;
      throw this.#excess('has more values in its manifests than are read', {
        hint: 'if it can be trusted, copy its platforms one by one, or encrypt it for fewer keys',
      });
    }
  }

  /** An index is sparse where only some platforms were copied. */
  async #readIfThere(entry: Descriptor): Promise<StoredManifest | undefined> {
    try {
      return await this.#source.readManifest(entry, this.#signal);
    } catch (error) {
      if (error instanceof OcicryptError && error.code === 'not-found') return undefined;
      throw error;
    }
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

  #excess(what: string, details: ErrorDetails = {}): OcicryptError {
    return new OcicryptError('bad-input', `${this.#source.name} ${what}`, details);
  }
}

/**
 * Clients choose by platform, whatever an entry's annotations say of it and whatever its layers are called. So only what
 * is for `unknown/unknown`, as attestations are (github.com/moby/buildkit docs/attestations), is no image, and not even
 * that where it holds the layer of a file system.
 */
function isAttachment(manifest: ImageManifest, descriptor: Descriptor | undefined): boolean {
  if (descriptor?.platform === undefined || formatPlatform(descriptor.platform) !== NO_PLATFORM) return false;
  return !manifest.layers.some((layer) => isLayerType(layer.mediaType));
}
