// What a token of Azure is, and how every service that gives one writes it.

import { OcicryptError } from '../../base/errors.ts';
import { asNumber, asText, type JsonObject, type JsonValue } from '../../base/json.ts';

/** An access token and how long it lives, in milliseconds. */
export type AzureToken = { readonly access: string; readonly lifetime: number };

/** Asks for a token; its signal ends it. */
export type AzureTokenSource = (signal: AbortSignal) => Promise<AzureToken>;

/**
 * The token in an answer, of whichever service: they give its end as seconds from now or since 1970, as a number, text or
 * date.
 *
 * @throws OcicryptError `unauthenticated`
 */
export function readToken(source: string, message: JsonObject | undefined): AzureToken {
  const access = asText(message?.get('access_token')) ?? '';
  const seconds = Number(asText(message?.get('expires_in')) ?? asNumber(message?.get('expires_in')) ?? Number.NaN);
  const lifetime = Number.isNaN(seconds) ? readEnd(message?.get('expires_on')) - Date.now() : seconds * 1000;
  if (/^[!-~]{1,16384}$/.test(access) && !Number.isNaN(lifetime)) return { access, lifetime };
  throw new OcicryptError('unauthenticated', `something that is not ${source} answered`, {
    hint: 'check the address and the proxy: no token is in the answer',
  });
}

/** Seconds since 1970 as a number or text, or a date; in milliseconds, or not a number. */
export function readEnd(value: JsonValue | undefined): number {
  const seconds = asNumber(value);
  if (seconds !== undefined) return seconds * 1000;
  const text = asText(value) ?? '';
  return /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text);
}

/** The error for an identity that is configured in part. */
export function incomplete(name: string): OcicryptError {
  return new OcicryptError('configuration', `the Azure identity lacks ${name}`, {
    hint: 'set AZURE_TENANT_ID, AZURE_CLIENT_ID and one of AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE',
  });
}
