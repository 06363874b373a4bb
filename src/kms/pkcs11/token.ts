// Finds a token and a key in it.
// https://docs.oasis-open.org/pkcs11/pkcs11-base/v2.40/pkcs11-base-v2.40.html

import { OcicryptError } from '../../base/errors.ts';
import type { Attributes } from '../../base/key-uri.ts';
import { isAbsentToken } from './errors.ts';
import type { Cryptoki, Handle, TokenInfo } from './module.ts';

export type TokenKey =
  | { readonly kind: 'aes'; readonly object: Handle }
  | { readonly kind: 'rsa-private' | 'rsa-public'; readonly object: Handle };

/** What to do with the key: to wrap, its public half is enough. */
export type Purpose = 'unwrap' | 'wrap';

/** Where the operator says the token is: attributes that it has, and the number of its slot (RFC 7512 section 2.3). */
export type TokenPlace = { readonly path: Attributes; readonly slot?: string | undefined };

const CKF_SERIAL_SESSION = 4;
const CKA_CLASS = 0;
const CKA_LABEL = 3;
const CKA_KEY_TYPE = 0x100;
const CKA_ID = 0x102;
const CKO_PUBLIC_KEY = 2;
const CKO_PRIVATE_KEY = 3;
const CKO_SECRET_KEY = 4;
const CKK_RSA = 0;
const CKK_AES = 0x1f;

/**
 * The one token that the URI describes. Other slots may hold what their reader does not recognise: that is no concern
 * of this token.
 *
 * @throws OcicryptError `not-found`, `configuration` if several fit; what the module threw if a slot that may be
 * the one could not be read
 */
export function findSlot(name: string, cryptoki: Cryptoki, { path, slot: number }: TokenPlace): Handle {
  const fitting: Handle[] = [];
  let unread: unknown;
  for (const slot of cryptoki.C_GetSlotList(true)) {
    if (number !== undefined && slotNumber(slot) !== BigInt(number)) continue;
    try {
      if (fits(cryptoki.C_GetTokenInfo(slot), path)) fitting.push(slot);
    } catch (error) {
      if (!isAbsentToken(error)) unread ??= error;
    }
  }
  const [slot] = fitting;
  if (slot === undefined) {
    if (unread !== undefined) throw unread;
    throw new OcicryptError('not-found', `no token here is the one of ${name}`, {
      hint: 'see: pkcs11-tool --module MODULE --list-slots',
    });
  }
  if (fitting.length > 1) {
    throw new OcicryptError('configuration', `${fitting.length} tokens fit ${name}`, {
      hint: 'add token=LABEL or serial=NUMBER to the URI',
    });
  }
  return slot;
}

/** pkcs11js gives a CK_SLOT_ID as its bytes; every machine that it runs on has the lowest first. */
function slotNumber(slot: Handle): bigint {
  return slot.reduceRight((number, byte) => number * 256n + BigInt(byte), 0n);
}

/** Opens a session without a login, which public keys do not need. */
export function openSession(cryptoki: Cryptoki, slot: Handle): Handle {
  return cryptoki.C_OpenSession(slot, CKF_SERIAL_SESSION);
}

/** The key in the token, or undefined if none is visible yet. @throws OcicryptError `configuration` */
export function findKey(
  name: string,
  cryptoki: Cryptoki,
  session: Handle,
  path: Attributes,
  purpose: Purpose,
): TokenKey | undefined {
  const found = [
    ...find(cryptoki, session, path, CKO_SECRET_KEY, CKK_AES).map((object) => ({ kind: 'aes', object }) as const),
    ...(purpose === 'wrap'
      ? find(cryptoki, session, path, CKO_PUBLIC_KEY, CKK_RSA).map(
          (object) => ({ kind: 'rsa-public', object }) as const,
        )
      : find(cryptoki, session, path, CKO_PRIVATE_KEY, CKK_RSA).map(
          (object) => ({ kind: 'rsa-private', object }) as const,
        )),
  ];
  if (found.length > 1) {
    throw new OcicryptError('configuration', `${found.length} keys of the token fit ${name}`, {
      hint: 'add id=%HH or object=LABEL to the URI',
    });
  }
  return found[0];
}

/** `type=` of the URI, by the class of object that it means; a pair has both of its halves. */
const TYPES: ReadonlyMap<string, readonly number[]> = new Map([
  ['secret-key', [CKO_SECRET_KEY]],
  ['private', [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY]],
  ['public', [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY]],
]);

function find(cryptoki: Cryptoki, session: Handle, path: Attributes, objectClass: number, keyType: number): Handle[] {
  const type = path.get('type');
  if (type !== undefined && !TYPES.get(type)?.includes(objectClass)) return [];
  const [label, id] = [path.get('object'), path.get('id')];
  cryptoki.C_FindObjectsInit(session, [
    { type: CKA_CLASS, value: objectClass },
    { type: CKA_KEY_TYPE, value: keyType },
    ...(label === undefined ? [] : [{ type: CKA_LABEL, value: Buffer.from(label, 'latin1') }]),
    ...(id === undefined ? [] : [{ type: CKA_ID, value: Buffer.from(id, 'latin1') }]),
  ]);
  try {
    return cryptoki.C_FindObjects(session, 8);
  } finally {
    cryptoki.C_FindObjectsFinal(session);
  }
}

/** Attributes of the URI are bytes, one to a character; those of tokens are UTF-8, padded with blanks. */
function fits(info: TokenInfo, path: Attributes): boolean {
  const wanted: readonly (readonly [string, string])[] = [
    ['token', info.label],
    ['manufacturer', info.manufacturerID],
    ['model', info.model],
    ['serial', info.serialNumber],
  ];
  return wanted.every(([attribute, value]) => {
    const asked = path.get(attribute);
    return asked === undefined || Buffer.from(value.trimEnd(), 'utf8').toString('latin1') === asked.trimEnd();
  });
}
