// Tells an age identity file from a key file, without loading anything of age.

import { wipe } from '../base/bytes.ts';
import { readSecretFile } from '../base/secret-file.ts';

/** How identity files begin: age-keygen's comments, a bare identity, an encrypted file in either form. */
const BEGINNINGS = ['#', 'AGE-SECRET-KEY-', 'AGE-PLUGIN-', 'age-encryption.org/v1', '-----BEGIN AGE ENCRYPTED FILE'];
const HEAD_BYTES = 64;
const KEYFILE_BYTES = 32;

/** Whether the file holds text as age's identity files do; false if it cannot be read, which its reader will say. */
export function isAgeIdentityFile(path: string): boolean {
  let head: Uint8Array;
  try {
    head = readSecretFile(path, 'the key file', HEAD_BYTES);
  } catch {
    return false;
  }
  try {
    // Random bytes may begin like text; no identity is as short.
    if (head.length <= KEYFILE_BYTES) return false;
    const text = new TextDecoder('latin1').decode(head).trimStart();
    return BEGINNINGS.some((beginning) => text.startsWith(beginning));
  } finally {
    wipe(head);
  }
}
