// Repeats the transfer of a blob that a registry or the network broke off.

import { setTimeout as sleep } from 'node:timers/promises';
import { OcicryptError } from '../base/errors.ts';

const ATTEMPTS = 3;
const MAXIMUM_WAIT = 30_000;

/**
 * Runs `transfer` again from its start when it fails with an error that says it may succeed later. Layers cannot be
 * taken up in the middle: what was checked of them is only known at their end.
 */
export async function retryTransfer<Result>(
  transfer: (attempt: number) => Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await transfer(attempt);
    } catch (error) {
      if (!(error instanceof OcicryptError && error.retryable) || attempt === ATTEMPTS) throw error;
      const wait = error.retryAfter ?? 500 * 2 ** attempt * (0.5 + Math.random());
      await sleep(Math.min(wait, MAXIMUM_WAIT), undefined, signal === undefined ? {} : { signal });
    }
  }
}
