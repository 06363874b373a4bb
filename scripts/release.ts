// Makes all that a release is, in dist/release: executables, packages, the image, completions and manual pages, what is in them,
// and the hashes of all of it.
// With names of targets it makes the executables of these alone, and what can be made of them.

import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { fetchGo } from '../test/peers/fetched.ts';
import { PROJECT, runTool } from '../tools/process.ts';
import { installedPackages, type Product, readProduct } from '../tools/release/contents.ts';
import { makePackage, NFPM, type PackageRequest } from '../tools/release/packages.ts';
import { shellFiles, shellPath } from '../tools/release/shell-files.ts';
import { executableName, fetchRuntime, TARGETS, type Target, targetNamed } from '../tools/release/targets.ts';
import { compileExecutable, type Preparation, prepareExecutable } from './executable.ts';
import { type ImageArch, makeImage } from './release/image.ts';
import { releaseNotes } from './release/notes.ts';
import { billOfMaterials, type Contents } from './release/sbom.ts';

/** Which executable is in which package, and in the image. */
const PACKAGES: readonly (readonly [target: string, arch: ImageArch, ...formats: PackageRequest['format'][]])[] = [
  ['linux-x64', 'amd64', 'deb', 'rpm'],
  ['linux-arm64', 'arm64', 'deb', 'rpm'],
  ['linux-x64-musl', 'amd64', 'apk'],
  ['linux-arm64-musl', 'arm64', 'apk'],
];

const words = process.argv.slice(2);
const targets = words.length === 0 ? TARGETS : words.map(targetNamed);
const product = readProduct();
const release = join(PROJECT, 'dist/release');
const licenses = join(release, 'THIRD-PARTY-LICENSES');
// The library first: it empties dist.
runTool('node', ['scripts/build.ts']);
mkdirSync(release);
const workspace = mkdtempSync(join(tmpdir(), 'release-'));
try {
  const preparation = prepareExecutable(workspace);
  for (const target of targets) makeExecutable(target, preparation);
  copyFileSync(join(workspace, 'THIRD-PARTY-LICENSES'), licenses);
  await makePackages(preparation);
  const system = await makeContainer(preparation);
  await packShellFiles(preparation);
  runTool('npm', ['pack', `--pack-destination=${release}`, '--ignore-scripts', '--loglevel=error']);
  describeContents(product, preparation, system);
  writeFileSync(join(release, 'RELEASE-NOTES'), releaseNotes(product, targets));
  writeSums();
} finally {
  rmSync(workspace, { recursive: true });
}

function makeExecutable(target: Target, preparation: Preparation): void {
  const place = mkdtempSync(join(workspace, 'target-'));
  compileExecutable(place, preparation, { platform: target.name, file: fetchRuntime(target) });
  const [made = ''] = readdirSync(place);
  renameSync(join(place, made), executablePath(target));
}

function executablePath(target: Target): string {
  return join(release, executableName(target));
}

async function makePackages({ build }: Preparation): Promise<void> {
  const nfpm = await fetchGo(NFPM);
  for (const [name, arch, ...formats] of PACKAGES) {
    const target = targets.find((candidate) => candidate.name === name);
    if (target === undefined) continue;
    for (const format of formats) {
      const request = { arch, format, executable: executablePath(target), licenses };
      makePackage(nfpm, request, product, build, release, workspace);
    }
  }
}

async function makeContainer({ build }: Preparation) {
  const requests = PACKAGES.flatMap(([name, arch]) => {
    const target = name.endsWith('-musl') ? undefined : targets.find((candidate) => candidate.name === name);
    return target === undefined ? [] : [{ arch, executable: executablePath(target), licenses }];
  });
  if (requests.length === 0) return [];
  const { archive, system } = await makeImage(requests, product, build);
  writeFileSync(join(release, `${product.name}-${product.version}-image.tar`), archive);
  return system;
}

/** For those who download an executable alone. */
async function packShellFiles({ build }: Preparation): Promise<void> {
  const entries = shellFiles(product, build).map((file) => ({
    header: { name: shellPath(file), size: Buffer.byteLength(file.text), mode: 0o644, mtime: new Date(build.date) },
    body: file.text,
  }));
  const archive = gzipSync(await packTar(entries));
  writeFileSync(join(release, `${product.name}-${product.version}-shell.tar.gz`), archive);
}

function describeContents(
  { name, version }: Product,
  { packages, build }: Preparation,
  system: NonNullable<Contents['system']>,
): void {
  const write = (suffix: string, contents: Pick<Contents, 'kind' | 'packages' | 'runtime' | 'system'>) =>
    writeFileSync(
      join(release, `${name}-${version}${suffix}.cdx.json`),
      billOfMaterials({ product, build, ...contents }),
    );
  write('', { kind: 'application', packages, runtime: true });
  write('-npm', { kind: 'library', packages: installedPackages(), runtime: false });
  if (system.length > 0) write('-image', { kind: 'container', packages, runtime: true, system });
}

/** The form that `sha256sum --check` reads. */
function writeSums(): void {
  const lines = readdirSync(release)
    .sort()
    .map(
      (name) =>
        `${createHash('sha256')
          .update(readFileSync(join(release, name)))
          .digest('hex')}  ${name}\n`,
    );
  writeFileSync(join(release, 'SHA256SUMS'), lines.join(''));
}
