// The demo ends well and shows what it promises.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { realClients } from '../real-clients/tools.ts';
import { PROJECT } from './transcript.ts';

const run = async (...words: readonly string[]) =>
  (await promisify(execFile)(process.execPath, [join(PROJECT, 'scripts/demo.ts'), ...words])).stdout;

const SHOWN = ['ocicrypt-kms keygen', 'tar+gzip+encrypted', 'not-allowed: key keyfile:sha256:', 'a key of 32 bytes'];

test('npm run demo shows a key, an image before and after, a refusal and the same digests, with skopeo too', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const shown = await run();
  for (const text of SHOWN) assert.ok(shown.includes(text), shown);
  assert.match(shown, /^ok: 3 layers .*skopeo \d+\.\d+\.\d+ opened it too/m);
});

test('npm run demo does the same where there is no skopeo', async () => {
  const shown = await run('alone');
  for (const text of SHOWN) assert.ok(shown.includes(text), shown);
  assert.match(shown, /^ok: 3 layers .*skopeo is left out/m);
});
