// The root of an image that is being built, with files for a node's tests, and errors as values.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';

/** A directory that ends with the test; files without content are programs. */
export function newRoot(t: TestContext, files: Readonly<Record<string, string>> = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'node-root-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text, { mode: text === '' ? 0o755 : 0o644 });
  }
  return root;
}

/** What the work throws, which it must. */
export function caught(work: () => unknown): unknown {
  try {
    return assert.fail(String(work()));
  } catch (error) {
    return error;
  }
}
