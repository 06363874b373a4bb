// Builds what is shipped: the executable under both of its names, and the npm library.

import { chmodSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT, runTool } from './process.ts';

const dist = join(PROJECT, 'dist');
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);

// Nothing in the caller's directory may change what the executable does.
const autoload = ['dotenv', 'bunfig', 'tsconfig', 'package-json'].map((name) => `--no-compile-autoload-${name}`);
runTool('bun', [
  'build',
  'src/main.ts',
  '--compile',
  '--minify',
  '--bytecode',
  '--splitting',
  '--format=esm',
  ...autoload,
  // A wrap ends before compiled code has paid for its compilation; longer commands lift this (src/cli/compilation.ts).
  '--compile-jit-policy=100',
  '--outfile=dist/ocicrypt-kms',
]);
symlinkSync('ocicrypt-kms', join(dist, 'kms_oci_crypt'));

runTool('tsc', ['-p', 'tsconfig.build.json']);
chmodSync(join(dist, 'lib/main.js'), 0o755);
