// The credentials of a service account's key file: it signs its own tokens (RFC 7523, RS256), without any request.
// https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth
//
// Not by Google's library: its file for this alone costs 1.8 ms of a process that lives for 17.

import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { type NewToken, TokenCache } from '../token-cache.ts';
import type { CredentialsJson } from './credentials-file.ts';

/** Nothing but Cloud KMS: a token that leaks is good for no other service. */
const KMS_SCOPE = 'https://www.googleapis.com/auth/cloudkms';
const LIFETIME_SECONDS = 3600;
/** Renewed this long before its end, so that it does not end on its way. */
const RESERVE_MILLISECONDS = 5 * 60 * 1000;

/**
 * Makes tokens of the key in a `service_account` file.
 *
 * @returns undefined if the file does not hold what it should
 */
export function openServiceAccount(json: CredentialsJson, now?: () => number): TokenCache<string> | undefined {
  const sign = readServiceAccount(json, KMS_SCOPE);
  return sign && new TokenCache(sign, now);
}

/** As {@link openServiceAccount}, a new token each time. @param scope what the token is good for */
export function readServiceAccount(
  json: CredentialsJson,
  scope: string,
): (() => Promise<NewToken<string>>) | undefined {
  const { client_email: email, private_key: pem, private_key_id: keyId } = json;
  if (typeof email !== 'string' || typeof pem !== 'string') return undefined;
  const key = readPrivateKey(pem);
  if (key === undefined) return undefined;
  const header = { alg: 'RS256', typ: 'JWT', ...(typeof keyId === 'string' ? { kid: keyId } : {}) };
  return async () => {
    const issued = Math.floor(Date.now() / 1000);
    const claims = { iss: email, sub: email, scope, iat: issued, exp: issued + LIFETIME_SECONDS };
    const content = `${encode(JSON.stringify(header))}.${encode(JSON.stringify(claims))}`;
    const signature = await signContent(content, key);
    return {
      token: `Bearer ${content}.${signature.toString('base64url')}`,
      lifetime: LIFETIME_SECONDS * 1000,
      reserve: RESERVE_MILLISECONDS,
    };
  };
}

function readPrivateKey(pem: string): KeyObject | undefined {
  try {
    const key = createPrivateKey(pem);
    return key.asymmetricKeyType === 'rsa' ? key : undefined;
  } catch {
    // The error may quote the key.
    return undefined;
  }
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64url');
}

/** Off this thread, which meanwhile prepares the request. */
function signContent(content: string, key: KeyObject): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    sign('sha256', Buffer.from(content), key, (error, signature) => (error ? reject(error) : resolve(signature)));
  });
}
