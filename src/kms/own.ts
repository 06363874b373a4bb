// Opens keys of schemes that a program of the library's user implements, and holds those keys to their contract.

import { OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type OwnKeyUri } from '../base/key-uri.ts';
import { decorate, type Kek, MAXIMUM_WRAPPED_KEY_BYTES, PACKET_TERM, type WrappedKey } from './kek.ts';

/**
 * Opens a key of one's own, if policy allows it: for each key once, until the store closes it.
 *
 * @param uri the key that the operator named; its `value` is what stands after `x-NAME:`
 */
export type OpenOwnKey = (uri: OwnKeyUri) => Kek | Promise<Kek>;

/** By scheme, as in `{ 'x-acme': open }`. */
export type OwnSchemes = Readonly<Record<`x-${string}`, OpenOwnKey>>;

/**
 * @throws OcicryptError `configuration` if nothing opens keys of this scheme; `internal` if what opens them breaks the
 *   contract of `Kek` in a way that would lose an image
 */
export async function openOwnKey(uri: OwnKeyUri, schemes: OwnSchemes): Promise<Kek> {
  const key = formatKeyUri(uri);
  const open = Object.hasOwn(schemes, uri.scheme) ? schemes[uri.scheme] : undefined;
  if (open === undefined) {
    throw new OcicryptError('configuration', `nothing here opens keys of ${uri.scheme}`, {
      hint: 'the library opens them with code of your own (docs/library.md), the command does not',
    });
  }
  const kek = await open(uri);
  if (kek.key !== key) throw broken(key, 'it calls itself by another name');
  return decorate(kek, {
    wrap: async (plaintext, context, signal) => checkWrapped(key, await kek.wrap(plaintext, context, signal)),
  });
}

/** A packet with another key's name, or with a member that no reader takes, would open nowhere. */
function checkWrapped(key: string, wrapped: WrappedKey): WrappedKey {
  const { algorithm, version } = wrapped;
  const { length } = wrapped.wrapped;
  if (wrapped.key !== key) throw broken(key, 'it wraps under the name of another key');
  if (!PACKET_TERM.test(algorithm)) throw broken(key, 'its algorithm is not 1 to 64 of A-Z a-z 0-9 _ . + : -');
  if (version !== undefined && !PACKET_TERM.test(version))
    throw broken(key, 'its version is not 1 to 64 of A-Z a-z 0-9 _ . + : -');
  if (length === 0 || length > MAXIMUM_WRAPPED_KEY_BYTES)
    throw broken(key, `it wraps to ${length} bytes, and 1 to ${MAXIMUM_WRAPPED_KEY_BYTES} are possible`);
  return wrapped;
}

function broken(key: string, why: string): OcicryptError {
  return new OcicryptError('internal', `key ${key} cannot be used: ${why}`, {
    hint: 'its code breaks the contract of Kek (docs/library.md)',
  });
}
