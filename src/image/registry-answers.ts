// What a registry's answers come to: their bodies, read within bounds, and the errors of those that are no success.

import { concatBytes } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { parseRetryAfter } from '../base/http.ts';
import type { StreamResponse } from '../base/http-stream.ts';

/** Reads an answer that says nothing, so that its connection can be used again. */
export async function drain(response: StreamResponse): Promise<void> {
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length <= 65_536) continue;
    response.discard();
    return;
  }
}

/** Reads the body of an answer. @throws OcicryptError `bad-input` for more than `maximum` bytes, `unavailable` */
export async function readBody(response: StreamResponse, maximum: number, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length > maximum) {
      response.discard();
      throw new OcicryptError('bad-input', `${name} answered with more than ${maximum} bytes`);
    }
    // The stream takes the chunk back.
    chunks.push(Uint8Array.from(chunk));
  }
  return concatBytes(...chunks);
}

/** The error of an answer that has to do with no right and no name: the server is busy, broken, or of another kind. */
export function refusalOf({ status, headers }: StreamResponse, name: string): OcicryptError {
  const retryAfter = parseRetryAfter(headers);
  const details = {
    retryable: true,
    hint: 'try again later',
    ...(retryAfter === undefined ? {} : { retryAfter }),
  };
  if (status === 429) return new OcicryptError('throttled', `${name} is being asked too often`, details);
  if (status >= 500) return new OcicryptError('unavailable', `${name} fails (${status})`, details);
  return new OcicryptError('unavailable', `${name} does not take this request (${status})`);
}
