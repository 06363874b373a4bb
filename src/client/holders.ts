// Several who may open a layer key, tried in order, as one.

import { combineErrors } from '../base/combine.ts';
import { asOcicryptError, type ErrorCode, OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper, WrappedLayerKey } from './layer-keys.ts';

/** One who may open some kinds of wrapped keys. */
export interface KeyHolder {
  /** Whether wrapped keys of this scheme are worth asking about. */
  opens(scheme: string): boolean;
  /** @returns the layer-key record, which the caller wipes. @throws OcicryptError if this one cannot be opened */
  open(key: WrappedLayerKey, signal: AbortSignal): Promise<Uint8Array>;
}

/**
 * How often holders may fail for each key that they opened, and at first: a hostile image has up to 64 wrapped keys a
 * layer, and each of them may cost a key service a call. A refusal by the operator's own rules costs nothing.
 */
const FAILURES = { first: 64, each: 8 } as const;
/** For one layer: each has taken as long as a request may. */
const MAXIMUM_SLOW = 4;
const SLOW: ReadonlySet<ErrorCode> = new Set(['deadline-exceeded', 'throttled', 'unavailable']);

/**
 * Asks each holder about each key that it may open, in their order, until one is open. In all it gives up after so many
 * failures that only a hostile image has them.
 *
 * @param holders in the order in which they are asked
 * @param missing what to do if no holder is for any of the keys
 * @throws nothing; what it makes throws what the last holders threw, or `not-allowed`
 * @example
 * const keys = createUnwrapper([createJweHolder(['private.pem'])], 'name a private key');
 */
export function createUnwrapper(holders: readonly KeyHolder[], missing: string): LayerKeyUnwrapper {
  let failed = 0;
  let opened = 0;
  return {
    async unwrap(keys, signal) {
      const failures: OcicryptError[] = [];
      for (const holder of holders) {
        for (const key of keys.filter(({ scheme }) => holder.opens(scheme))) {
          if (failed > FAILURES.first + FAILURES.each * opened) throw tooMany(failed);
          try {
            const record = await holder.open(key, signal);
            opened++;
            return record;
          } catch (error) {
            signal.throwIfAborted();
            const failure = asOcicryptError(error);
            failures.push(failure);
            const slow = failures.filter(({ code }) => SLOW.has(code));
            if (slow.length >= MAXIMUM_SLOW) throw combineErrors(failures, 'no key opened the layer');
            if (failure.code !== 'not-allowed') failed++;
          }
        }
      }
      if (failures.length === 0) throw noHolder(keys, missing);
      throw combineErrors(failures, 'no key opened the layer');
    },
  };
}

function tooMany(failed: number): OcicryptError {
  return new OcicryptError('bad-input', `${failed} wrapped keys of this image did not open, and no more are tried`, {
    hint: 'if it can be trusted, rewrap it for one key; ocicrypt-kms inspect shows what it is wrapped for',
  });
}

function noHolder(keys: readonly WrappedLayerKey[], missing: string): OcicryptError {
  const schemes = [...new Set(keys.map(({ scheme }) => scheme))].slice(0, SHOWN).join(', ');
  return new OcicryptError('not-allowed', `no key for what the layer is encrypted to (${schemes})`, { hint: missing });
}

const SHOWN = 4;
