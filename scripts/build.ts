// Builds what is shipped: the executable under both of its names, and the npm library.

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT, runTool } from './process.ts';
import { unwrapRequest, wrapRequest } from './sample.ts';

const dist = join(PROJECT, 'dist');
const executable = join(dist, 'ocicrypt-kms');
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);

// Twice: what the first one runs for a layer with a local key is laid side by side in the second, which then reads
// fewer pages of itself.
compile();
const workspace = mkdtempSync(join(tmpdir(), 'build-'));
try {
  compile(`--bytecode-order=${recordOrders(workspace).join()}`);
} finally {
  rmSync(workspace, { recursive: true });
}
symlinkSync('ocicrypt-kms', join(dist, 'kms_oci_crypt'));

runTool('tsc', ['-p', 'tsconfig.build.json']);
chmodSync(join(dist, 'lib/main.js'), 0o755);

function compile(...flags: readonly string[]): void {
  // Nothing in the caller's directory may change what the executable does.
  const autoload = ['dotenv', 'bunfig', 'tsconfig', 'package-json'].map((name) => `--no-compile-autoload-${name}`);
  runTool('bun', [
    'build',
    'src/main.ts',
    // A thread starts at an entry of its own, found by its place below src (src/image/cipher/pipeline.ts).
    'src/image/cipher/worker.ts',
    '--root=src',
    '--compile',
    '--minify',
    '--bytecode',
    '--splitting',
    '--format=esm',
    ...autoload,
    // Two packages ask for their own directory, and would carry the builder's path into the executable.
    '--define=__dirname="/"',
    // A wrap ends before compiled code has paid for its compilation; longer commands lift this (src/cli/compilation.ts).
    '--compile-jit-policy=100',
    ...flags,
    `--outfile=${executable}`,
  ]);
}

/** Files that name the functions which a wrap and an unwrap with a local key have run, in their order. */
function recordOrders(directory: string): readonly string[] {
  const key = join(directory, 'key');
  const orders = [join(directory, 'wrap.order'), join(directory, 'unwrap.order')] as const;
  execFileSync(executable, ['keygen', key], { stdio: 'ignore' });
  const answer = (input: Uint8Array, order: string) =>
    execFileSync(executable, ['keyprovider'], { input, env: { BUN_BYTECODE_ORDER_OUT: order } });
  const reply = answer(wrapRequest(`keyfile://${key}`), orders[0]);
  answer(unwrapRequest(`keyfile://${key}`, reply), orders[1]);
  return orders;
}
