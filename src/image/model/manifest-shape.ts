// Says how Go's readers type the documents of an image, so that nothing is read here that they read otherwise or refuse.

import { OcicryptError } from '../../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, JsonString, type JsonValue } from '../../base/json.ts';
import { checkSpelling, type KnownNames, knownNames } from '../../base/json-members.ts';

/** Of a member: `int64`, `string`, `[]string`, `map[string]string`, `[]byte`, a struct, or a list of structs. */
type Kind = 'integer' | 'text' | 'texts' | 'annotations' | 'bytes' | Shape | readonly [Shape];

/** The members of a struct; null stands for one that is not there, as it does in Go. */
export type Shape = { readonly members: ReadonlyMap<string, Kind>; readonly known: KnownNames };

/** Of OCI and of Docker: https://github.com/opencontainers/image-spec/tree/main/specs-go/v1 */
const PLATFORM = shape({
  architecture: 'text',
  os: 'text',
  'os.version': 'text',
  'os.features': 'texts',
  variant: 'text',
  features: 'texts',
});

const DESCRIPTOR = shape({
  mediaType: 'text',
  digest: 'text',
  size: 'integer',
  urls: 'texts',
  annotations: 'annotations',
  data: 'bytes',
  platform: PLATFORM,
  artifactType: 'text',
});

/** A manifest or an index: readers look for the members of the one in the other, and for those of schema 1 in both. */
export const DOCUMENT = shape(
  {
    schemaVersion: 'integer',
    mediaType: 'text',
    artifactType: 'text',
    config: DESCRIPTOR,
    layers: [DESCRIPTOR],
    manifests: [DESCRIPTOR],
    subject: DESCRIPTOR,
    annotations: 'annotations',
  },
  ['fsLayers', 'history'],
);

/** What is read of a config. */
export const CONFIG = shape({
  architecture: 'text',
  os: 'text',
  'os.version': 'text',
  'os.features': 'texts',
  variant: 'text',
  rootfs: shape({ type: 'text', diff_ids: 'texts' }),
});

export const LAYOUT_FILE = shape({ imageLayoutVersion: 'text' });

/**
 * Checks names and types of all members that the shape knows, at every depth.
 *
 * @param what names the document in an error
 * @throws OcicryptError `bad-input` for another spelling of a known name, and for a value of another type
 */
export function checkShape(object: JsonObject, { members, known }: Shape, what: string): void {
  checkSpelling(object, known, what);
  for (const [name, value] of object) {
    const kind = members.get(name);
    if (kind !== undefined && value !== null) checkKind(value, kind, `${what}: ${name}`);
  }
}

function checkKind(value: JsonValue, kind: Kind, what: string): void {
  if (typeof kind === 'object') {
    const inner = isList(kind) ? kind[0] : kind;
    const values = isList(kind) ? asArray(value) : [value];
    for (const [index, one] of (values ?? [undefined]).entries()) {
      const object = asObject(one);
      if (object === undefined) throw mistyped(what);
      checkShape(object, inner, isList(kind) ? `${what}[${index}]` : what);
    }
  } else if (!IS_KIND[kind](value)) throw mistyped(what);
}

const isText = (value: JsonValue): boolean => value instanceof JsonString;

const IS_KIND: Readonly<Record<Extract<Kind, string>, (value: JsonValue) => boolean>> = {
  integer: (value) => typeof value === 'number',
  text: isText,
  texts: (value) => asArray(value)?.every(isText) ?? false,
  annotations: (value) => [...(asObject(value)?.values() ?? [null])].every(isText),
  bytes: (value) => value instanceof JsonString && (value.base64() !== undefined || asText(value) === ''),
};

function isList(kind: Shape | readonly [Shape]): kind is readonly [Shape] {
  return Array.isArray(kind);
}

function shape(members: Readonly<Record<string, Kind>>, others: readonly string[] = []): Shape {
  return { members: new Map(Object.entries(members)), known: knownNames([...Object.keys(members), ...others]) };
}

function mistyped(what: string): OcicryptError {
  return new OcicryptError('bad-input', `${what} is of another type than readers take`);
}
