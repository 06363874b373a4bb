// What the answers of key services have in common: JSON objects, which arrive whole or are not believed.

import { OcicryptError } from '../base/errors.ts';
import { parseRetryAfter } from '../base/http/client.ts';
import type { HttpResponse } from '../base/http/contract.ts';
import { type JsonObject, readObject } from '../base/json.ts';

/** @throws OcicryptError as {@link foreignAnswer} for a page, as {@link damagedAnswer} for what else is no JSON object */
export function readAnswer(service: string, key: string, body: Uint8Array): JsonObject {
  const answer = readObject(body);
  if (answer !== undefined) return answer;
  throw isPage(body) ? foreignAnswer(service, key, 200) : damagedAnswer(service, key, 'not a JSON object');
}

/** Whether it is HTML or XML: what a login page, a captive portal or a proxy answers with, whatever the status. */
export function isPage(body: Uint8Array): boolean {
  return new TextDecoder().decode(body.subarray(0, 256)).trimStart().startsWith('<');
}

/**
 * The error for an answer of something else than the service: a proxy, a portal, another server. It is final: portals and
 * pages of logins stay, and the pages of maintenance, which pass, have status 503.
 */
export function foreignAnswer(service: string, key: string, status: number, address = 'the endpoint'): OcicryptError {
  return new OcicryptError('unavailable', `something that is not ${service} answered for ${key} (${status})`, {
    hint: `check ${address} and the proxy`,
  });
}

/** The error for an answer that cannot be what the service said: it is discarded, and asked for again. */
export function damagedAnswer(service: string, key: string, how: string): OcicryptError {
  return new OcicryptError('integrity', `the answer of ${service} about ${key} is damaged (${how})`, {
    hint: 'something between here and the service changes data: check the address, proxies and middleboxes',
    retryable: true,
  });
}

/**
 * The error for a source of credentials that may give them later, or undefined if its answer is final.
 *
 * @param source as it stands in errors: `the token service sts.amazonaws.com`
 * @param what it does not give: `token`
 * @param passing statuses that pass there, beside those that pass everywhere
 */
export function notNow(
  source: string,
  what: string,
  { headers, status }: HttpResponse,
  passing: readonly number[] = [],
): OcicryptError | undefined {
  if (status !== 408 && status !== 429 && status < 500 && !passing.includes(status)) return undefined;
  const retryAfter = parseRetryAfter(headers);
  return new OcicryptError('unavailable', `${source} gives no ${what} now (${status})`, {
    hint: 'try again later',
    retryable: true,
    retryAfter,
  });
}
