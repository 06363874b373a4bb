// What a token's refusal means here. The values are PKCS #11 2.40's CKR_ constants, section 5.1.

import { type ErrorCode, OcicryptError } from '../../base/errors.ts';
import { returnValue } from './module.ts';

const CKR_DEVICE_ERROR = 0x30;
const CKR_DEVICE_REMOVED = 0x32;
const CKR_KEY_HANDLE_INVALID = 0x60;
const CKR_OPERATION_ACTIVE = 0x90;
const CKR_SESSION_CLOSED = 0xb0;
const CKR_SESSION_HANDLE_INVALID = 0xb3;
const CKR_TOKEN_NOT_PRESENT = 0xe0;
const CKR_TOKEN_NOT_RECOGNIZED = 0xe1;
const CKR_USER_NOT_LOGGED_IN = 0x101;

/** After these a new session may do it. */
const LOST: ReadonlySet<number | undefined> = new Set([
  CKR_DEVICE_ERROR,
  CKR_DEVICE_REMOVED,
  CKR_KEY_HANDLE_INVALID,
  CKR_OPERATION_ACTIVE,
  CKR_SESSION_CLOSED,
  CKR_SESSION_HANDLE_INVALID,
  CKR_TOKEN_NOT_PRESENT,
  CKR_USER_NOT_LOGGED_IN,
]);

const CKR_ARGUMENTS_BAD = 0x7;
const CKR_DATA_LEN_RANGE = 0x21;
const CKR_FUNCTION_NOT_SUPPORTED = 0x54;
const CKR_KEY_TYPE_INCONSISTENT = 0x63;
const CKR_KEY_FUNCTION_NOT_PERMITTED = 0x68;
const CKR_MECHANISM_INVALID = 0x70;
const CKR_MECHANISM_PARAM_INVALID = 0x71;

/** Whether the session is of no use any more. */
export function sessionIsLost(error: unknown): boolean {
  return LOST.has(returnValue(error));
}

/** Whether the slot holds nothing that its module can speak to. */
export function isAbsentToken(error: unknown): boolean {
  return returnValue(error) === CKR_TOKEN_NOT_RECOGNIZED;
}

/** Whether the token wants a login first, whatever it said before. */
export function wantsLogin(error: unknown): boolean {
  return returnValue(error) === CKR_USER_NOT_LOGGED_IN;
}

/** Whether the token has the mechanism, but not with these parameters. */
export function isUnknownParameter(error: unknown): boolean {
  const value = returnValue(error);
  return value === CKR_ARGUMENTS_BAD || value === CKR_MECHANISM_PARAM_INVALID;
}

/** Whether the token leaves encryption with public keys to others. */
export function isUnusable(error: unknown): boolean {
  const value = returnValue(error);
  return (
    value === CKR_FUNCTION_NOT_SUPPORTED || value === CKR_MECHANISM_INVALID || value === CKR_KEY_FUNCTION_NOT_PERMITTED
  );
}

/** The error for what the token or its module threw; our own errors as they are. */
export function explainPkcs11Error(error: unknown, key: string): OcicryptError {
  if (error instanceof OcicryptError) return error;
  const value = returnValue(error);
  const fail = (code: ErrorCode, message: string, hint: string, retryable = false) =>
    new OcicryptError(code, message, { cause: error, hint, retryable });
  switch (value) {
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
      return fail('refused', `the token does not permit this with ${key}`, 'the key needs CKA_ENCRYPT and CKA_DECRYPT');
    case CKR_KEY_TYPE_INCONSISTENT:
    case CKR_MECHANISM_INVALID:
    case CKR_MECHANISM_PARAM_INVALID:
      return fail(
        'configuration',
        `the token of ${key} has neither AES-GCM nor RSA-OAEP for it`,
        'use an RSA key if the token has no AES-GCM, as TPMs; see: pkcs11-tool --module MODULE --list-mechanisms',
      );
    case CKR_DATA_LEN_RANGE:
      return fail('bad-input', `${key} takes less than that`, 'packets of format v2 wrap 32 bytes only');
    default:
      return fail(
        'unavailable',
        `the token of ${key} failed${value === undefined ? '' : ` (CKR 0x${value.toString(16)})`}`,
        'see: pkcs11-tool --module MODULE --list-slots',
        sessionIsLost(error),
      );
  }
}
