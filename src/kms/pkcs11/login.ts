// Logs in to a token: where the PIN comes from, and when none is tried.
// https://docs.oasis-open.org/pkcs11/pkcs11-base/v2.40/pkcs11-base-v2.40.html

import { timingSafeEqual } from 'node:crypto';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { Attributes } from '../../base/key-uri.ts';
import { readSecretText } from '../../base/operator-text.ts';
import { readSecretFile, type SecretPrompt } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { type Cryptoki, type Handle, type OpenModule, returnValue, type TokenInfo } from './module.ts';

/** Where the PIN of a token comes from. */
export type Pkcs11PinSettings = {
  readonly pinFile?: string | undefined;
  /** The name of the environment variable that holds the PIN. */
  readonly pinVariable?: string | undefined;
  readonly environment: NodeJS.ProcessEnv;
  readonly prompt?: SecretPrompt | undefined;
  /** Permits a PIN of the configuration for a token that would lock if it were wrong. */
  readonly finalTry?: boolean | undefined;
  /** Has a person asked for the PIN where that of the configuration is not tried. */
  readonly askInDoubt?: boolean | undefined;
};

const CKU_USER = 1;
const CKF_LOGIN_REQUIRED = 0x4;
const CKF_PROTECTED_AUTHENTICATION_PATH = 0x100;
const CKF_USER_PIN_COUNT_LOW = 0x10000;
const CKF_USER_PIN_FINAL_TRY = 0x20000;
const CKF_USER_PIN_LOCKED = 0x40000;
/** A login holds for every session of the process with the token: CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS. */
const LOGGED_IN = new Set([1, 3]);

/** Tokens whose PIN was wrong in this process: each further try is one nearer to a locked token. */
const refusedTokens = new Set<string>();

/** The token that is to be logged in to, as it is known. */
export type LoginPlace = {
  readonly key: string;
  readonly module: OpenModule;
  readonly slot: Handle;
  readonly session: Handle;
  /** Of the operator's own URI: `pin-source` (RFC 7512 section 2.4). */
  readonly query: Attributes;
};

/** Whether the token says that there is no use for it without a login. */
export function isLoginRequired(cryptoki: Cryptoki, slot: Handle): boolean {
  return (cryptoki.C_GetTokenInfo(slot).flags & CKF_LOGIN_REQUIRED) !== 0;
}

/**
 * Logs in. A PIN of the configuration that was wrong is never tried again: not in this process, and not in the next
 * one either, as far as the token tells that the last try was wrong. A client starts a process for each layer, and
 * tokens lock after three. A person who types the PIN, here or at the token's own pad, decides by himself.
 *
 * @throws OcicryptError `unauthenticated`, `configuration`
 */
export async function logIn(place: LoginPlace, settings: Pkcs11PinSettings): Promise<void> {
  const { key, module, slot, session, query } = place;
  const { cryptoki } = module;
  if (LOGGED_IN.has(cryptoki.C_GetSessionInfo(session).state)) return;
  const info = cryptoki.C_GetTokenInfo(slot);
  if ((info.flags & CKF_USER_PIN_LOCKED) !== 0) throw locked(key);
  if (refusedTokens.has(tokenName(module, info))) throw inDoubt(key, LAST_WAS_WRONG);
  const doubt = doubtOf(info);
  const isConfigured = query.has('pin-source') || settings.pinFile !== undefined || settings.pinVariable !== undefined;
  if (!isConfigured && (info.flags & CKF_PROTECTED_AUTHENTICATION_PATH) !== 0) {
    present(place, info, AT_ITS_OWN_PAD);
    return;
  }
  if (!isConfigured || doubt === undefined || (doubt === NEXT_LOCKS && settings.finalTry === true)) {
    const pin = isConfigured ? readPin(query, settings) : await askPin(key, doubt, settings);
    if (pin === undefined) throw noPin(key);
    try {
      present(place, info, pin);
    } finally {
      wipe(pin);
    }
    return;
  }
  const typed = settings.askInDoubt === true ? await askPin(key, doubt, settings) : undefined;
  if (typed === undefined) throw inDoubt(key, doubt);
  try {
    present(place, info, typed);
    const pin = readPin(query, settings);
    const isSame = pin.length === typed.length && timingSafeEqual(pin, typed);
    wipe(pin);
    if (!isSame) throw otherPin(key);
  } finally {
    wipe(typed);
  }
  // What the token says after the right PIN, it always says.
  if (settings.finalTry !== true && doubtOf(cryptoki.C_GetTokenInfo(slot)) === NEXT_LOCKS) throw alwaysFinal(key);
}

const LAST_WAS_WRONG = 'the last PIN was wrong';
const NEXT_LOCKS = 'the next wrong PIN locks the token';
type Doubt = typeof LAST_WAS_WRONG | typeof NEXT_LOCKS;

/** Tokens with one try alone are at their last from the beginning; some tell the first flag no more beside the second. */
function doubtOf({ flags }: TokenInfo): Doubt | undefined {
  if ((flags & CKF_USER_PIN_COUNT_LOW) !== 0) return LAST_WAS_WRONG;
  return (flags & CKF_USER_PIN_FINAL_TRY) === 0 ? undefined : NEXT_LOCKS;
}

function tokenName({ path }: OpenModule, { serialNumber }: TokenInfo): string {
  return `${path} ${serialNumber}`;
}

const CKR_FUNCTION_CANCELED = 0x50;
const CKR_PIN_INCORRECT = 0xa0;
const CKR_PIN_INVALID = 0xa1;
const CKR_PIN_LEN_RANGE = 0xa2;
const CKR_PIN_LOCKED = 0xa4;
const CKR_USER_ALREADY_LOGGED_IN = 0x100;
const CKR_USER_PIN_NOT_INITIALIZED = 0x102;

/** The standard has a null pointer, which pkcs11js cannot give; modules take an empty PIN for it. */
const AT_ITS_OWN_PAD = new Uint8Array();

function present({ key, module, session }: LoginPlace, info: TokenInfo, pin: Uint8Array): void {
  try {
    module.cryptoki.C_Login(session, CKU_USER, new TextDecoder().decode(pin));
  } catch (cause) {
    switch (returnValue(cause)) {
      case CKR_USER_ALREADY_LOGGED_IN:
        return;
      case CKR_PIN_INCORRECT:
      case CKR_PIN_INVALID:
      case CKR_PIN_LEN_RANGE:
        refusedTokens.add(tokenName(module, info));
        throw new OcicryptError('unauthenticated', `the PIN for the token of ${key} is wrong`, {
          hint: `it is not tried again, because tokens lock: correct it. ${ASK_DOCTOR}`,
        });
      case CKR_PIN_LOCKED:
        throw locked(key);
      case CKR_FUNCTION_CANCELED:
        throw new OcicryptError('unauthenticated', `no PIN was typed at the token of ${key}`, {
          hint: 'the token waits for the PIN at its own pad or window',
        });
      case CKR_USER_PIN_NOT_INITIALIZED:
        throw new OcicryptError('configuration', `the token of ${key} has no user PIN yet`, {
          hint: 'set one: pkcs11-tool --login --login-type so --init-pin',
        });
      default:
        throw cause;
    }
  }
}

const ASK_DOCTOR = 'ocicrypt-kms doctor on a terminal asks for the PIN and logs in with what is typed';

function inDoubt(key: string, doubt: Doubt): OcicryptError {
  return doubt === LAST_WAS_WRONG
    ? new OcicryptError('unauthenticated', `the last PIN for the token of ${key} was wrong: it is not tried again`, {
        hint: `put the right one in its place. ${ASK_DOCTOR}`,
      })
    : new OcicryptError('unauthenticated', `the token of ${key} locks at the next wrong PIN: none is tried`, {
        hint: `${ASK_DOCTOR}; if the token always says so, add ${setting('pkcs11.finalTry')}`,
      });
}

function otherPin(key: string): OcicryptError {
  return new OcicryptError(
    'configuration',
    `the PIN that was typed is right for the token of ${key}, and another is configured`,
    {
      hint: 'put the right one into the file or variable; the token counts wrong PINs anew',
    },
  );
}

function alwaysFinal(key: string): OcicryptError {
  return new OcicryptError(
    'configuration',
    `the PIN is right, and the token of ${key} always says that the next wrong one locks it`,
    {
      hint: `to use it all the same, add ${setting('pkcs11.finalTry')}`,
    },
  );
}

function noPin(key: string): OcicryptError {
  return new OcicryptError('unauthenticated', `there is no PIN for the token of ${key}`, {
    hint: `give it with ${setting('pkcs11.pinFile')}=FILE or ${setting('pkcs11.pinVariable')}=NAME, or run this on a terminal`,
  });
}

function locked(key: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the PIN of the token of ${key} is locked`, {
    hint: 'its security officer can set a new one: pkcs11-tool --login --login-type so --init-pin',
  });
}

/** What a person types; undefined if there is no terminal to ask on, or nothing is typed. */
async function askPin(
  key: string,
  doubt: Doubt | undefined,
  { prompt }: Pkcs11PinSettings,
): Promise<Uint8Array | undefined> {
  const typed = await prompt?.(`${doubt === undefined ? '' : `${doubt}! `}PIN for ${key}: `);
  return typed === undefined || typed.length === 0 ? undefined : typed;
}

const MAXIMUM_PIN_BYTES = 256;

/** The PIN of the configuration. */
function readPin(query: Attributes, settings: Pkcs11PinSettings): Uint8Array {
  const source = query.get('pin-source');
  const file = source === undefined ? settings.pinFile : pinFile(source);
  if (file !== undefined) return readPinText(readSecretFile(file, 'the PIN file', MAXIMUM_PIN_BYTES), 'the PIN file');
  const { pinVariable = '', environment } = settings;
  const pin = environment[pinVariable];
  if (pin)
    return readPinText(new TextEncoder().encode(pin), `the variable that ${setting('pkcs11.pinVariable')} names`);
  // Its name is not shown: it may be the PIN.
  throw new OcicryptError('configuration', `the variable that ${setting('pkcs11.pinVariable')} names is not set`, {
    hint: `set it to the PIN, or name a file with ${setting('pkcs11.pinFile')}`,
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
