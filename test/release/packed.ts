// The package as npm has it: packed, unpacked beside what it depends on, and programs beside it that use it.

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { PROJECT } from '../../tools/process.ts';
import { blocksOf, readDocument } from '../docs/transcript.ts';

const run = promisify(execFile);

/** A directory with the package installed in it, and the programs of docs/library.md and examples/. */
export type Packed = { readonly directory: string; readonly programs: readonly string[] };

/** What the programs of the document do without a cloud: with this key. */
const CLOUD_KEY = /'gcpkms:[^']*'/;

/**
 * @param cleanups gets what removes the directory
 * @param key what the programs use in place of a key in a cloud
 * @param install puts the package's archive and its dependencies into the directory; by default they are this project's
 */
export async function unpackLibrary(
  cleanups: (() => Promise<unknown>)[],
  key: string,
  install: (directory: string, archive: string) => Promise<unknown> = linkDependencies,
): Promise<Packed> {
  const directory = await mkdtemp(join(tmpdir(), 'library-'));
  cleanups.push(() => rm(directory, { recursive: true, force: true }));
  // The library that is in dist already.
  await run('npm', ['pack', '--ignore-scripts', '--loglevel=error', `--pack-destination=${directory}`], {
    cwd: PROJECT,
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
  });
  const archive = (await readdir(directory)).find((name) => name.endsWith('.tgz')) ?? '';
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  await install(directory, join(directory, archive));
  const programs: string[] = [];
  for (const name of (await readdir(join(PROJECT, 'examples'))).filter((file) => file.endsWith('.ts')).sort()) {
    await cp(join(PROJECT, 'examples', name), join(directory, name));
    programs.push(name);
  }
  const blocks = blocksOf(await readDocument('docs/library.md')).filter(({ language }) => language === 'ts');
  for (const [index, { text }] of blocks.entries()) {
    const name = `document-${index}.ts`;
    await writeFile(join(directory, name), text.replace(CLOUD_KEY, JSON.stringify(key)));
    programs.push(name);
  }
  // As a careful user has it: the types of dependencies are checked too.
  const compilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false },
    ...{ target: 'es2022', module: 'nodenext', moduleResolution: 'nodenext', noEmit: true, types: ['node'] },
  };
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: programs }));
  return { directory, programs };
}

async function linkDependencies(directory: string, archive: string): Promise<void> {
  const modules = join(directory, 'node_modules');
  const home = join(modules, 'ocicrypt-kms');
  await mkdir(home, { recursive: true });
  await run('tar', ['-xzf', archive, '--strip-components=1', '-C', home]);
  const { dependencies } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'));
  for (const name of [...Object.keys(dependencies), '@types/node']) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(PROJECT, 'node_modules', name), join(modules, name));
  }
}

/** Runs a program with the words; resolves with what it printed. */
export async function runProgram(
  { directory }: Packed,
  command: readonly string[],
  words: readonly string[] = [],
): Promise<string> {
  const [runtime = '', ...rest] = command;
  const { stdout } = await run(runtime, [...rest, ...words], { cwd: directory, maxBuffer: 16 * 1024 * 1024 });
  return stdout;
}
