// What many callers of one key service share: one call for identical unwraps, and a rate for each key.
// Both come after policy, because keys are opened after it; nothing is kept once its callers are answered.

import { createHash } from 'node:crypto';
import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { SharedRun } from '../base/share.ts';
import { contextBytes, decorate, type EncryptionContext, type Kek, oncePerKek, type WrappedKey } from './kek.ts';

/** Calls that a key may be sent; local keys have no such limit. */
export type KeyRate = {
  /** Each second, in the long run. */
  readonly perSecond: number;
  /** At once, after a pause. */
  readonly burst: number;
};

/** Told when a call was answered by another caller's, or was refused by the rate. */
export type SharedEvents = { readonly joined?: () => void; readonly limited?: () => void };

/**
 * Makes the function that gives every opened key its shared form, always the same for the same key: identical unwraps
 * in progress share one call, and the service is called no more often than `rate`. A local key stays as it is: it
 * costs nothing.
 *
 * @param now a clock in milliseconds
 */
export function createKekSharing(
  rate: KeyRate,
  events: SharedEvents = {},
  now: () => number = () => performance.now(),
): (kek: Kek) => Kek {
  return oncePerKek((kek) => (kek.local ? kek : shareKek(kek, tokenBucket(kek.key, rate, events, now), events)));
}

function shareKek(kek: Kek, takeToken: () => void, events: SharedEvents): Kek {
  const flights = new Map<string, SharedRun<Uint8Array>>();
  return decorate(kek, {
    async wrap(plaintext, context, signal) {
      takeToken();
      return kek.wrap(plaintext, context, signal);
    },
    async unwrap(wrapped, context, signal) {
      const name = flightName(wrapped, context);
      let flight = flights.get(name);
      if (flight === undefined) {
        takeToken();
        const started = new SharedRun(signal, (end) => kek.unwrap(wrapped, context, end));
        flights.set(name, started);
        const land = () => {
          if (flights.get(name) === started) flights.delete(name);
        };
        // The result itself is nobody's: every caller has a copy, made before it is wiped.
        started.result.then((plaintext) => {
          land();
          setImmediate(() => wipe(plaintext));
        }, land);
        flight = started;
      } else events.joined?.();
      const joined = flight;
      const plaintext = await joined.join(signal, () => {
        if (flights.get(name) === joined) flights.delete(name);
      });
      return plaintext.slice();
    },
  });
}

/** Everything that the result depends on; lengths keep neighbours apart. */
function flightName(wrapped: WrappedKey, context: EncryptionContext): string {
  const hash = createHash('sha256');
  const text = JSON.stringify([wrapped.key, wrapped.version ?? null, wrapped.algorithm]);
  for (const part of [new TextEncoder().encode(text), wrapped.wrapped, contextBytes(context)]) {
    hash.update(`${part.length}:`).update(part);
  }
  return hash.digest('base64');
}

function tokenBucket(key: string, rate: KeyRate, events: SharedEvents, now: () => number): () => void {
  let tokens = rate.burst;
  let filled = now();
  return () => {
    const time = now();
    tokens = Math.min(rate.burst, tokens + ((time - filled) / 1000) * rate.perSecond);
    filled = time;
    if (tokens < 1) {
      events.limited?.();
      throw new OcicryptError('throttled', `key ${key} is asked for more than ${rate.perSecond} times a second`, {
        hint: 'try again later, or raise --key-rate',
        retryable: true,
        retryAfter: Math.ceil(((1 - tokens) / rate.perSecond) * 1000),
      });
    }
    tokens--;
  };
}
