// Wrapping with the public half of an RSA key, on this machine: RSAES-OAEP with SHA-256 (RFC 8017), empty label.

import { constants, createPublicKey, type KeyObject, publicEncrypt } from 'node:crypto';
import { OcicryptError } from '../base/errors.ts';

const MINIMUM_MODULUS_BITS = 2048;
/** Two hashes and two bytes (RFC 8017 section 7.1.1). */
const OVERHEAD_BYTES = 66;

/**
 * The RSA public key in an SPKI document or JWK, or undefined where it is none of at least 2048 bits.
 *
 * @param source DER of a SubjectPublicKeyInfo, or the two members of an RSA JWK (RFC 7518 section 6.3.1)
 */
export function readRsaPublicKey(
  source: Uint8Array | { readonly n: string; readonly e: string },
): KeyObject | undefined {
  try {
    const key =
      source instanceof Uint8Array
        ? createPublicKey({ key: Buffer.from(source), format: 'der', type: 'spki' })
        : createPublicKey({ key: { kty: 'RSA', n: source.n, e: source.e }, format: 'jwk' });
    return key.asymmetricKeyType === 'rsa' && modulusBits(key) >= MINIMUM_MODULUS_BITS ? key : undefined;
  } catch {
    return undefined;
  }
}

/** @throws OcicryptError `bad-input` where the key is too small for the plaintext */
export function wrapRsaOaep(name: string, key: KeyObject, plaintext: Uint8Array): Uint8Array<ArrayBuffer> {
  const maximum = modulusBits(key) / 8 - OVERHEAD_BYTES;
  if (plaintext.length > maximum) {
    throw new OcicryptError('bad-input', `${name} takes at most ${maximum} bytes`, { hint: 'use --packet v2' });
  }
  const options = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
  return new Uint8Array(publicEncrypt(options, plaintext));
}

function modulusBits(key: KeyObject): number {
  return key.asymmetricKeyDetails?.modulusLength ?? 0;
}
