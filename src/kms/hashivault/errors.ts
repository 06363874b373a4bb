// What a refusal of Vault or OpenBao means here, and what the operator should do about it.
// https://developer.hashicorp.com/vault/api-docs#http-status-codes

import { type ErrorCode, type ErrorDetails, OcicryptError } from '../../base/errors.ts';
import { parseRetryAfter } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asArray, asText, readObject } from '../../base/json.ts';
import type { KeyUri } from '../../base/key-uri.ts';
import { foreignAnswer } from '../answers.ts';
import { cannotBeUnwrapped } from '../kek.ts';

/** The call that was refused. */
export type VaultCall = {
  /** The canonical URI of the operator's key. */
  readonly key: string;
  readonly uri: Extract<KeyUri, { scheme: 'hashivault' }>;
  readonly method: 'decrypt' | 'encrypt';
};

/**
 * A token that is unknown or has ended: OpenBao says so bare, and Vault beside it. What a policy forbids stands in a list
 * of one.
 */
const NO_TOKEN = /^permission denied$|invalid token|bad token/;

/** Whether the answer says that this key's cipher has no place for associated data. */
export function isNotAead(answer: HttpResponse): boolean {
  return answer.status === 400 && /associated_data.*non-AEAD/i.test(readErrors(answer.body) ?? '');
}

/** The error for an answer that is not 200. The service's own text is looked at and never repeated. */
export function explainVaultError(answer: HttpResponse, call: VaultCall): OcicryptError {
  const { key, method, uri } = call;
  const text = readErrors(answer.body);
  const mount = uri.engine ?? 'transit';
  const retryAfter = parseRetryAfter(answer.headers);
  const fail = (code: ErrorCode, message: string, details: ErrorDetails) => new OcicryptError(code, message, details);
  const later = (code: ErrorCode, message: string, hint: string) =>
    fail(code, message, { hint, retryable: true, retryAfter });

  switch (answer.status) {
    case 400:
      return explainBadRequest(text, call);
    case 403:
      if (text === undefined) return notVault(key, 403);
      if (NO_TOKEN.test(text)) {
        return fail('unauthenticated', `Vault does not know the token for ${key}, or not any more`, {
          hint: 'renew it with: vault login (or bao login); it may also be of another namespace, or bound to another address',
        });
      }
      return fail('refused', `Vault does not permit this token to ${method} with ${key}`, {
        hint: `its policy needs: path "${mount}/${method}/${uri.key}" { capabilities = ["update"] }; Vault answers the same if the key is missing`,
      });
    case 404:
    case 405:
      if (text === undefined) return notVault(key, answer.status);
      return fail('not-found', `there is no key ${key}`, {
        hint: `no transit engine is mounted as ${mount} in this namespace; see: vault secrets list`,
      });
    case 412:
      if (text === undefined) return notVault(key, 412);
      return later('unavailable', `this server of Vault is not up to date yet for ${key} (412)`, 'try again');
    case 413:
      return fail('bad-input', `Vault takes no request of this size for ${key}`, {});
    case 429:
      return later(
        'throttled',
        `Vault is throttling calls for ${key}`,
        'try again later, or raise its rate limit quota',
      );
    case 472:
    case 473:
      return later(
        'unavailable',
        `this server of Vault is on standby (${answer.status}) for ${key}`,
        'name the active server, or the load balancer before it, in VAULT_ADDR',
      );
    case 501:
      if (text === undefined) return notVault(key, 501);
      return fail('unavailable', `this server of Vault is not initialised, asked for ${key}`, {
        hint: 'check the address; vault operator init makes a new one',
      });
    case 503:
      return later(
        'unavailable',
        `Vault is sealed or in maintenance, asked for ${key} (503)`,
        'vault status shows which; vault operator unseal opens it',
      );
    case 500:
      if (text !== undefined && /RSA decrypt/.test(text)) {
        return cannotBeUnwrapped(key);
      }
      if (text !== undefined && /message too long/.test(text)) return tooLong(key);
      return later('unavailable', `Vault failed for ${key} (500)`, 'try again later; its own log says why');
    case 408:
    case 502:
    case 504:
      return later('unavailable', `Vault is unavailable for ${key} (${answer.status})`, 'try again later');
    default:
      return notVault(key, answer.status);
  }
}

function explainBadRequest(text: string | undefined, { key, method, uri }: VaultCall): OcicryptError {
  const mount = uri.engine ?? 'transit';
  if (text === undefined) return notVault(key, 400);
  if (/encryption key not found|key type .* not supported for this operation|unknown key type/.test(text)) {
    return new OcicryptError('not-found', `there is no key ${key}`, {
      hint: `make it with: vault write -f ${mount}/keys/${uri.key}`,
    });
  }
  if (/soft.?deleted/i.test(text)) {
    return new OcicryptError('key-disabled', `${key} is deleted, and can be restored`, {
      hint: `vault write -f ${mount}/keys/${uri.key}/soft-delete-restore`,
    });
  }
  if (/too old/.test(text)) {
    return new OcicryptError('key-disabled', `the version of ${key} that was used is no longer allowed`, {
      hint: `lower it with: vault write ${mount}/keys/${uri.key}/config min_decryption_version=N`,
    });
  }
  // Nothing of this machine is wrong with a packet that names such a key.
  const unsuitable = method === 'decrypt' ? 'refused' : 'configuration';
  if (/key derivation|missing 'context'/.test(text)) {
    return new OcicryptError(unsuitable, `${key} is a derived key, which is not supported`, {
      hint: `make one without derivation: vault write -f ${mount}/keys/NAME`,
    });
  }
  if (/not supported for key type|unsupported key type/.test(text)) {
    return new OcicryptError(unsuitable, `${key} cannot ${method}: its type is for something else`, {
      hint: `types that can are aes256-gcm96, chacha20-poly1305 and rsa-4096; see: vault read ${mount}/keys/${uri.key}`,
    });
  }
  if (/message too long/.test(text)) return tooLong(key);
  if (method === 'decrypt') return cannotBeUnwrapped(key);
  return new OcicryptError('configuration', `${key} cannot encrypt this`, {
    hint: `see: vault read ${mount}/keys/${uri.key}`,
  });
}

function tooLong(key: string): OcicryptError {
  return new OcicryptError('bad-input', `${key} is an RSA key, which takes less than that`, {
    hint: 'packets of format v2 wrap 32 bytes only',
  });
}

export function notVault(key: string, status: number): OcicryptError {
  return foreignAnswer('Vault', key, status, 'VAULT_ADDR');
}

/** The lines of `{"errors": [...]}`, or undefined if the body is something else. */
export function readErrors(body: Uint8Array): string | undefined {
  const errors = asArray(readObject(body)?.get('errors'));
  return errors?.map((line) => asText(line) ?? '').join('\n');
}
