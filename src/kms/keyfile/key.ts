// Reads and makes key files: 32 random bytes that wrap on this machine, known by their thumbprint.

import { createHash, createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { NONCE_BYTES, openGcm, sealGcm, TAG_BYTES } from '../../base/aes-gcm.ts';
import { concatBytes, wipe } from '../../base/bytes.ts';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { formatKeyUri } from '../../base/key-uri.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { showPath } from '../../base/shown.ts';
import { cannotBeUnwrapped, checkPlaintext, contextBytes, type EncryptionContext, type Kek } from '../kek.ts';

const KEY_BYTES = 32;
const ALGORITHM = 'AES-256-GCM';
const THUMBPRINT_DOMAIN = 'ocicrypt-kms keyfile v1\0';

/**
 * Opens the key in a file of exactly 32 bytes: AES-256-GCM (NIST SP 800-38D), random 96-bit nonce, the context as
 * additional data, `nonce || ciphertext || tag`. One key may wrap 2^32 times before its nonces are likely to collide
 * more often than that standard allows (section 8.3).
 *
 * @param path a regular file of ours or root's that no other user can read, or a link to one
 * @throws OcicryptError `not-found` or `configuration`
 */
export function openKeyfile(path: string): Kek {
  const raw = readKey(path);
  const thumbprint = createHash('sha256').update(THUMBPRINT_DOMAIN).update(raw).digest('hex');
  const key = formatKeyUri({ scheme: 'keyfile', thumbprint });
  let secret: KeyObject | undefined = createSecretKey(raw);
  wipe(raw);

  function opened(): KeyObject {
    if (secret === undefined) throw new OcicryptError('internal', `${key} is closed`);
    return secret;
  }

  return {
    local: true,
    key,
    async wrap(plaintext, context) {
      checkPlaintext(key, plaintext);
      return { key, algorithm: ALGORITHM, wrapped: seal(opened(), plaintext, context) };
    },
    async unwrap({ algorithm, wrapped }, context) {
      const plaintext = algorithm === ALGORITHM ? unseal(opened(), wrapped, context) : undefined;
      if (plaintext === undefined) throw cannotBeUnwrapped(key);
      return plaintext;
    },
    close() {
      secret = undefined;
    },
  };
}

/**
 * Makes a key file: 32 random bytes, mode 0600, on disk when this returns. An existing file is never touched.
 *
 * @param path of the new file, in a directory that exists
 * @returns the canonical URI of the key, `keyfile:sha256:…`
 * @throws OcicryptError `configuration` if the file exists or its directory does not, `not-written`
 * @example
 * const key = createKeyfile('app.key'); // keyfile:sha256:…
 */
export function createKeyfile(path: string): string {
  let raw = randomBytes(KEY_BYTES);
  while (findWeakness(raw) !== undefined) raw = randomBytes(KEY_BYTES);
  try {
    writeKey(path, raw);
  } finally {
    wipe(raw);
  }
  return openKeyfile(path).key;
}

function seal(key: KeyObject, plaintext: Uint8Array, context: EncryptionContext): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES);
  return concatBytes(nonce, sealGcm(key, nonce, plaintext, contextBytes(context)));
}

/** Undefined for a wrong key, tag, shape and context alike. */
function unseal(key: KeyObject, wrapped: Uint8Array, context: EncryptionContext): Uint8Array | undefined {
  if (wrapped.length <= NONCE_BYTES + TAG_BYTES) return undefined;
  return openGcm(key, wrapped.subarray(0, NONCE_BYTES), wrapped.subarray(NONCE_BYTES), contextBytes(context));
}

function readKey(path: string): Uint8Array {
  // Not "make one" alone: a new key opens no image that there is.
  const hint = 'check its name; ocicrypt-kms keygen FILE makes a new key, which opens new images only';
  let raw: Uint8Array;
  try {
    raw = readSecretFile(path, 'the key file', KEY_BYTES);
  } catch (error) {
    if (!(error instanceof OcicryptError) || error.code !== 'not-found') throw error;
    throw error.with({ hint });
  }
  const fault = raw.length === KEY_BYTES ? findWeakness(raw) : `it must hold exactly ${KEY_BYTES} bytes`;
  if (fault === undefined) return raw;
  wipe(raw);
  throw new OcicryptError('configuration', `${showPath(path)} is not a key file: ${fault}`, { hint });
}

/**
 * Why these are no random bytes, if they plainly are not. Packets and logs show a digest of the key, so that a key that
 * somebody made up can be found by guessing. Of random keys less than one in 10^13 is refused.
 */
function findWeakness(raw: Uint8Array): string | undefined {
  if (raw.every((byte) => byte === raw[0])) return 'its bytes are all the same, and a key must be random';
  if (raw.every(isPrintable)) return 'it holds text, and a key must be random bytes';
  return undefined;
}

function isPrintable(byte: number): boolean {
  return (byte >= 0x20 && byte < 0x7f) || (byte >= 0x09 && byte <= 0x0d);
}

function writeKey(path: string, raw: Uint8Array): void {
  const file = createFile(path);
  try {
    try {
      for (let done = 0, count = -1; done < raw.length; done += count) {
        count = writeSync(file, raw, done);
        if (count === 0) throw new Error('nothing was written');
      }
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    const directory = openSync(dirname(path), constants.O_RDONLY);
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  } catch (cause) {
    throw removeUnfinished(path, cause);
  }
}

function createFile(path: string): number {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') {
      throw new OcicryptError('configuration', `${showPath(path)} exists already`, {
        cause,
        hint: 'a key file is never overwritten: name another file',
      });
    }
    throw new OcicryptError('not-written', `cannot write the key file ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'its directory must exist and be writable',
    });
  }
}

/** It is ours: no half a key may stay where a whole one is expected, nor be in the way of the next attempt. */
function removeUnfinished(path: string, cause: unknown): OcicryptError {
  const message = `cannot write the key file ${showPath(path)}${showSystemCode(cause)}`;
  try {
    rmSync(path);
    return new OcicryptError('not-written', message, {
      cause,
      hint: 'nothing was left: check free space, and run again',
    });
  } catch (error) {
    return new OcicryptError('not-written', `${message}, and it cannot be removed${showSystemCode(error)}`, {
      cause,
      hint: 'it may hold half a key: remove it',
    });
  }
}
