// The demo ends well and shows what it promises.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { realClients } from '../real-clients/tools.ts';
import { PROJECT } from './transcript.ts';

test('npm run demo shows a key, an image before and after, a refusal and the same digests', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { stdout } = await promisify(execFile)(process.execPath, [join(PROJECT, 'scripts/demo.ts')]);
  for (const shown of [
    'ocicrypt-kms keygen',
    'tar+gzip+encrypted',
    'not-allowed: key keyfile:sha256:',
    'ok: 3 layers',
  ]) {
    assert.ok(stdout.includes(shown), stdout);
  }
});
