// The one line of an error is often all that a person sees: it names the key, whatever part of the way failed.

import { asOcicryptError, OcicryptError } from '../base/errors.ts';

/**
 * The error of a call for a key. Transport and credentials know a host or a file and nothing of the key, so it is put
 * before their message; an error that names the key already is returned as it is.
 *
 * @param key in canonical form
 */
export function nameKey(error: unknown, key: string): OcicryptError {
  const known = asOcicryptError(error);
  if (known.message.includes(key)) return known;
  const { code, message, hint, retryable, retryAfter } = known;
  return new OcicryptError(code, `key ${key}: ${message}`, {
    ...{ cause: known, retryable },
    ...(hint === undefined ? {} : { hint }),
    ...(retryAfter === undefined ? {} : { retryAfter }),
  });
}
