// Builds what is shipped: the executable under both of its names, the npm library, manual pages and completions.

import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { PROJECT, runTool } from '../tools/process.ts';
import { readProduct } from '../tools/release/contents.ts';
import { shellFiles, shellPath } from '../tools/release/shell-files.ts';
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
  for (const file of shellFiles(readProduct(), preparation.build)) {
    const path = join(dist, shellPath(file));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, file.text);
  }
} finally {
  rmSync(workspace, { recursive: true });
}
