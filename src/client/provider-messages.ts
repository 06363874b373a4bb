// The client's side of the key-provider protocol's JSON: requests out, replies in.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { OcicryptError } from '../base/errors.ts';
import { asObject, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';
import { decodeBytes, encodeRequest, type Parameters } from '../provider/protocol.ts';

/** What the user named for a provider, by the provider's name. */
export type ProviderParameters = Readonly<Record<string, readonly string[]>>;

/** The request to wrap a layer-key record for all values under a provider's name. Holds the key: to be wiped. */
export function encodeWrapRequest(parameters: ProviderParameters, record: Uint8Array): Uint8Array<ArrayBuffer> {
  return encodeRequest({
    operation: 'wrap',
    parameters: encodeValues(parameters),
    spelling: 'base64',
    record,
  });
}

/** The request to unwrap a packet. */
export function encodeUnwrapRequest(parameters: ProviderParameters, packet: Uint8Array): Uint8Array<ArrayBuffer> {
  return encodeRequest({
    operation: 'unwrap',
    parameters: encodeValues(parameters),
    spelling: 'base64',
    annotation: packet,
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

function encodeValues(parameters: ProviderParameters): Parameters {
  const encoder = new TextEncoder();
  return new Map(Object.entries(parameters).map(([name, values]) => [name, values.map((one) => encoder.encode(one))]));
}

function decodeReply(reply: Uint8Array, results: string, member: string, what: string): Uint8Array {
  const root = asObject(parseJson(reply, `the answer of ${what}`));
  const found = asObject(root && findMember(root, results));
  const bytes = found && decodeBytes(findMember(found, member));
  if (bytes !== undefined && bytes.length > 0) return bytes;
  throw new OcicryptError('bad-input', `${what} answered without ${member}`, {
    hint: 'it does not speak the key-provider protocol, or failed without saying so',
  });
}
