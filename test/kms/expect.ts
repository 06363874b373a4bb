// How the tests of keys ask: in time, and for the code of a failure.
import assert from 'node:assert/strict';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';

/** The error of work that must fail with this code. */
export async function code(work: Promise<unknown>, expected: ErrorCode): Promise<OcicryptError> {
  const error = await work.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OcicryptError, String(error));
  assert.equal(error.code, expected, `${error.message} (${error.hint})`);
  return error;
}

/** The time that one call may take on a busy machine. */
export function soon(): AbortSignal {
  return AbortSignal.timeout(20_000);
}
