// The one line of an error is often all that a person sees: it names the key, whatever part of the way failed.

import { asOcicryptError, type OcicryptError, withheldFromCallers } from '../base/errors.ts';

/**
 * The error of a call for a key. Transport and credentials know a host or a file and nothing of the key, so it is put
 * before their message; an error that names the key already is returned as it is.
 *
 * @param key in canonical form
 */
export function nameKey(error: unknown, key: string): OcicryptError {
  return asOcicryptError(error).about('key', key, showKey(key));
}

/** A key in canonical form as an error shows it: one that is known by its path only is a file of this machine. */
export function showKey(key: string): string {
  const [, path] = /^keyfile:\/\/(\/.*)$/s.exec(key) ?? [];
  return path === undefined ? key : `keyfile://${withheldFromCallers(path)}`;
}
