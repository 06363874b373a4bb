// What an executable is made of: the packages bundled in it, the runtime around them, and the commit they come from.

import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from '../process.ts';

/** The part that is read of what `bun build --metafile` writes. */
export type Metafile = {
  readonly outputs: Readonly<
    Record<string, { readonly inputs: Readonly<Record<string, { readonly bytesInOutput: number }>> }>
  >;
};

/** A package of npm, as the lockfile pins it. */
export type Component = {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression. */
  readonly license: string;
  /** Of the package's archive, as in the lockfile: `sha512-BASE64`. */
  readonly integrity: string;
  /** Where it lies, below the project. */
  readonly path: string;
  readonly dependencies: readonly string[];
};

/** What package.json says of the project itself. */
export type Product = {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly license: string;
  /** The page of its repository. */
  readonly home: string;
};

/** The commit that is built, and its time, by which everything that is made of it is dated. */
export type Build = { readonly commit: string; readonly date: string };

type LockEntry = {
  readonly version: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
};

/** The packages of which at least one byte is in the output, in the order of their names and versions. */
export function bundledPackages({ outputs }: Metafile): readonly Component[] {
  const paths = new Set<string>();
  for (const { inputs } of Object.values(outputs)) {
    for (const [file, { bytesInOutput }] of Object.entries(inputs)) {
      const path = /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0];
      if (path !== undefined && bytesInOutput > 0) paths.add(path);
    }
  }
  const entries = lockEntries();
  return sorted([...paths].map((path) => component(path, entries)));
}

/** The packages that `npm install ocicrypt-kms` brings, with their own dependencies. */
export function installedPackages(): readonly Component[] {
  const entries = lockEntries();
  const paths = Object.keys(entries).filter((path) => path !== '' && !entries[path]?.dev && !entries[path]?.optional);
  return sorted(paths.map((path) => component(path, entries)));
}

export function readProduct(): Product {
  const { name, version, description, license, homepage } = JSON.parse(
    readFileSync(join(PROJECT, 'package.json'), 'utf8'),
  );
  return { name, version, description, license, home: homepage.replace('#readme', '') };
}

/** Bun, whose runtime is in the executable. */
export function runtimeVersion(): string {
  return lockEntry('node_modules/bun', lockEntries()).version;
}

/** The hash that the lockfile pins for a package that other platforms need. */
export function lockedIntegrity(name: string): string {
  const { integrity } = lockEntry(`node_modules/${name}`, lockEntries());
  if (integrity === undefined) throw new Error(`the lockfile lacks the hash of ${name}`);
  return integrity;
}

/** What `SOURCE_DATE_EPOCH` or the repository says; the time 0 outside of both. A change that is not committed shows. */
export function readBuild(): Build {
  const git = (...words: readonly string[]) =>
    spawnSync('git', ['-C', PROJECT, ...words], { encoding: 'utf8' }).stdout?.trim() ?? '';
  const commit = git('rev-parse', 'HEAD') || 'unknown';
  const changed = git('status', '--porcelain', '--untracked-files=no') !== '';
  const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? (git('log', '-1', '--format=%ct') || 0));
  return {
    commit: changed ? `${commit}-changed` : commit,
    date: new Date(seconds * 1000).toISOString().replace('.000', ''),
  };
}

/** The texts by which a package's authors allow its use, each once. */
export function licenseFiles({ path }: Component): readonly string[] {
  const names = globSync('*', { cwd: join(PROJECT, path) }).filter((name) =>
    /^(?:licen[cs]e|copying|notice)/i.test(name),
  );
  return names.sort().map((name) => readFileSync(join(PROJECT, path, name), 'utf8').trim());
}

function component(path: string, entries: Readonly<Record<string, LockEntry>>): Component {
  const { version, license, integrity, dependencies = {} } = lockEntry(path, entries);
  if (license === undefined || integrity === undefined)
    throw new Error(`the lockfile lacks licence or hash of ${path}`);
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  return { name, version, license, integrity, path, dependencies: resolved(path, Object.keys(dependencies), entries) };
}

/** Where a package finds what it depends on: below itself, or below a folder above it. */
function resolved(
  path: string,
  names: readonly string[],
  entries: Readonly<Record<string, LockEntry>>,
): readonly string[] {
  return names.flatMap((name) => {
    for (let at = path; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
      const candidate = join(at, 'node_modules', name);
      if (candidate in entries) return [candidate];
      if (at === '') return [];
    }
  });
}

function lockEntries(): Readonly<Record<string, LockEntry>> {
  return JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8')).packages;
}

function lockEntry(path: string, entries: Readonly<Record<string, LockEntry>>): LockEntry {
  const entry = entries[path];
  if (entry === undefined) throw new Error(`${path} is not in the lockfile`);
  return entry;
}

function sorted(components: readonly Component[]): readonly Component[] {
  const label = ({ name, version }: Component) => `${name}@${version}`;
  return components.toSorted((left, right) => (label(left) < label(right) ? -1 : 1));
}
