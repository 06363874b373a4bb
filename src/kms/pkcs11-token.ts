// The only code that finds a token, logs in to it and finds a key in it.
// https://docs.oasis-open.org/pkcs11/pkcs11-base/v2.40/pkcs11-base-v2.40.html

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import type { Attributes } from '../base/key-uri.ts';
import { readSecretText } from '../base/operator-text.ts';
import { readSecretFile, type SecretPrompt } from '../base/secret-file.ts';
import { showPath } from '../base/shown.ts';
import { type Cryptoki, type Handle, type OpenModule, returnValue, type TokenInfo } from './pkcs11-module.ts';

export type Pkcs11PinSettings = {
  readonly pinFile?: string | undefined;
  /** The name of the environment variable that holds the PIN. */
  readonly pinVariable?: string | undefined;
  readonly environment: NodeJS.ProcessEnv;
  readonly prompt?: SecretPrompt | undefined;
};

export type TokenKey =
  | { readonly kind: 'aes'; readonly object: Handle }
  | { readonly kind: 'rsa-private' | 'rsa-public'; readonly object: Handle };

/** What to do with the key: to wrap, its public half is enough. */
export type Purpose = 'unwrap' | 'wrap';

const CKF_SERIAL_SESSION = 4;
const CKU_USER = 1;
const CKF_USER_PIN_COUNT_LOW = 0x10000;
const CKF_USER_PIN_FINAL_TRY = 0x20000;
const CKF_USER_PIN_LOCKED = 0x40000;
const CKR_USER_ALREADY_LOGGED_IN = 0x100;
/** A login holds for every session of the process with the token: CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS. */
const LOGGED_IN = new Set([1, 3]);
const CKA_CLASS = 0;
const CKA_LABEL = 3;
const CKA_KEY_TYPE = 0x100;
const CKA_ID = 0x102;
const CKO_PUBLIC_KEY = 2;
const CKO_PRIVATE_KEY = 3;
const CKO_SECRET_KEY = 4;
const CKK_RSA = 0;
const CKK_AES = 0x1f;

/** Tokens whose PIN was wrong in this process: each further try is one nearer to a locked token. */
const refusedTokens = new Set<string>();

/** The one token that the URI describes. @throws OcicryptError `not-found`, `configuration` where several fit */
export function findSlot(name: string, cryptoki: Cryptoki, path: Attributes): Handle {
  const fitting = cryptoki.C_GetSlotList(true).filter((slot) => fits(cryptoki.C_GetTokenInfo(slot), path));
  const [slot] = fitting;
  if (slot === undefined) {
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

/** Opens a session without a login, which public keys do not need. */
export function openSession(cryptoki: Cryptoki, slot: Handle): Handle {
  return cryptoki.C_OpenSession(slot, CKF_SERIAL_SESSION);
}

/**
 * Logs in. A PIN that was wrong is never tried again: not in this process, and not in the next one either, as far as
 * the token tells that the last try was wrong. A client starts a process for each layer, and tokens lock after three.
 *
 * @throws OcicryptError `unauthenticated`, `configuration`
 */
export async function logIn(
  name: string,
  module: OpenModule,
  slot: Handle,
  session: Handle,
  query: Attributes,
  settings: Pkcs11PinSettings,
): Promise<void> {
  const { cryptoki } = module;
  if (LOGGED_IN.has(cryptoki.C_GetSessionInfo(session).state)) return;
  const info = cryptoki.C_GetTokenInfo(slot);
  const token = `${module.path} ${info.serialNumber}`;
  if (refusedTokens.has(token) || (info.flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY)) !== 0) {
    throw new OcicryptError(
      'unauthenticated',
      `the last PIN for the token of ${name} was wrong: it is not tried again`,
      {
        hint: `put the right one in its place and log in once by hand: pkcs11-tool --module ${showPath(module.path)} --login --list-objects`,
      },
    );
  }
  if ((info.flags & CKF_USER_PIN_LOCKED) !== 0) throw locked(name);
  const pin = await readPin(name, query, settings);
  try {
    cryptoki.C_Login(session, CKU_USER, new TextDecoder().decode(pin));
  } catch (cause) {
    explainLogin(name, token, cause);
  } finally {
    wipe(pin);
  }
}

const CKR_PIN_INCORRECT = 0xa0;
const CKR_PIN_INVALID = 0xa1;
const CKR_PIN_LEN_RANGE = 0xa2;
const CKR_PIN_LOCKED = 0xa4;

function explainLogin(name: string, token: string, cause: unknown): void {
  switch (returnValue(cause)) {
    case CKR_USER_ALREADY_LOGGED_IN:
      return;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
      refusedTokens.add(token);
      throw new OcicryptError('unauthenticated', `the PIN for the token of ${name} is wrong`, {
        hint: 'it is not tried again, because tokens lock: correct it, and log in once by hand',
      });
    case CKR_PIN_LOCKED:
      throw locked(name);
    default:
      throw cause;
  }
}

function locked(name: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the PIN of the token of ${name} is locked`, {
    hint: 'its security officer can set a new one: pkcs11-tool --login --login-type so --init-pin',
  });
}

/** The key in the token, or undefined where none is visible yet. @throws OcicryptError `configuration` */
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

const MAXIMUM_PIN = 256;

async function readPin(name: string, query: Attributes, settings: Pkcs11PinSettings): Promise<Uint8Array> {
  const source = query.get('pin-source');
  const file = source === undefined ? settings.pinFile : pinFile(source);
  if (file !== undefined) return readPinText(readSecretFile(file, 'the PIN file', MAXIMUM_PIN), 'the PIN file');
  const { pinVariable, environment, prompt } = settings;
  if (pinVariable !== undefined) {
    const pin = environment[pinVariable];
    if (pin) return readPinText(new TextEncoder().encode(pin), 'the variable that --pkcs11-pin-env names');
    // Its name is not shown: it may be the PIN.
    throw new OcicryptError('configuration', 'the variable that --pkcs11-pin-env names is not set', {
      hint: 'set it to the PIN, or name a file with --pkcs11-pin-file',
    });
  }
  const typed = await prompt?.(`PIN for ${name}: `);
  if (typed !== undefined && typed.length > 0) return typed;
  throw new OcicryptError('unauthenticated', `there is no PIN for the token of ${name}`, {
    hint: 'give it with --pkcs11-pin-file=FILE or --pkcs11-pin-env=NAME, or run this on a terminal',
  });
}

/** Checked before the token sees it: what slipped in beside the PIN would burn a try. */
function readPinText(bytes: Uint8Array, what: string): Uint8Array {
  const read = readSecretText(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes));
  wipe(bytes);
  if (typeof read === 'string') return new TextEncoder().encode(read);
  throw new OcicryptError('configuration', `${what} ${read.problem}`, { hint: read.hint });
}

/** `file:` and a whole path; commands, which RFC 7512 section 2.4 permits too, are never run. */
function pinFile(source: string): string {
  const path = source.replace(/^file:(?:\/\/(?=\/))?/, '');
  if (path.startsWith('/')) return path;
  throw new OcicryptError('configuration', 'pin-source is not a file', { hint: 'it looks like file:/run/secrets/pin' });
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
