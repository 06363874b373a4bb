// Reads and changes the index of an image layout: which image a name stands for, and what it stands for
// afterwards. Tags are annotations, as skopeo has them.

import { OcicryptError } from '../../base/errors.ts';
import { asObject, asText, type JsonObject } from '../../base/json.ts';
import { type JsonInput, thaw, thawObject, writeJson } from '../../base/json-writer.ts';
import type { BlobIdentity } from '../cipher/layer.ts';
import {
  changeDescriptor,
  type Descriptor,
  formatPlatform,
  hasOtherDigest,
  parseDescriptor,
} from '../model/descriptor.ts';
import { isManifestType, MAXIMUM_MANIFEST_BYTES, MEDIA_TYPES, parseLayoutIndex } from '../model/manifest.ts';
import { movedMeanwhile } from '../not-written.ts';

/** The annotation that holds an image's tag. */
const TAG = 'org.opencontainers.image.ref.name';

/** The file that makes a directory a layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
export const LAYOUT_FILE = new TextEncoder().encode('{"imageLayoutVersion":"1.0.0"}');

/** Where blobs are, and where one of them is, in a layout and in an archive of one. */
export const BLOBS = 'blobs/sha256';

export function blobPath(digest: string): string {
  return `${BLOBS}/${digest.slice('sha256:'.length)}`;
}

/** The index of a layout that holds nothing. */
export const EMPTY_INDEX = writeJson({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [] });

/** An image in a layout by what stands behind the path: a tag, `@N` for the entry of that number, or nothing. */
export type LayoutName = {
  /** The whole name, as its user typed it. */
  readonly name: string;
  readonly tag: string | undefined;
};

/** The index of one layout, as it was read. */
export class LayoutIndex {
  readonly #json: JsonObject;
  readonly #objects: readonly JsonObject[];
  readonly #what: string;

  private constructor(json: JsonObject, objects: readonly JsonObject[], what: string) {
    this.#json = json;
    this.#objects = objects;
    this.#what = what;
  }

  /** @param what names it in an error. @throws OcicryptError `bad-input` */
  static parse(bytes: Uint8Array, what: string): LayoutIndex {
    const { json, entries } = parseLayoutIndex(bytes, what);
    return new LayoutIndex(json, entries, what);
  }

  /** All that the index names by digests that are read here. @throws OcicryptError `bad-input` */
  entries(): readonly Descriptor[] {
    return this.#objects.flatMap((entry, index) => (hasOtherDigest(entry) ? [] : [this.#parse(entry, index)]));
  }

  /** Whether it names anything that is not read here. */
  namesOthers(): boolean {
    return this.#objects.some(hasOtherDigest);
  }

  /**
   * Checks what another manifest says of content that the index names too: containers/image takes its type from here.
   *
   * @throws OcicryptError `bad-input` for another type
   */
  checkType({ digest, mediaType }: Descriptor): void {
    for (const entry of this.#objects) {
      if (asText(entry.get('digest')) !== digest || asText(entry.get('mediaType')) === mediaType) continue;
      throw new OcicryptError('bad-input', `${this.#what} says that ${digest} is of another type`, {
        hint: 'readers disagree about what such an image holds: make it anew with a current tool',
      });
    }
  }

  /** The entry that a name stands for. @throws OcicryptError `not-found`, `bad-input` */
  select({ name, tag }: LayoutName): Descriptor {
    // One entry that other readers may take for something else makes all of them doubtful.
    this.entries();
    const number = /^@(\d{1,9})$/.exec(tag ?? '')?.[1];
    if (number !== undefined) {
      const entry = this.#objects[Number(number)];
      if (entry !== undefined) return this.#parse(entry, Number(number));
      throw new OcicryptError('not-found', `no image ${name}`, { hint: this.#known() });
    }
    const images = this.#objects.flatMap((entry, index) => (isImage(entry) ? [{ entry, index }] : []));
    const found = tag === undefined ? images : images.filter(({ entry }) => tagOf(entry) === tag);
    const [first, ...others] = found;
    if (first === undefined) throw new OcicryptError('not-found', `no image ${name}`, { hint: this.#known() });
    if (others.length === 0) return this.#parse(first.entry, first.index);
    if (tag === undefined) {
      throw new OcicryptError('bad-input', `${name} holds ${found.length} images`, { hint: this.#howToName(name) });
    }
    const platforms = found.flatMap(({ entry, index }) => {
      const { platform } = this.#parse(entry, index);
      return platform === undefined ? [] : [formatPlatform(platform)];
    });
    const numbers = found.map(({ index }) => `@${index}`).join(', ');
    const said = platforms.length === found.length ? ` (platforms ${platforms.join(', ')})` : '';
    throw new OcicryptError('bad-input', `${found.length} images have the tag of ${name}`, {
      hint: `name one by its number in place of the tag: ${numbers}${said}`,
    });
  }

  /**
   * The index with an image under a tag in place of the one that had it. Without a tag the image is the only one, as it
   * must be to be found again.
   *
   * @param replaced what the name was found to stand for, whose annotations stay
   * @throws OcicryptError `bad-input` if the image could not be named afterwards, or the index not read; `not-written` if
   *   the name does not stand for `replaced` any more
   */
  with(
    image: BlobIdentity & { readonly mediaType: string },
    { name, tag }: LayoutName,
    replaced?: Descriptor,
  ): Uint8Array {
    this.checkName({ name, tag }, replaced);
    if (replaced !== undefined && !this.#objects.some((entry) => isSame(entry, replaced.json))) {
      const isRemoved = !this.#objects.some((entry) => tagOf(entry) === tagOf(replaced.json));
      throw movedMeanwhile(name, isRemoved);
    }
    const { digest, mediaType, size } = image;
    const annotations = tag === undefined ? undefined : { [TAG]: tag };
    const entry: JsonInput =
      replaced === undefined
        ? { mediaType, digest, size, annotations }
        : changeDescriptor(replaced, { mediaType, digest, size });
    const kept = this.#objects.filter((other) => {
      if (tag === undefined && replaced !== undefined) return asText(other.get('digest')) !== replaced.digest;
      return tagOf(other) !== tag || (tag === undefined && !isImage(other));
    });
    const bytes = writeJson({
      schemaVersion: 2,
      ...thawObject(this.#json),
      manifests: [...kept.map(thaw), entry],
    });
    if (bytes.length <= MAXIMUM_MANIFEST_BYTES) return bytes;
    throw new OcicryptError('bad-input', `${this.#what} would be larger than ${MAXIMUM_MANIFEST_BYTES} bytes`, {
      hint: 'nothing was changed: remove images from the layout, or write to another one',
    });
  }

  /** An image without a tag beside others could not be named afterwards. @throws OcicryptError `bad-input` */
  checkName({ name, tag }: LayoutName, replaced?: Descriptor): void {
    if (tag !== undefined || replaced !== undefined) return;
    const tags = this.#tags();
    if (tags.length === 0) return;
    throw new OcicryptError('bad-input', `${name} holds images with tags, and the new one would have none`, {
      hint: `name it ${name}:TAG; there are ${tags.slice(0, 8).join(', ')}`,
    });
  }

  #parse(entry: JsonObject, index: number): Descriptor {
    return parseDescriptor(entry, `${this.#what}[${index}]`);
  }

  #tags(): readonly string[] {
    return this.#objects.flatMap((entry) => tagOf(entry) ?? []);
  }

  #known(): string {
    const tags = this.#tags();
    if (tags.length > 0) return `its tags are ${tags.slice(0, 8).join(', ')}`;
    return this.#objects.length === 0 ? 'it holds no image' : 'its images have no tags: name one by its number, as :@0';
  }

  #howToName(name: string): string {
    const [tag] = this.#tags();
    return tag === undefined ? `name one by its number, as ${name}:@0` : `name one as ${name}:${tag}; ${this.#known()}`;
  }
}

function tagOf(entry: JsonObject): string | undefined {
  return asText(asObject(entry.get('annotations'))?.get(TAG));
}

function isSame(one: JsonObject, other: JsonObject): boolean {
  return asText(one.get('digest')) === asText(other.get('digest')) && tagOf(one) === tagOf(other);
}

function isImage(entry: JsonObject): boolean {
  return isManifestType(asText(entry.get('mediaType')) ?? '');
}
