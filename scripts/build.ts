// Builds what is shipped: the executable under both of its names, and the npm library.

import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { PROJECT, runTool } from '../tools/process.ts';
import { compileExecutable, prepareExecutable, writeSideFiles } from './executable.ts';

const dist = join(PROJECT, 'dist');
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);

const workspace = mkdtempSync(join(tmpdir(), 'build-'));
try {
  const preparation = prepareExecutable(workspace);
  compileExecutable(dist, preparation);
  symlinkSync('ocicrypt-kms', join(dist, 'kms_oci_crypt'));
  runTool('tsc', ['-p', 'tsconfig.build.json']);
  // Beside the code that reads them (src/cli/side-files.ts).
  for (const file of writeSideFiles(preparation, undefined)) copyFileSync(file, join(dist, 'lib/cli', basename(file)));
  chmodSync(join(dist, 'lib/main.js'), 0o755);
} finally {
  rmSync(workspace, { recursive: true });
}
