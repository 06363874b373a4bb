// What many callers of one key share: one call for identical unwraps, the key's rate, what is known of its service, and
// the processor. All of it comes after policy, because keys are opened after it; nothing is kept once callers are answered.

import { createHash } from 'node:crypto';
import { wipe } from '../base/bytes.ts';
import { type Clock, SYSTEM_CLOCK } from '../base/clock.ts';
import { endedBy } from '../base/deadline.ts';
import { SharedRun } from '../base/share.ts';
import { contextBytes, decorate, type EncryptionContext, type Kek, oncePerKek, type WrappedKey } from './kek.ts';
import { type KeyRate, KeyRateLimit } from './key-rate.ts';
import { OutageGuard, type WaitingRoom } from './outage.ts';
import { ProcessorTurns } from './processor-turns.ts';

export type SharingLimits = {
  /** For each key of a service, or all keys that are counted together. */
  readonly rate: KeyRate;
  /** Calls that may wait for services that are down, in all. */
  readonly waiting: number;
};

/** What happened to a call: a closed set, for metrics. */
export const SHARING_EVENTS = ['joined', 'waited', 'limited', 'held'] as const;
/**
 * A call was answered by another caller's, waited for its turn with a key's rate or for the processor, was refused by the
 * rate, or was held back while the service is down.
 */
export type SharingEvent = (typeof SHARING_EVENTS)[number];

/**
 * Makes the function that gives every opened key its shared form, always the same for the same key. A key of a service:
 * identical unwraps in progress share one call, the service is called no more often than its rate, and while it is down
 * by one call at a time. A local key that costs processor time is used by one call at a time; another stays as it is.
 *
 * Keys that are `counted` as the same have one rate: a key, or a prefix that ends with a slash.
 */
export function createKekSharing(
  { rate, waiting }: SharingLimits,
  tell: (event: SharingEvent) => void = () => {},
  clock: Clock = SYSTEM_CLOCK,
): (kek: Kek, counted?: string) => Kek {
  const room: WaitingRoom = { size: waiting, taken: 0 };
  const processor = new ProcessorTurns();
  const limits = new Map<string, KeyRateLimit>();
  const limitOf = (counted: string) => {
    const subject = counted.endsWith('/') ? 'all keys that one prefix allows' : `key ${counted}`;
    const limited = limits.get(counted) ?? new KeyRateLimit(subject, rate, clock);
    limits.set(counted, limited);
    return limited;
  };
  return oncePerKek((kek, counted = kek.key) => {
    if (!kek.local) return shareFlights(limit(kek, limitOf(counted), room, tell, clock), tell);
    return kek.costly ? processor.share(kek, () => tell('waited')) : kek;
  });
}

/** Each call waits until the service is there, and then for its turn. */
function limit(
  kek: Kek,
  limited: KeyRateLimit,
  room: WaitingRoom,
  tell: (event: SharingEvent) => void,
  clock: Clock,
): Kek {
  const guard = new OutageGuard(kek.key, room, clock);
  const guarded = <Value>(signal: AbortSignal, call: () => Promise<Value>) =>
    guard.run(signal, {
      onWait: () => tell('held'),
      ready: () => limited.take(signal, tell),
      call,
    });
  return decorate(kek, {
    wrap: (plaintext, context, signal) => guarded(signal, () => kek.wrap(plaintext, context, signal)),
    unwrap: (wrapped, context, signal) => guarded(signal, () => kek.unwrap(wrapped, context, signal)),
  });
}

function shareFlights(kek: Kek, tell: (event: SharingEvent) => void): Kek {
  const flights = new Map<string, SharedRun<Uint8Array>>();
  return decorate(kek, {
    async unwrap(wrapped, context, signal) {
      const name = flightName(wrapped, context);
      let flight = flights.get(name);
      if (flight === undefined) {
        flight = new SharedRun(signal, async (end) => {
          const plaintext = await kek.unwrap(wrapped, context, end);
          if (!end.aborted) return plaintext;
          // No caller waits any more: what comes now would stay unwiped.
          wipe(plaintext);
          throw endedBy(end);
        });
        flights.set(name, flight);
        // The result itself is given to no caller: each has a copy, made before it is wiped.
        flight.result.then(
          (plaintext) => setImmediate(() => wipe(plaintext)),
          () => {},
        );
      } else tell('joined');
      // Whether they were answered or not, callers leave before another one can come: the last takes the flight away.
      const plaintext = await flight.join(signal, () => flights.delete(name));
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
