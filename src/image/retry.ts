// What a registry or the network broke off is repeated within one allowance for a whole transfer, whatever fails in it.

import { eitherSignal } from '../base/deadline.ts';
import type { OcicryptError } from '../base/errors.ts';
import { retry as repeat } from '../base/retry.ts';

/** What is given a signal, and hands it to all that it calls. */
type Work<Result> = (signal: AbortSignal) => Promise<Result>;

const ATTEMPTS = 4;
/** Milliseconds. Registries are given more time than key services, for whose answers a client waits. */
const PAUSES = { first: 1000, longest: 5000 } as const;
/** Milliseconds that a registry is left alone at the most, however long it asks for. */
const PATIENCE_MILLISECONDS = 30_000;

type Allowance = { repeats: number };

/** Of the signals that {@link retry} gives out. */
const allowances = new WeakMap<AbortSignal, Allowance>();

/**
 * Runs `work` again from its start when it fails with an error that says it may succeed later. What it calls with its
 * signal may be repeated in the same way and draws on the same allowance: a transfer of several requests makes three
 * more attempts in all, not three for each request times three for the transfer.
 *
 * @throws the last error; at once if the registry asks for more time than anybody would wait
 */
export async function retry<Result>(work: Work<Result>, outer: AbortSignal | undefined): Promise<Result> {
  const inherited = outer === undefined ? undefined : allowances.get(outer);
  const allowance = inherited ?? { repeats: ATTEMPTS - 1 };
  const signal = withAllowance(outer, allowance);
  const pauseAfter = (_: OcicryptError, usual: number) => {
    if (allowance.repeats === 0 || usual > PATIENCE_MILLISECONDS) return undefined;
    allowance.repeats--;
    return usual;
  };
  return repeat(() => work(signal), { pauseAfter, pauses: PAUSES, signal });
}

/** Runs `work` once, with all that it calls: for what the caller can do without. */
export function withoutRetries<Result>(work: Work<Result>, outer: AbortSignal | undefined): Promise<Result> {
  return work(withAllowance(outer, { repeats: 0 }));
}

function withAllowance(outer: AbortSignal | undefined, allowance: Allowance): AbortSignal {
  const own = new AbortController().signal;
  const signal = outer === undefined ? own : eitherSignal(outer, own);
  allowances.set(signal, allowance);
  return signal;
}
