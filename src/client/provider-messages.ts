// The client's side of the key-provider protocol's JSON: requests out, replies in.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, JsonString, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';
import { writeJson } from '../base/json-writer.ts';

/** What the user named for a provider, by the provider's name. */
export type ProviderParameters = Readonly<Record<string, readonly string[]>>;

/** The request to wrap a layer-key record for all values under a provider's name. Holds the key: to be wiped. */
export function encodeWrapRequest(parameters: ProviderParameters, record: Uint8Array): Uint8Array<ArrayBuffer> {
  return writeJson({
    op: 'keywrap',
    keywrapparams: {
      ec: { Parameters: encodeValues(parameters), DecryptConfig: { Parameters: {} } },
      optsdata: record,
    },
    keyunwrapparams: { dc: null, annotation: null },
  });
}

/** The request to unwrap a packet. */
export function encodeUnwrapRequest(parameters: ProviderParameters, packet: Uint8Array): Uint8Array<ArrayBuffer> {
  return writeJson({
    op: 'keyunwrap',
    keywrapparams: { ec: null, optsdata: null },
    keyunwrapparams: { dc: { Parameters: encodeValues(parameters) }, annotation: packet },
  });
}

/** The packet that a provider made. @throws OcicryptError `bad-input` */
export function decodeWrapReply(reply: Uint8Array, what: string): Uint8Array {
  return decodeReply(reply, 'keywrapresults', 'annotation', what);
}

/** The layer-key record that a provider opened, in memory of its own: to be wiped. @throws OcicryptError `bad-input` */
export function decodeUnwrapReply(reply: Uint8Array, what: string): Uint8Array {
  return decodeReply(reply, 'keyunwrapresults', 'optsdata', what);
}

function encodeValues(parameters: ProviderParameters): { readonly [name: string]: readonly Uint8Array[] } {
  const encoder = new TextEncoder();
  return Object.fromEntries(
    Object.entries(parameters).map(([name, values]) => [name, values.map((value) => encoder.encode(value))]),
  );
}

function decodeReply(reply: Uint8Array, results: string, member: string, what: string): Uint8Array {
  const root = asObject(parseJson(reply, `the answer of ${what}`));
  const found = asObject(root && findMember(root, results));
  const value = found && findMember(found, member);
  const bytes = value instanceof JsonString ? value.base64() : bytesOf(asArray(value));
  if (bytes !== undefined && bytes.length > 0) return bytes;
  throw new OcicryptError('bad-input', `${what} answered without ${member}`, {
    hint: 'it does not speak the key-provider protocol, or failed without saying so',
  });
}

/** Rust's providers write bytes as arrays of numbers. */
function bytesOf(values: readonly unknown[] | undefined): Uint8Array | undefined {
  const numbers = values?.filter((value) => typeof value === 'number' && value >= 0 && value <= 255);
  return numbers === undefined || numbers.length !== values?.length ? undefined : Uint8Array.from(numbers, Number);
}
