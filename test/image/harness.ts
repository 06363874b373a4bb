// What the tests of the image layer share.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';

/** A directory that is gone when the test is over. */
export async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'image-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** The promise is refused with this code. */
export async function rejects(code: ErrorCode, promise: Promise<unknown>): Promise<OcicryptError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OcicryptError, String(error));
  assert.equal(error.code, code, error.message);
  assert.ok(!/\n/.test(error.message));
  return error;
}

/** The digest of bytes as descriptors write it. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
