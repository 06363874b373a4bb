// The program in docs/images.md compiles and runs as it is written, with a key of this machine.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createWorkspace } from '../end-to-end/workspace.ts';
import { readImages, writeImage } from '../fixtures/images.ts';
import { readDocument } from './transcript.ts';

const run = promisify(execFile);
const project = fileURLToPath(new URL('../..', import.meta.url));

test('the library encrypts and decrypts an image as docs/images.md shows it', async (t) => {
  const { directory, path, keygen } = await createWorkspace(t);
  const { uri } = await keygen('app.key');
  const source = await writeImage(path('app'));
  const [, program = ''] = /```ts\n(.*?)```/s.exec(await readDocument('docs/images.md')) ?? [];
  const local = program.replace(/'gcpkms:[^']*'/, `'${uri}'`).replace("'ocicrypt-kms'", "'../../src/index.ts'");
  assert.ok(local.includes(uri) && local.includes('src/index'));
  // Within the project, whose compiler and settings are to read it.
  const cache = join(project, '.cache');
  await mkdir(cache, { recursive: true });
  const place = await mkdtemp(join(cache, 'library-'));
  t.after(() => rm(place, { recursive: true, force: true }));
  const file = join(place, 'program.ts');
  await writeFile(file, local);
  await writeFile(join(place, 'tsconfig.json'), JSON.stringify({ extends: '../../tsconfig.json', include: [file] }));
  await run(process.execPath, [join(project, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', place]);

  const { stdout, stderr } = await run(process.execPath, [file], { cwd: directory });
  assert.match(stdout, /^sha256:[0-9a-f]{64}\n$/);
  assert.match(stderr, /^encrypt sha256:[0-9a-f]{64} \d+ of \d+$/m);
  const [opened] = await readImages(path('opened'));
  assert.equal(opened?.digest, source.digest);
});
