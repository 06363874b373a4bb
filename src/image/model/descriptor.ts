// Reads and changes descriptors, which name content by type, digest and size: as hostile input.

import { OcicryptError } from '../../base/errors.ts';
import { asObject, asText, type JsonObject, type JsonValue } from '../../base/json.ts';
import { type JsonInput, thawObject } from '../../base/json-writer.ts';

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

/** What an index names by a digest of another algorithm than SHA-256: its content is not read here. */
export type OtherEntry = Pick<Descriptor, 'digest' | 'mediaType' | 'platform'>;

/** What differs from a descriptor that was read; `annotations` replaces them all. */
export type DescriptorChange = {
  readonly mediaType?: string;
  readonly digest?: string;
  readonly size?: number;
  readonly annotations?: ReadonlyMap<string, string> | undefined;
};

/** RFC 6838 section 4.2. */
const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const OTHER_DIGEST = /^(?!sha256:)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const PLATFORM_PART = /^[A-Za-z0-9._-]{1,64}$/;

/**
 * Parses a descriptor.
 *
 * @throws OcicryptError `bad-input`; so no digest or media type that is returned can climb out of a path or a URL
 */
export function parseDescriptor(value: JsonValue | undefined, what: string): Descriptor {
  return parseEntry(value, what, DIGEST);
}

/** The same of what has a digest of another algorithm. @throws OcicryptError `bad-input` */
export function parseOtherEntry(value: JsonValue, what: string): OtherEntry {
  return parseEntry(value, what, OTHER_DIGEST);
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

/** Undefined for what names no platform that could be one. */
export function parsePlatform(value: JsonValue | undefined): Platform | undefined {
  const object = asObject(value);
  const os = asText(object?.get('os'));
  const architecture = asText(object?.get('architecture'));
  const variant = asText(object?.get('variant'));
  if (os === undefined || architecture === undefined) return undefined;
  const parts = variant === undefined || variant === '' ? [os, architecture] : [os, architecture, variant];
  if (!parts.every((part) => PLATFORM_PART.test(part))) return undefined;
  return parts.length === 2 ? { os, architecture } : { os, architecture, variant: parts[2] ?? '' };
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

function bad(message: string): OcicryptError {
  return new OcicryptError('bad-input', message);
}
