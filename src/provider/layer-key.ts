// Looks inside a layer-key record: what is not one is neither wrapped nor released.

import { wipe } from '../base/bytes.ts';
import { asBytes, asObject, asText, type JsonObject, type JsonValue, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';

/** It is 193 bytes today; a request with a longer one is refused too (protocol.ts). */
const MAXIMUM_LENGTH = 4096;
const SYMMETRIC_KEY_LENGTH = 32;
const NONCE_LENGTH = 16;
/** https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests */
const DIGEST = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}$/;

/**
 * Whether this is a layer-key record as ocicrypt writes it: `symkey` of 32 bytes, the layer's `digest`, and a
 * `nonce` of 16 bytes under `cipheroptions`. This is what keeps the provider from being an oracle for other
 * ciphertexts under the same key (docs/promises.md, P13). A member in two spellings is refused: Go would take the other one.
 */
export function isLayerKeyRecord(record: Uint8Array): boolean {
  if (record.length > MAXIMUM_LENGTH) return false;
  try {
    const members = asObject(parseJson(record, 'the layer-key record'));
    const options = asObject(onlyMember(members, 'cipheroptions'));
    return (
      hasLength(onlyMember(members, 'symkey'), SYMMETRIC_KEY_LENGTH) &&
      hasLength(onlyMember(options, 'nonce'), NONCE_LENGTH) &&
      DIGEST.test(asText(onlyMember(members, 'digest')) ?? '')
    );
  } catch {
    return false;
  }
}

/** The member of exactly this name. @throws OcicryptError if another spelling of it is there too */
function onlyMember(object: JsonObject | undefined, name: string): JsonValue | undefined {
  return object !== undefined && findMember(object, name) !== undefined ? object.get(name) : undefined;
}

function hasLength(value: JsonValue | undefined, length: number): boolean {
  const bytes = asBytes(value);
  wipe(bytes);
  return bytes?.length === length;
}
