// Compiles the executable: around the runtime of this machine, or of another one.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runTool } from '../tools/process.ts';
import { type Build, bundledPackages, type Component, type Metafile, readBuild } from '../tools/release/contents.ts';
import { unwrapRequest, wrapRequest } from '../tools/sample.ts';
import { licenseText } from './release/licenses.ts';

/** What all executables of one source have in common, found out once. */
export type Preparation = {
  readonly directory: string;
  /** Files that name the functions which a wrap and an unwrap with a local key run, in their order. */
  readonly orders: readonly string[];
  readonly packages: readonly Component[];
  readonly build: Build;
};

/**
 * Compiles once without knowing what belongs together: to see which packages are bundled, and what a layer with a local
 * key runs. The executable has that side by side, and reads fewer pages of itself.
 *
 * @param directory for the files, which must stay until the last {@link compileExecutable}
 */
export function prepareExecutable(directory: string): Preparation {
  const executable = join(directory, 'ocicrypt-kms');
  const metafile = join(directory, 'metafile.json');
  compile(executable, [`--metafile=${metafile}`]);
  const contents: Metafile = JSON.parse(readFileSync(metafile, 'utf8'));
  const packages = bundledPackages(contents);
  writeFileSync(join(directory, 'THIRD-PARTY-LICENSES'), licenseText(packages));
  return { directory, orders: recordOrders(executable, directory), packages, build: readBuild() };
}

/** Lays the files that the program reads beside itself (src/cli/side-files.ts). @returns their paths */
export function writeSideFiles({ directory, build }: Preparation, target: string | undefined): readonly string[] {
  const about = join(directory, 'build.json');
  writeFileSync(about, `${JSON.stringify({ ...build, target })}\n`);
  return [join(directory, 'THIRD-PARTY-LICENSES'), about];
}

/** A Bun to build around, of the version that compiles, and its platform: `linux-arm64-musl`. */
export type Runtime = { readonly platform: string; readonly file: string };

/**
 * Makes `ocicrypt-kms` in `directory`; the name is a part of the executable, and changes its bytes.
 *
 * @param runtime that of another platform; without it, the one that compiles
 */
export function compileExecutable(directory: string, preparation: Preparation, runtime?: Runtime): void {
  const target = runtime?.platform ?? `${process.platform}-${process.arch}`;
  compile(join(directory, 'ocicrypt-kms'), [
    `--bytecode-order=${preparation.orders.join()}`,
    ...writeSideFiles(preparation, target).map((file) => `--asset=${file}`),
    ...(runtime === undefined ? [] : [`--target=bun-${runtime.platform}`, `--compile-executable-path=${runtime.file}`]),
  ]);
}

function compile(outfile: string, flags: readonly string[]): void {
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
    `--outfile=${outfile}`,
  ]);
}

function recordOrders(executable: string, directory: string): readonly string[] {
  const key = join(directory, 'key');
  const orders = [join(directory, 'wrap.order'), join(directory, 'unwrap.order')] as const;
  execFileSync(executable, ['keygen', key], { stdio: 'ignore' });
  const answer = (input: Uint8Array, order: string) =>
    execFileSync(executable, ['keyprovider'], { input, env: { BUN_BYTECODE_ORDER_OUT: order } });
  const reply = answer(wrapRequest(`keyfile://${key}`), orders[0]);
  answer(unwrapRequest(`keyfile://${key}`, reply), orders[1]);
  return orders;
}
