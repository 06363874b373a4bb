// The executables of a release do the main job where they are for: with glibc and with musl, and emulated for another processor.
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DebianRelease } from '../real-clients/debian.ts';
import {
  type Arch,
  assertMainJob,
  CHOSEN,
  enterRoot,
  glibcRoot,
  IS_WHOLE,
  muslRoot,
  released,
  unpackImage,
} from './roots.ts';

function directoryOf(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'release-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const GLIBC: readonly (readonly [target: string, arch: Arch, cpu: string, where: string])[] = [
  ['linux-x64', 'amd64', 'max', 'here'],
  ['linux-x64', 'amd64', 'Nehalem', 'on a processor without AVX, by qemu'],
  ['linux-arm64', 'arm64', 'max', 'by qemu'],
];
/** Where one platform is tried alone, on its own processor. */
const isTried = ([name, , cpu]: (typeof GLIBC)[number]) =>
  CHOSEN.includes(name) && (cpu === 'max' || CHOSEN.length > 1);
for (const [target, arch, cpu, where] of GLIBC.filter(isTried)) {
  test(`${target} encrypts and decrypts ${where}, with nothing but what is in the image`, async (t) => {
    const root = await unpackImage(directoryOf(t), arch);
    const milliseconds = await assertMainJob(root, await enterRoot(root, arch, cpu));
    t.diagnostic(`figures: a key and an encrypted image within ${(milliseconds / 1000).toFixed(1)} s`);
    if (where === 'here') assert.ok(milliseconds < 60_000, `${milliseconds} ms`);
  });
}

/** By the release of Debian that has it: the last is the one of Ubuntu 20.04. */
const OLDER_GLIBCS: readonly (readonly [release: DebianRelease, version: string])[] = [
  ['bookworm', '2.36'],
  ...(IS_WHOLE ? ([['bullseye', '2.31']] as const) : []),
];
for (const [release, version] of CHOSEN.includes('linux-x64') ? OLDER_GLIBCS : []) {
  test(`linux-x64 encrypts and decrypts with glibc ${version} alone`, async (t) => {
    const root = await glibcRoot(directoryOf(t), release);
    copyFileSync(released('ocicrypt-kms-linux-x64'), join(root, 'usr/bin/ocicrypt-kms'));
    await assertMainJob(root, await enterRoot(root));
  });
}

const MUSL: readonly (readonly [target: string, arch: Arch])[] = [
  ['linux-x64-musl', 'amd64'],
  ['linux-arm64-musl', 'arm64'],
];
for (const [target, arch] of MUSL.filter(([name]) => CHOSEN.includes(name))) {
  test(`${target} encrypts and decrypts with musl and its libstdc++ alone`, async (t) => {
    const root = await muslRoot(directoryOf(t), arch);
    copyFileSync(released(`ocicrypt-kms-${target}`), join(root, 'usr/bin/ocicrypt-kms'));
    await assertMainJob(root, await enterRoot(root, arch));
  });
}
