// Keys that the key broker of Confidential Containers hands out, as files of the operator's: the same 32 bytes.

import { createSecretKey, type KeyObject } from 'node:crypto';
import { NONCE_BYTES, openGcm, TAG_BYTES } from '../../base/aes-gcm.ts';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import { cannotBeUnwrapped, type Kek } from '../kek.ts';

/** What the operator says about the broker's keys: the file of each, by canonical URI (`kbs:///…`). */
export type KbsSettings = { readonly files: ReadonlyMap<string, string> };

const KEY_BYTES = 32;

/**
 * Opens a key that unwraps what Confidential Containers wrapped: AES-256-GCM, `nonce || ciphertext || tag`, without
 * additional data. It does not wrap: images for such guests are made by their own tools, or with `--packet coco-v2`.
 *
 * @throws OcicryptError `configuration` or `not-found` if there is no such file, or none of 32 bytes
 */
export function openKbsKey(uri: Extract<KeyUri, { scheme: 'kbs' }>, settings: KbsSettings): Kek {
  const key = formatKeyUri(uri);
  const path = settings.files.get(key);
  if (path === undefined) {
    throw new OcicryptError('configuration', `no file is named for ${key}`, {
      hint: `name it: ${setting('kbs.files')}=${key}=FILE`,
    });
  }
  let secret: KeyObject | undefined = readKey(path);
  return {
    local: true,
    key,
    async wrap() {
      throw new OcicryptError('bad-input', `${key} is not wrapped with here`, {
        hint: `a guest that unwraps with AWS KMS reads ${setting('packet')} coco-v2`,
      });
    },
    async unwrap({ algorithm, wrapped }, context) {
      if (secret === undefined) throw new OcicryptError('internal', `${key} is closed`);
      // A v2 packet has a context, which nothing here could bind.
      const fits = algorithm === 'A256GCM' && Object.keys(context).length === 0;
      const plaintext = fits ? unseal(secret, wrapped) : undefined;
      if (plaintext === undefined) throw cannotBeUnwrapped(key);
      return plaintext;
    },
    close() {
      secret = undefined;
    },
  };
}

function readKey(path: string): KeyObject {
  const raw = readSecretFile(path, 'the key file', KEY_BYTES);
  try {
    if (raw.length === KEY_BYTES) return createSecretKey(raw);
  } finally {
    wipe(raw);
  }
  throw new OcicryptError(
    'configuration',
    `${showPath(path)} does not hold a key: it must hold exactly ${KEY_BYTES} bytes`,
    {
      hint: 'it is the file that was registered with the key broker',
    },
  );
}

function unseal(key: KeyObject, wrapped: Uint8Array): Uint8Array | undefined {
  if (wrapped.length <= NONCE_BYTES + TAG_BYTES) return undefined;
  return openGcm(key, wrapped.subarray(0, NONCE_BYTES), wrapped.subarray(NONCE_BYTES));
}
