// One error for several failures of which one success would have been enough.

import { type ErrorCode, OcicryptError } from './errors.ts';

/** The most useful first: what may pass, then what can be granted, then what is lost. */
const CODE_ORDER: readonly ErrorCode[] = [
  ...(['throttled', 'unavailable', 'deadline-exceeded', 'unauthenticated', 'refused', 'key-disabled'] as const),
  ...(['configuration', 'not-found', 'not-allowed', 'integrity'] as const),
];

/** Lines that a reader still reads. */
const MAXIMUM_LINES = 6;

/**
 * The error of all: the code most worth acting on, and what each said, in the order of their use. A single failure is
 * returned as it is.
 *
 * @param what as it stands before them: `none of 3 keys opened the packet`
 */
export function combineErrors(failures: readonly OcicryptError[], what: string): OcicryptError {
  const sorted = failures.toSorted((a, b) => rank(a.code) - rank(b.code));
  const [first, ...others] = sorted;
  if (first === undefined) return new OcicryptError('internal', `${what}: nothing was tried`);
  if (others.length === 0) return first;
  const lines = [...new Set(sorted.map((failure) => failure.markedLine()))];
  const more = lines.length > MAXIMUM_LINES ? ` | and ${lines.length - MAXIMUM_LINES} more` : '';
  return new OcicryptError(first.code, `${what}: ${lines.slice(0, MAXIMUM_LINES).join(' | ')}${more}`, {
    cause: failures,
    retryable: failures.some(({ retryable }) => retryable),
  });
}

function rank(code: ErrorCode): number {
  const index = CODE_ORDER.indexOf(code);
  return index === -1 ? CODE_ORDER.length : index;
}
