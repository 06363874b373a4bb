// Reads what containerd hands a decoder on descriptor 3: the layer's descriptor, and what a client named.
// https://github.com/containerd/imgcrypt payload.go

import { OcicryptError } from '../base/errors.ts';
import { decodeBytesField } from '../base/grpc.ts';
import { asArray, asObject, JsonString, type JsonValue, parseJson } from '../base/json.ts';
import type { ProviderParameters } from '../client/provider-messages.ts';
import { type Descriptor, parseDescriptor } from '../image/model/descriptor.ts';
import { MAXIMUM_MANIFEST_BYTES } from '../image/model/manifest.ts';
import { SCHEME_PARAMETERS } from '../provider/parameters.ts';

export type DecoderPayload = {
  /** Of the encrypted layer, with its annotations: a registry's own words. */
  readonly descriptor: Descriptor;
  /** What a client of containerd named for key providers; pulls for Kubernetes name nothing. */
  readonly parameters: ProviderParameters;
};

/** A descriptor is part of a manifest; Go escapes some of its characters. */
export const MAXIMUM_PAYLOAD_BYTES = 2 * MAXIMUM_MANIFEST_BYTES;

const TYPE = 'io.containerd.ocicrypt.v1.Payload';
const WHAT = "containerd's payload";

/**
 * Reads a payload: JSON as Go writes it, in a protobuf message `google.protobuf.Any`.
 *
 * @throws OcicryptError `bad-input`
 */
export function decodePayload(bytes: Uint8Array): DecoderPayload {
  if (bytes.length > MAXIMUM_PAYLOAD_BYTES)
    throw new OcicryptError('bad-input', `${WHAT} is larger than ${MAXIMUM_PAYLOAD_BYTES} bytes`);
  const type = new TextDecoder().decode(decodeBytesField(bytes, 1));
  if (type.slice(type.lastIndexOf('/') + 1) !== TYPE)
    throw new OcicryptError('bad-input', `${WHAT} is not of type ${TYPE}`);
  const payload = asObject(parseJson(decodeBytesField(bytes, 2), WHAT));
  const config = asObject(payload?.get('DecryptConfig'));
  return {
    descriptor: parseDescriptor(payload?.get('Descriptor'), `the descriptor of ${WHAT}`),
    parameters: readParameters(config?.get('Parameters')),
  };
}

/** Those of providers. The private keys of other schemes stay where they are. */
function readParameters(value: JsonValue | undefined): ProviderParameters {
  const named = [...(asObject(value) ?? [])].filter(([name]) => !SCHEME_PARAMETERS.has(name));
  return Object.fromEntries(named.map(([name, values]) => [name, (asArray(values) ?? []).flatMap(readText)]));
}

function readText(value: JsonValue): readonly string[] {
  const bytes = value instanceof JsonString ? value.base64() : undefined;
  return bytes === undefined ? [] : [new TextDecoder().decode(bytes)];
}
