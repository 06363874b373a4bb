// How a token encrypts and decrypts: AES-GCM and RSA-OAEP, with their parameters in each shape that tokens take.

import { wipe } from '../../base/bytes.ts';
import { cannotBeUnwrapped, contextBytes, type EncryptionContext } from '../kek.ts';
import { isUnknownParameter, sessionIsLost } from './errors.ts';
import type { Handle, Mechanism, OpenModule, ParameterTypes } from './module.ts';

export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
/** RSA of 16384 bits, or 4 KiB and what AES-GCM adds. */
export const MAXIMUM_WRAPPED_BYTES = 8 * 1024;
export const GCM = 'AES-GCM';
export const OAEP = { sha256: 'RSA-OAEP-SHA256', sha1: 'RSA-OAEP-SHA1' } as const;
export type Hash = keyof typeof OAEP;

/** A key of the token in a session, and the mechanism to use it with, in each shape that tokens take. */
export type KeyUse = { readonly handle: Handle; readonly object: Handle; readonly mechanisms: readonly Mechanism[] };

export async function encrypt(
  { cryptoki }: OpenModule,
  { handle, object, mechanisms }: KeyUse,
  plaintext: Uint8Array,
  room: number,
): Promise<Uint8Array> {
  begin(mechanisms, (mechanism) => cryptoki.C_EncryptInit(handle, mechanism, object));
  const input = Buffer.from(plaintext);
  try {
    return Uint8Array.from(await cryptoki.C_EncryptAsync(handle, input, Buffer.alloc(room)));
  } finally {
    wipe(input);
  }
}

export async function decrypt(
  key: string,
  { cryptoki }: OpenModule,
  { handle, object, mechanisms }: KeyUse,
  input: Uint8Array,
): Promise<Uint8Array> {
  begin(mechanisms, (mechanism) => cryptoki.C_DecryptInit(handle, mechanism, object));
  const output = Buffer.alloc(MAXIMUM_WRAPPED_BYTES);
  try {
    return Uint8Array.from(await cryptoki.C_DecryptAsync(handle, Buffer.from(input), output));
  } catch (error) {
    throw sessionIsLost(error) ? error : cannotBeUnwrapped(key);
  } finally {
    wipe(output);
  }
}

export const CKM_RSA_PKCS_OAEP = 9;
const CKM_SHA_1 = 0x220;
const CKM_SHA256 = 0x250;
const CKM_AES_GCM = 0x1087;
const CKG_MGF1_SHA1 = 1;
const CKG_MGF1_SHA256 = 2;
const CKZ_DATA_SPECIFIED = 1;

/** The parameters in both of their shapes: a token takes the one that its header was made with. */
export function gcm(types: ParameterTypes, nonce: Uint8Array, context: EncryptionContext): readonly Mechanism[] {
  const parameter = {
    iv: Buffer.from(nonce),
    aad: Buffer.from(contextBytes(context)),
    ivBits: NONCE_BYTES * 8,
    tagBits: TAG_BYTES * 8,
  };
  return [types.CK_PARAMS_AES_GCM, types.CK_PARAMS_AES_GCM_v240].map((type) => ({
    mechanism: CKM_AES_GCM,
    parameter: { type, ...parameter },
  }));
}

/** The packet names the hash. */
export function oaep({ CK_PARAMS_RSA_OAEP: type }: ParameterTypes, algorithm: string): readonly Mechanism[] {
  const [hashAlg, mgf] = algorithm === OAEP.sha1 ? [CKM_SHA_1, CKG_MGF1_SHA1] : [CKM_SHA256, CKG_MGF1_SHA256];
  return [{ mechanism: CKM_RSA_PKCS_OAEP, parameter: { type, hashAlg, mgf, source: CKZ_DATA_SPECIFIED } }];
}

/** Begins an operation with the first of several mechanisms that the token takes. */
function begin(mechanisms: readonly Mechanism[], init: (mechanism: Mechanism) => void): void {
  for (const [index, mechanism] of mechanisms.entries()) {
    try {
      init(mechanism);
      return;
    } catch (error) {
      if (!isUnknownParameter(error) || index === mechanisms.length - 1) throw error;
    }
  }
}
