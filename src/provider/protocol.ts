// The JSON of the key-provider protocol: requests in, replies out.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, JsonString, type JsonValue, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';
import { type ByteSpelling, writeJson } from '../base/json-writer.ts';

/** Values of a provider's parameters: bytes as decoded from the request; undefined if a value is not bytes. */
export type ParameterValues = readonly (Uint8Array | undefined)[];

/**
 * What a client asks. `parameters` holds every provider's and scheme's values, private keys of other schemes among
 * them: only our own may be looked at, and none may be logged.
 */
export type KeyRequest = {
  readonly parameters: Parameters;
  /** How the client writes its own bytes, and so reads ours: `array` if it has shown that it was made with Rust. */
  readonly spelling: ByteSpelling;
} & (
  | { readonly operation: 'wrap'; readonly record: Uint8Array }
  | { readonly operation: 'unwrap'; readonly annotation: Uint8Array }
);

/** What a request asks for: to wrap a layer key, or to unwrap one. */
export type Operation = 'unwrap' | 'wrap';

export type Parameters = ReadonlyMap<string, ParameterValues>;

/** Larger requests are refused before they are parsed. */
export const MAXIMUM_REQUEST_BYTES = 256 * 1024;
/** A packet larger than this is neither written nor read. */
export const MAXIMUM_PACKET_BYTES = 32 * 1024;
/** The layer-key record is 193 bytes today; this leaves room for ciphers to come. */
const MAXIMUM_RECORD_BYTES = 4096;

/**
 * Reads a request as Go's encoding/json would: member names without regard to case, unknown members ignored.
 * Byte fields may be base64 (Go) or arrays of numbers (Rust); `optsdata` may also be the JSON text itself (Rust).
 *
 * @param expected the operation that was called, if the request came by a way that has one for each: a proxy may have
 *   let it through for that alone
 * @throws OcicryptError `bad-input`
 */
export function decodeRequest(request: Uint8Array, expected?: Operation): KeyRequest {
  if (request.length > MAXIMUM_REQUEST_BYTES) {
    throw new OcicryptError('bad-input', `the request has more than ${MAXIMUM_REQUEST_BYTES} bytes`);
  }
  if (request.length === 0) {
    throw new OcicryptError('bad-input', 'the request is empty', {
      hint: 'this command is run by skopeo, buildah, podman or containerd, as OCICRYPT_KEYPROVIDER_CONFIG says',
    });
  }
  const root = asObject(parseJson(request, 'the request'));
  if (root === undefined) throw new OcicryptError('bad-input', 'the request is not a JSON object');
  const operation = OPERATIONS.get(asText(findMember(root, 'op')));
  if (operation === undefined) {
    throw new OcicryptError('bad-input', 'the request has no known "op"', { hint: 'known are keywrap and keyunwrap' });
  }
  if (expected !== undefined && operation !== expected) {
    throw new OcicryptError('bad-input', `the method for ${expected} was called with a request to ${operation}`, {
      hint: 'call WrapKey with the op keywrap and UnWrapKey with keyunwrap',
    });
  }
  return operation === 'wrap'
    ? decodeWrap(objectMember(root, 'keywrapparams'))
    : decodeUnwrap(objectMember(root, 'keyunwrapparams'));
}

const OPERATIONS: ReadonlyMap<string | undefined, Operation> = new Map([
  ['keywrap', 'wrap'],
  ['keyunwrap', 'unwrap'],
]);

/** The request as ocicrypt writes it, with the parameters given and nothing else; what {@link decodeRequest} reads. */
export function encodeRequest(request: KeyRequest): Uint8Array<ArrayBuffer> {
  const parameters = Object.fromEntries(
    [...request.parameters].map(([name, values]) => [name, values.filter((value) => value !== undefined)]),
  );
  const config = { Parameters: parameters };
  return request.operation === 'wrap'
    ? writeJson(
        {
          op: 'keywrap',
          keywrapparams: { ec: { ...config, DecryptConfig: { Parameters: {} } }, optsdata: request.record },
          keyunwrapparams: { dc: null, annotation: null },
        },
        request.spelling,
      )
    : writeJson(
        {
          op: 'keyunwrap',
          keywrapparams: { ec: null, optsdata: null },
          keyunwrapparams: { dc: config, annotation: request.annotation },
        },
        request.spelling,
      );
}

/** The reply to a wrap: `annotation` is the packet. */
export function encodeWrapReply(annotation: Uint8Array, spelling: ByteSpelling): Uint8Array<ArrayBuffer> {
  return writeJson({ keywrapresults: { annotation } }, spelling);
}

/** The reply to an unwrap: `optsdata` is the layer-key record, a secret. */
export function encodeUnwrapReply(record: Uint8Array, spelling: ByteSpelling): Uint8Array<ArrayBuffer> {
  return writeJson({ keyunwrapresults: { optsdata: record } }, spelling);
}

function decodeWrap(params: JsonObject): KeyRequest {
  const config = findMember(params, 'ec');
  const written = findMember(params, 'optsdata');
  const raw = written instanceof JsonString && written.bytes()[0] === OPENING_BRACE;
  const bytes = raw ? written.bytes() : decodeBytes(written);
  if (bytes === undefined || bytes.length === 0 || bytes.length > MAXIMUM_RECORD_BYTES) {
    throw new OcicryptError('bad-input', 'the request has no usable "optsdata" to wrap');
  }
  const spelling = raw ? 'array' : spellingOf(written);
  return { operation: 'wrap', parameters: decodeParameters(config, 'ec'), spelling, record: bytes };
}

function decodeUnwrap(params: JsonObject): KeyRequest {
  const written = findMember(params, 'annotation');
  const annotation = decodeBytes(written);
  if (annotation === undefined || annotation.length === 0) {
    throw new OcicryptError('bad-input', 'the request has no usable "annotation" to unwrap');
  }
  if (annotation.length > MAXIMUM_PACKET_BYTES) {
    throw new OcicryptError('bad-input', `the annotation holds a packet of more than ${MAXIMUM_PACKET_BYTES} bytes`);
  }
  const parameters = decodeParameters(findMember(params, 'dc'), 'dc');
  return { operation: 'unwrap', parameters, spelling: spellingOf(written), annotation };
}

function spellingOf(written: JsonValue | undefined): ByteSpelling {
  return written instanceof JsonString ? 'base64' : 'array';
}

function decodeParameters(config: JsonValue | undefined, name: string): Parameters {
  const parameters = new Map<string, ParameterValues>();
  if (config === undefined || config === null) return parameters;
  const object = asObject(config);
  const named = object === undefined ? undefined : findMember(object, 'Parameters');
  if (object === undefined) throw new OcicryptError('bad-input', `the request's "${name}" is not an object`);
  if (named === undefined || named === null) return parameters;
  const entries = asObject(named);
  if (entries === undefined) throw new OcicryptError('bad-input', 'the request\'s "Parameters" is not an object');
  for (const [provider, values] of entries) parameters.set(provider, (asArray(values) ?? []).map(decodeBytes));
  return parameters;
}

const OPENING_BRACE = '{'.charCodeAt(0);

/** Bytes as base64 (Go) or an array of numbers (Rust), or undefined. */
export function decodeBytes(value: JsonValue | undefined): Uint8Array | undefined {
  if (value instanceof JsonString) return value.base64();
  const numbers = asArray(value);
  if (numbers === undefined || !numbers.every(isByte)) return undefined;
  return Uint8Array.from(numbers);
}

function isByte(value: JsonValue): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255;
}

function objectMember(object: JsonObject, name: string): JsonObject {
  const value = asObject(findMember(object, name));
  if (value === undefined) throw new OcicryptError('bad-input', `the request has no object "${name}"`);
  return value;
}
