// Health: alive as long as calls are answered, ready once a real probe of the keys has passed.
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md

import { randomBytes } from 'node:crypto';
import { withAttempt, withDeadline } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import { decodeBytesField, encodeHealth, HEALTH_METHOD } from '../base/grpc.ts';
import type { Kek, WrappedKey } from '../kms/kek.ts';
import type { Limits } from '../provider/attempts.ts';
import type { Method } from './call.ts';
import { KEY_PROVIDER_SERVICE } from './service.ts';

/** Whether the server can do what it is there for, and nothing more: who asks is not told about keys. */
export interface Readiness {
  /** Probes again if the last answer is old; never throws. */
  isReady(): Promise<boolean>;
}

/** A key that the configuration permits, and for what. */
export type Probe = {
  readonly open: () => Promise<Kek>;
  readonly wrap: boolean;
  readonly unwrap: boolean;
  /** Those of a request; nothing is tried again. */
  readonly limits: Limits;
};

/** How long an answer holds: at most one key is probed in this time, which is at most two calls of its service. */
const HOLD_MILLISECONDS = 30_000;

/**
 * Makes a readiness that probes one key after the other when it is asked, and is ready while the last probe of any of
 * them passed: one key that is out of order stops one key's images only. Without any key to probe (prefixes alone) it
 * is ready.
 *
 * @param now a clock in milliseconds
 */
export function createReadiness(probes: readonly Probe[], now: () => number = () => performance.now()): Readiness {
  const passed = new Map<number, boolean>();
  let next = 0;
  let probed = Number.NEGATIVE_INFINITY;
  let running: Promise<void> | undefined;
  const run = async () => {
    const index = next++ % probes.length;
    const probe = probes[index];
    if (probe !== undefined) passed.set(index, await passes(probe));
    running = undefined;
  };
  return {
    async isReady() {
      if (probes.length === 0) return true;
      if (running === undefined && now() - probed >= HOLD_MILLISECONDS) {
        probed = now();
        running = run();
      }
      // An answer that is old is better than none while the next is found.
      if (passed.size === 0) await running;
      return [...passed.values()].some((value) => value);
    },
  };
}

/**
 * grpc.health.v1.Health/Check: the whole server ("") is alive until it drains, the key-provider service is ready or
 * not. Watch is not there (UNIMPLEMENTED): docs/decisions.md.
 */
export function healthMethods(
  readiness: () => Readiness,
  isDraining: () => boolean,
): readonly (readonly [string, Method])[] {
  const check: Method = async (request) => {
    const service = new TextDecoder().decode(decodeBytesField(request));
    if (service !== '' && service !== KEY_PROVIDER_SERVICE) {
      throw new OcicryptError('not-found', 'no such service');
    }
    const serving = !isDraining() && (service === '' || (await readiness().isReady()));
    return encodeHealth(serving);
  };
  return [[HEALTH_METHOD, check]];
}

async function passes({ open, wrap, unwrap, limits }: Probe): Promise<boolean> {
  const within = <Value>(run: (signal: AbortSignal) => Promise<Value>) =>
    withDeadline(limits.total, undefined, 'probe', (signal) => withAttempt(limits.attempt, signal, 'probe', run));
  try {
    const kek = await open();
    // What no service ever made: that it says so proves that the key may be used.
    if (!wrap)
      return unwrap && (await refusesJunk(within((signal) => kek.unwrap(junkFor(kek), PROBE_CONTEXT, signal))));
    const wrapped = await within((signal) => kek.wrap(randomBytes(32), PROBE_CONTEXT, signal));
    if (unwrap) await within((signal) => kek.unwrap(wrapped, PROBE_CONTEXT, signal));
    return true;
  } catch {
    return false;
  }
}

async function refusesJunk(unwrapping: Promise<unknown>): Promise<boolean> {
  try {
    await unwrapping;
    return true;
  } catch (error) {
    return error instanceof OcicryptError && error.code === 'integrity';
  }
}

function junkFor({ key }: Kek): WrappedKey {
  return { key, algorithm: '', wrapped: randomBytes(64) };
}

const PROBE_CONTEXT = { 'ocicrypt-kms': 'probe' };
