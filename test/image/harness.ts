// What the tests of the image layer share.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';

/** What ends something: a test, or all tests of a file. */
export type Lifetime = { readonly after: (clean: () => Promise<void> | void) => void };

/** A directory that is gone when the test is over. */
export async function scratch(t: Lifetime): Promise<string> {
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

/** Lets programs be found by this path until the end of a test. */
export function usePath(t: Lifetime, path: string): void {
  const before = process.env.PATH;
  process.env.PATH = path;
  t.after(() => {
    process.env.PATH = before;
  });
}
