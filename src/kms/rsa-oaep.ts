// Wrapping with the public half of an RSA key, on this machine: RSAES-OAEP (RFC 8017), empty label, MGF1 with its hash.

import { constants, createPublicKey, type KeyObject, publicEncrypt } from 'node:crypto';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';

/** The hash of the padding, as OpenSSL calls it. */
export type OaepHash = 'sha1' | 'sha256' | 'sha512';

const MINIMUM_MODULUS_BITS = 2048;
const HASH_BYTES: { readonly [hash in OaepHash]: number } = { sha1: 20, sha256: 32, sha512: 64 };

/**
 * The RSA public key in an SPKI document or JWK, or undefined if it is none of at least 2048 bits.
 *
 * @param source DER or PEM of a SubjectPublicKeyInfo, or the two members of an RSA JWK (RFC 7518 section 6.3.1)
 */
export function readRsaPublicKey(
  source: Uint8Array | { readonly n: string; readonly e: string } | { readonly pem: string },
): KeyObject | undefined {
  try {
    const key = readPublicKey(source);
    return key.asymmetricKeyType === 'rsa' && modulusBits(key) >= MINIMUM_MODULUS_BITS ? key : undefined;
  } catch {
    return undefined;
  }
}

/** @throws OcicryptError `bad-input` if the key is too small for the plaintext */
export function wrapRsaOaep(
  name: string,
  key: KeyObject,
  plaintext: Uint8Array,
  hash: OaepHash = 'sha256',
): Uint8Array<ArrayBuffer> {
  // RFC 8017 section 7.1.1.
  const maximum = modulusBits(key) / 8 - 2 * HASH_BYTES[hash] - 2;
  if (plaintext.length > maximum) {
    throw new OcicryptError('bad-input', `${name} takes at most ${maximum} bytes`, {
      hint: `use ${setting('packet')} v2`,
    });
  }
  const options = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash };
  return new Uint8Array(publicEncrypt(options, plaintext));
}

/** The length of the modulus, 0 if the key is not an RSA key. */
export function modulusBits(key: KeyObject): number {
  return key.asymmetricKeyDetails?.modulusLength ?? 0;
}

function readPublicKey(source: Parameters<typeof readRsaPublicKey>[0]): KeyObject {
  if (source instanceof Uint8Array) {
    return createPublicKey({ key: Buffer.from(source), format: 'der', type: 'spki' });
  }
  if ('pem' in source) return createPublicKey({ key: source.pem, format: 'pem', type: 'spki' });
  return createPublicKey({ key: { kty: 'RSA', n: source.n, e: source.e }, format: 'jwk' });
}
