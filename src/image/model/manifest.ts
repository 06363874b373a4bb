// Reads and writes manifests, indexes and configs: OCI image-spec 1.1 and Docker schema 2, as hostile input.

import { OcicryptError } from '../../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, type JsonValue, parseJson } from '../../base/json.ts';
import { createJsonRoom, type JsonRoom } from '../../base/json-room.ts';
import { type JsonInput, thaw, thawObject, writeJson } from '../../base/json-writer.ts';
import {
  changeDescriptor,
  type Descriptor,
  hasOtherDigest,
  isDigest,
  type OtherEntry,
  type Platform,
  parseDescriptor,
  parseOtherEntry,
  parsePlatform,
} from './descriptor.ts';
import { CONFIG, checkShape, DOCUMENT, LAYOUT_FILE } from './manifest-shape.ts';

/** The most that a registry must take, and all that we read: https://github.com/opencontainers/distribution-spec */
export const MAXIMUM_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAXIMUM_ENTRIES = 1000;
/** A layout may hold many images: 4 MiB of index name 14,000 with tags and platforms. */
const LAYOUT_DOCUMENTS = 5;

export const MEDIA_TYPES = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

export type ImageManifest = {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly json: JsonObject;
};

export type ImageIndex = {
  readonly kind: 'index';
  /** Without {@link others}, in order. */
  readonly manifests: readonly Descriptor[];
  readonly others: readonly OtherEntry[];
  readonly json: JsonObject;
};

/** What an image's config says that matters here. */
export type ImageConfig = { readonly platform: Platform | undefined; readonly diffIds: readonly string[] };

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

/** @throws OcicryptError `bad-input` for what is larger than a manifest may be */
export function checkManifestSize(bytes: number, what: string): void {
  if (bytes > MAXIMUM_MANIFEST_BYTES) throw bad(`${what} is larger than ${MAXIMUM_MANIFEST_BYTES} bytes`);
}

/**
 * Parses a manifest or an index.
 *
 * @param mediaType what the descriptor or the registry says it is; the document must not say otherwise, since a
 *   document that is a manifest to one reader and an index to another hides content from one of them. Undefined for what
 *   the document itself says: a manifest if it says nothing
 * @param what names it in an error
 * @param room shared by all that is kept of one image
 * @throws OcicryptError `bad-input`
 */
export function parseManifest(
  bytes: Uint8Array,
  mediaType: string | undefined,
  what: string,
  room?: JsonRoom,
): ImageManifest | ImageIndex {
  checkManifestSize(bytes.length, what);
  const json = parseDocument(bytes, mediaType, what, room);
  const type = mediaType ?? asText(json.get('mediaType')) ?? MEDIA_TYPES.manifest;
  if (isIndexType(type)) return parseIndex(json, what);
  if (!isManifestType(type)) throw bad(`${what} is of the unknown media type ${JSON.stringify(type.slice(0, 100))}`);
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
  const json = parseDocument(bytes, MEDIA_TYPES.index, what, createJsonRoom(LAYOUT_DOCUMENTS));
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

function parseIndex(json: JsonObject, what: string): ImageIndex {
  refuseManifest(json, what);
  const [manifests, others]: [Descriptor[], OtherEntry[]] = [[], []];
  for (const [index, entry] of parseEntries(json.get('manifests'), `${what}: manifests`).entries()) {
    const name = `${what}: manifests[${index}]`;
    if (hasOtherDigest(entry)) others.push(parseOtherEntry(entry, name));
    else manifests.push(parseDescriptor(entry, name));
  }
  return { kind: 'index', manifests, others, json };
}

function refuseManifest(json: JsonObject, what: string): void {
  if (json.has('layers') || json.has('config')) throw bad(`${what} is an index and a manifest at once`);
}

/** The members of a manifest or an index that no reader takes for another one. */
function parseDocument(bytes: Uint8Array, mediaType: string | undefined, what: string, room?: JsonRoom): JsonObject {
  const json = asObject(parseJson(bytes, what, room));
  if (json === undefined) throw bad(`${what} is no JSON object`);
  checkShape(json, DOCUMENT, what);
  const own = json.get('mediaType');
  const said = asText(own);
  if (own !== undefined && (said === undefined || said !== (mediaType ?? said)))
    throw bad(`${what} says that it is of another media type`);
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

function bad(message: string, hint?: string): OcicryptError {
  return new OcicryptError('bad-input', message, { hint });
}
