// Reads and writes manifests, indexes and configs: OCI image-spec 1.1 and Docker schema 2, as hostile input.

import { OcicryptError } from '../../base/errors.ts';
import {
  asArray,
  asObject,
  asText,
  JsonNumber,
  type JsonObject,
  JsonString,
  type JsonValue,
  parseJson,
} from '../../base/json.ts';
import { type JsonInput, writeJson } from '../../base/json-writer.ts';
import { CONFIG, checkShape, DOCUMENT, LAYOUT_FILE } from './manifest-shape.ts';

/** The most that a registry must take, and all that we read: https://github.com/opencontainers/distribution-spec */
export const MAXIMUM_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAXIMUM_ENTRIES = 1000;

export const MEDIA_TYPES = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

/** In Go's words: https://go.dev/doc/install/source#environment */
export type Platform = { readonly os: string; readonly architecture: string; readonly variant?: string };

/** A reference to content: https://github.com/opencontainers/image-spec/blob/main/descriptor.md */
export type Descriptor = {
  readonly mediaType: string;
  /** `sha256:` and 64 lower-case hexadecimal digits, nothing else. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly annotations: ReadonlyMap<string, string>;
  readonly platform: Platform | undefined;
  /** As it was read, so that members unknown here survive. */
  readonly json: JsonObject;
};

export type ImageManifest = {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly json: JsonObject;
};

/** What an index names by a digest of another algorithm than SHA-256: its content is not read here. */
export type OtherEntry = Pick<Descriptor, 'digest' | 'mediaType' | 'platform'>;

export type ImageIndex = {
  readonly kind: 'index';
  /** Without {@link others}, in order. */
  readonly manifests: readonly Descriptor[];
  readonly others: readonly OtherEntry[];
  readonly json: JsonObject;
};

/** What an image's config says that matters here. */
export type ImageConfig = { readonly platform: Platform | undefined; readonly diffIds: readonly string[] };

/** What differs from a descriptor that was read; `annotations` replaces them all. */
export type DescriptorChange = {
  readonly mediaType?: string;
  readonly digest?: string;
  readonly size?: number;
  readonly annotations?: ReadonlyMap<string, string> | undefined;
};

/** Whether content of this type is a manifest or an index, of either family. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.manifest || mediaType === MEDIA_TYPES.dockerManifest || isIndexType(mediaType);
}

/** Whether content of this type is an image's config, of either family. */
export function isConfigType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.config || mediaType === MEDIA_TYPES.dockerConfig;
}

/** Whether content of this type is an index. */
function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.index || mediaType === MEDIA_TYPES.dockerIndex;
}

/**
 * Parses a manifest or an index.
 *
 * @param mediaType what the descriptor or the registry says it is; the document must not say otherwise, since a
 *   document that is a manifest to one reader and an index to another hides content from one of them
 * @param what names it in an error
 * @throws OcicryptError `bad-input`
 */
export function parseManifest(bytes: Uint8Array, mediaType: string, what: string): ImageManifest | ImageIndex {
  if (bytes.length > MAXIMUM_MANIFEST_BYTES) throw bad(`${what} is larger than ${MAXIMUM_MANIFEST_BYTES} bytes`);
  const json = parseDocument(bytes, mediaType, what);
  if (isIndexType(mediaType)) return parseIndex(json, what);
  if (!isManifestType(mediaType))
    throw bad(`${what} is of the unknown media type ${JSON.stringify(mediaType.slice(0, 100))}`);
  if (json.has('manifests')) throw bad(`${what} is an index and a manifest at once`);
  return {
    kind: 'manifest',
    config: parseDescriptor(json.get('config'), `${what}: config`),
    layers: parseDescriptors(json.get('layers'), `${what}: layers`),
    json,
  };
}

/**
 * Parses the `index.json` of a layout, which need not say what it is. Entries are for {@link parseDescriptor}: they may
 * have digests that are not read here.
 *
 * @throws OcicryptError `bad-input`
 */
export function parseLayoutIndex(
  bytes: Uint8Array,
  what: string,
): { readonly json: JsonObject; readonly entries: readonly JsonObject[] } {
  const json = parseDocument(bytes, MEDIA_TYPES.index, what);
  refuseManifest(json, what);
  const manifests = json.get('manifests');
  const entries = manifests === null ? [] : asArray(manifests)?.map(asObject);
  const objects = entries?.filter((entry) => entry !== undefined);
  if (objects === undefined || objects.length !== entries?.length) throw bad(`${what} is no image index`);
  return { json, entries: objects };
}

/** The version in the `oci-layout` file of a layout. @throws OcicryptError `bad-input` if readers would differ about it */
export function parseLayoutVersion(bytes: Uint8Array, what: string): string | undefined {
  const json = asObject(parseJson(bytes, what)) ?? new Map();
  checkShape(json, LAYOUT_FILE, what);
  return asText(json.get('imageLayoutVersion'));
}

/** The manifest with other layers; config and media type become OCI's where they were Docker's. */
export function writeManifest(manifest: ImageManifest, layers: readonly JsonInput[]): Uint8Array<ArrayBuffer> {
  const { config } = manifest;
  const type = config.mediaType === MEDIA_TYPES.dockerConfig ? MEDIA_TYPES.config : config.mediaType;
  return writeJson({
    ...thawObject(manifest.json),
    ...(manifest.json.has('mediaType') ? { mediaType: MEDIA_TYPES.manifest } : {}),
    config: changeDescriptor(config, { mediaType: type }),
    layers,
  });
}

/** The index with others in place of its `manifests`, as an OCI index; what is not read here stays at its place. */
export function writeIndex(index: ImageIndex, changed: readonly JsonInput[]): Uint8Array<ArrayBuffer> {
  const left = changed.values();
  const manifests = (asArray(index.json.get('manifests') ?? null) ?? []).map((entry) =>
    hasOtherDigest(entry) ? thaw(entry) : (left.next().value ?? null),
  );
  return writeJson({
    ...thawObject(index.json),
    ...(index.json.has('mediaType') ? { mediaType: MEDIA_TYPES.index } : {}),
    manifests,
  });
}

/**
 * A descriptor with changes. Where the digest changes, `data` goes, which holds the content itself, and `urls` go, where
 * the old content is.
 */
export function changeDescriptor(descriptor: Descriptor, change: DescriptorChange): JsonInput {
  const { annotations, ...members } = change;
  const changed: Record<string, JsonInput | undefined> = { ...thawObject(descriptor.json), ...members };
  if (change.digest !== undefined && change.digest !== descriptor.digest) {
    delete changed.data;
    delete changed.urls;
  }
  if (annotations !== undefined)
    changed.annotations = annotations.size === 0 ? undefined : Object.fromEntries(annotations);
  return changed;
}

/** Parses what is needed of a config blob. @throws OcicryptError `bad-input` */
export function parseConfig(bytes: Uint8Array, what: string): ImageConfig {
  const json = asObject(parseJson(bytes, what));
  if (json !== undefined) checkShape(json, CONFIG, what);
  const diffIds = asArray(asObject(json?.get('rootfs'))?.get('diff_ids')) ?? [];
  return {
    platform: parsePlatform(json),
    diffIds: diffIds.map((id) => {
      const digest = asText(id);
      if (digest === undefined || !isDigest(digest)) throw bad(`${what} has a diff id that is no SHA-256 digest`);
      return digest;
    }),
  };
}

/** Whether this is a digest as we take them. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** Whether an entry has a digest of another algorithm, which is not read here; what it names stays as it is. */
export function hasOtherDigest(entry: JsonValue): boolean {
  return OTHER_DIGEST.test(asText(asObject(entry)?.get('digest')) ?? '');
}

/** `os/architecture` and `/variant` if there is one. */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}

/** What was parsed, as what can be written. */
export function thaw(value: JsonValue): JsonInput {
  if (value instanceof JsonString) return value.text();
  if (value instanceof JsonNumber) return value;
  const object = asObject(value);
  if (object !== undefined) return thawObject(object);
  const array = asArray(value);
  if (array !== undefined) return array.map(thaw);
  return typeof value === 'number' || typeof value === 'boolean' ? value : null;
}

/** RFC 6838 section 4.2. */
const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const OTHER_DIGEST = /^(?!sha256:)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const PLATFORM_PART = /^[A-Za-z0-9._-]{1,64}$/;

function parseIndex(json: JsonObject, what: string): ImageIndex {
  refuseManifest(json, what);
  const [manifests, others]: [Descriptor[], OtherEntry[]] = [[], []];
  for (const [index, entry] of parseEntries(json.get('manifests'), `${what}: manifests`).entries()) {
    const name = `${what}: manifests[${index}]`;
    if (hasOtherDigest(entry)) others.push(parseEntry(entry, name, OTHER_DIGEST));
    else manifests.push(parseEntry(entry, name, DIGEST));
  }
  return { kind: 'index', manifests, others, json };
}

function refuseManifest(json: JsonObject, what: string): void {
  if (json.has('layers') || json.has('config')) throw bad(`${what} is an index and a manifest at once`);
}

/** The members of a manifest or an index that no reader takes for another one. */
function parseDocument(bytes: Uint8Array, mediaType: string, what: string): JsonObject {
  const json = asObject(parseJson(bytes, what));
  if (json === undefined) throw bad(`${what} is no JSON object`);
  checkShape(json, DOCUMENT, what);
  const own = json.get('mediaType');
  if (own !== undefined && asText(own) !== mediaType) throw bad(`${what} says that it is of another media type`);
  if (json.get('schemaVersion') !== 2)
    throw bad(`${what} is not of schema version 2`, 'push it again with a current tool');
  // containers/image refuses what looks like schema 1 too.
  if (json.has('fsLayers') || json.has('history')) throw bad(`${what} has members of schema version 1`);
  return json;
}

function parseDescriptors(value: JsonValue | undefined, what: string): readonly Descriptor[] {
  return parseEntries(value, what).map((entry, index) => parseDescriptor(entry, `${what}[${index}]`));
}

function parseEntries(value: JsonValue | undefined, what: string): readonly JsonValue[] {
  const entries = value === null ? [] : asArray(value);
  if (entries === undefined) throw bad(`${what} is no list`);
  if (entries.length > MAXIMUM_ENTRIES) throw bad(`${what} has more than ${MAXIMUM_ENTRIES} entries`);
  return entries;
}

/**
 * Parses a descriptor.
 *
 * @throws OcicryptError `bad-input`; so no digest or media type that is returned can climb out of a path or a URL
 */
export function parseDescriptor(value: JsonValue | undefined, what: string): Descriptor {
  return parseEntry(value, what, DIGEST);
}

function parseEntry(value: JsonValue | undefined, what: string, form: RegExp): Descriptor {
  const json = asObject(value);
  const mediaType = asText(json?.get('mediaType'));
  const digest = asText(json?.get('digest'));
  const size = json?.get('size');
  if (json === undefined || mediaType === undefined || !MEDIA_TYPE.test(mediaType))
    throw bad(`${what} has no media type`);
  if (digest === undefined || !form.test(digest)) throw bad(`${what} has no SHA-256 digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw bad(`${what} has no size`);
  const annotations = parseAnnotations(json.get('annotations'), what);
  return { mediaType, digest, size, annotations, platform: parsePlatform(json.get('platform')), json };
}

function parseAnnotations(value: JsonValue | undefined, what: string): ReadonlyMap<string, string> {
  if (value === undefined || value === null) return new Map();
  const object = asObject(value);
  if (object === undefined) throw bad(`${what} has annotations that are no object`);
  const annotations = new Map<string, string>();
  for (const [name, text] of object) {
    const string = asText(text);
    if (string === undefined) throw bad(`${what} has an annotation that is no string`);
    annotations.set(name, string);
  }
  return annotations;
}

function parsePlatform(value: JsonValue | undefined): Platform | undefined {
  const object = asObject(value);
  const os = asText(object?.get('os'));
  const architecture = asText(object?.get('architecture'));
  const variant = asText(object?.get('variant'));
  if (os === undefined || architecture === undefined) return undefined;
  const parts = variant === undefined || variant === '' ? [os, architecture] : [os, architecture, variant];
  if (!parts.every((part) => PLATFORM_PART.test(part))) return undefined;
  return parts.length === 2 ? { os, architecture } : { os, architecture, variant: parts[2] ?? '' };
}

function thawObject(object: JsonObject): { readonly [member: string]: JsonInput } {
  // Built from entries, so that a member called __proto__ is a member and nothing more.
  return Object.fromEntries([...object].map(([name, value]) => [name, thaw(value)]));
}

function bad(message: string, hint?: string): OcicryptError {
  return new OcicryptError('bad-input', message, { hint });
}
