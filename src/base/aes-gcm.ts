// The only code that uses AES-256-GCM (NIST SP 800-38D): a text and its tag made and opened, with a nonce of 96 bits.

import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { concatBytes, wipe } from './bytes.ts';

export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

const CIPHER = 'aes-256-gcm';
const OPTIONS = { authTagLength: TAG_BYTES };

/**
 * Encrypts `plaintext`.
 *
 * @param nonce new for each text under one key
 * @param additional what is bound to the text, and not in it
 * @returns the ciphertext and its tag
 */
export function sealGcm(
  key: KeyObject,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  additional?: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const cipher = createCipheriv(CIPHER, key, nonce, OPTIONS);
  if (additional !== undefined) cipher.setAAD(additional);
  return concatBytes(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
}

/**
 * Decrypts what {@link sealGcm} made.
 *
 * @returns the plaintext, which the caller wipes; undefined alike for another key, nonce, text, tag or additional data
 */
export function openGcm(
  key: KeyObject,
  nonce: Uint8Array,
  sealed: Uint8Array,
  additional?: Uint8Array,
): Uint8Array | undefined {
  if (sealed.length < TAG_BYTES) return undefined;
  const decipher = createDecipheriv(CIPHER, key, nonce, OPTIONS);
  if (additional !== undefined) decipher.setAAD(additional);
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
  const plaintext = decipher.update(sealed.subarray(0, -TAG_BYTES));
  try {
    decipher.final();
    return plaintext;
  } catch {
    wipe(plaintext);
    return undefined;
  }
}
