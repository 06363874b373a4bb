// The front door: what it says of a command that comes to no end.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
/** Puts a command in the place of `version` that waits for what never comes. */
const HOOK = `
  import { registerHooks } from 'node:module';
  const source = 'export const runVersion = () => new Promise(() => {});';
  registerHooks({
    load: (url, context, next) =>
      url.endsWith('/src/cli/version.ts') ? { format: 'module', shortCircuit: true, source } : next(url, context),
  });`;

test('a command that waits for nothing any more has failed, though it threw no error, and says so in one line', () => {
  const hook = `data:text/javascript,${encodeURIComponent(HOOK)}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', hook, MAIN, 'version'], {
    encoding: 'utf8',
  });
  assert.deepEqual([status, stdout], [70, '']);
  assert.match(stderr, /^ocicrypt-kms: internal: the command came to no end; run again with [^\n]+\n$/);
});
