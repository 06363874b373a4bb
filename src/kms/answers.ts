// What the answers of key services have in common: JSON objects, which arrive whole or are not believed.

import { OcicryptError } from '../base/errors.ts';
import { asObject, type JsonObject, parseJson } from '../base/json.ts';

/** @throws OcicryptError as {@link damagedAnswer} for what is no JSON object */
export function readAnswer(service: string, key: string, body: Uint8Array): JsonObject {
  try {
    const answer = asObject(parseJson(body, 'the answer'));
    if (answer !== undefined) return answer;
  } catch {}
  throw damagedAnswer(service, key, 'not a JSON object');
}

/** The error for an answer that cannot be what the service said: it is discarded, and asked for again. */
export function damagedAnswer(service: string, key: string, how: string): OcicryptError {
  return new OcicryptError('integrity', `the answer of ${service} about ${key} is damaged (${how})`, {
    hint: 'something between here and the service changes data: check the address, proxies and middleboxes',
    retryable: true,
  });
}

/** The JSON object of a token service or helper, or undefined where it is something else. */
export function readObject(body: Uint8Array): JsonObject | undefined {
  try {
    return asObject(parseJson(body, 'the answer'));
  } catch {
    return undefined;
  }
}
