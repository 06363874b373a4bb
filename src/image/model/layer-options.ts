// Reads and writes what the cipher of a layer needs, byte for byte as Go's ocicrypt does: public options and the layer-key record.

import { OcicryptError } from '../../base/errors.ts';
import { asBytes, asObject, asText, type JsonObject, parseJson } from '../../base/json.ts';
import { writeJson } from '../../base/json-writer.ts';

/** The one cipher that ocicrypt defines. */
export const LAYER_CIPHER = 'AES_256_CTR_HMAC_SHA256';

/** What everybody may know: HMAC-SHA256 over the ciphertext. */
export type PublicOptions = { readonly hmac: Uint8Array };

/** What recipients get: the key (32 bytes), the nonce (16 bytes), and the digest of the layer as its writer read it. */
export type LayerKeyRecord = { readonly key: Uint8Array; readonly nonce: Uint8Array; readonly digest: string };

const PUBLIC_MEMBERS: ReadonlySet<string> = new Set(['cipher', 'hmac', 'cipheroptions']);

/** The JSON of the public options, before the base64 of the annotation. */
export function encodePublicOptions(options: PublicOptions): Uint8Array<ArrayBuffer> {
  return writeJson({ cipher: LAYER_CIPHER, hmac: options.hmac, cipheroptions: {} });
}

/**
 * Reads public options strictly.
 *
 * @param what names the layer in an error
 * @throws OcicryptError `bad-input`: an unknown cipher, an HMAC that is not 32 bytes, or options of the cipher in public
 *   (ocicrypt lets a public nonce win over the secret one, so that the writer of the manifest could choose it). Other
 *   members too: Go takes `CIPHEROPTIONS` for what we would not see in it
 */
export function decodePublicOptions(json: Uint8Array, what: string): PublicOptions {
  const record = asObject(parseJson(json, `public options of ${what}`));
  const cipher = asText(record?.get('cipher'));
  if (record === undefined || cipher !== LAYER_CIPHER) {
    throw new OcicryptError('bad-input', `${what} is encrypted with an unknown cipher`, {
      hint: `only ${LAYER_CIPHER} is known`,
    });
  }
  if ([...record.keys()].some((name) => !PUBLIC_MEMBERS.has(name))) {
    throw new OcicryptError('bad-input', `${what} has public options that are not known`);
  }
  const options = record.get('cipheroptions');
  const sizeOfOptions = options === undefined || options === null ? 0 : asObject(options)?.size;
  if (sizeOfOptions !== 0) {
    throw new OcicryptError('bad-input', `${what} has cipher options in public`, {
      hint: 'a nonce belongs to the wrapped options only: encrypt the image again',
    });
  }
  const hmac = asBytes(record?.get('hmac'));
  if (hmac?.length !== 32) throw new OcicryptError('bad-input', `${what} has no HMAC of 32 bytes`);
  return { hmac };
}

/** The layer-key record: 193 bytes for a SHA-256 digest. Holds the key. */
export function encodeLayerKeyRecord(options: LayerKeyRecord): Uint8Array<ArrayBuffer> {
  return writeJson({ symkey: options.key, digest: options.digest, cipheroptions: { nonce: options.nonce } });
}

/**
 * Reads a layer-key record strictly. The result is in memory of its own: wipe key and record both.
 *
 * @param what names the layer in an error
 * @throws OcicryptError `integrity`: what a key opened is not a layer-key record. The text says nothing of its content
 */
export function decodeLayerKeyRecord(record: Uint8Array, what: string): LayerKeyRecord {
  const members = parseRecord(record);
  const key = members && asBytes(members.get('symkey'));
  const nonce = members && asBytes(asObject(members.get('cipheroptions'))?.get('nonce'));
  const digest = asText(members?.get('digest'));
  if (key?.length === 32 && nonce?.length === 16 && digest !== undefined) return { key, nonce, digest };
  key?.fill(0);
  throw new OcicryptError('integrity', `the key of ${what} cannot be unwrapped`, {
    hint: 'what the key opened is no layer key: the packet was changed or made for something else',
  });
}

function parseRecord(record: Uint8Array): JsonObject | undefined {
  try {
    return asObject(parseJson(record, 'layer key'));
  } catch {
    return undefined;
  }
}
