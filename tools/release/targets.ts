// The platforms that there are executables for, and where the runtime of each comes from.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT, runTool } from '../process.ts';
import { lockedIntegrity, runtimeVersion } from './contents.ts';

export type Target = {
  /** As in the names of files: `linux-x64-musl`. */
  readonly name: string;
  /** The package of npm that holds the runtime. */
  readonly runtime: string;
  /** What the machine must have. */
  readonly needs: string;
  /** How `npm run test:release` tries it. */
  readonly tried: string;
};

/** Bun's package for x64 and the one called baseline hold the same file: there is one executable for both. */
export const TARGETS: readonly Target[] = [
  {
    name: 'linux-x64',
    runtime: '@oven/bun-linux-x64',
    needs: 'glibc 2.17, SSE4.2',
    tried: 'encrypts and decrypts, also on a processor without AVX',
  },
  {
    name: 'linux-arm64',
    runtime: '@oven/bun-linux-aarch64',
    needs: 'glibc 2.17',
    tried: 'encrypts and decrypts, emulated by qemu',
  },
  {
    name: 'linux-x64-musl',
    runtime: '@oven/bun-linux-x64-musl',
    needs: 'musl 1.2.4, libstdc++, SSE4.2',
    tried: 'encrypts and decrypts, with musl and the libstdc++ of Alpine',
  },
  {
    name: 'linux-arm64-musl',
    runtime: '@oven/bun-linux-aarch64-musl',
    needs: 'musl 1.2.4, libstdc++',
    tried: 'encrypts and decrypts, emulated by qemu',
  },
  { name: 'darwin-x64', runtime: '@oven/bun-darwin-x64', needs: 'macOS 13', tried: 'not run: compiled only' },
  { name: 'darwin-arm64', runtime: '@oven/bun-darwin-aarch64', needs: 'macOS 13', tried: 'not run: compiled only' },
  { name: 'windows-x64', runtime: '@oven/bun-windows-x64', needs: 'Windows 10 1809', tried: 'not run: compiled only' },
];

export function targetNamed(name: string): Target {
  const target = TARGETS.find((candidate) => candidate.name === name);
  if (target === undefined) throw new Error(`there are ${TARGETS.map((candidate) => candidate.name).join(', ')}`);
  return target;
}

/** The file of a release that holds a target's executable. */
export function executableName({ name }: Target): string {
  return `ocicrypt-kms-${name}${name.startsWith('windows') ? '.exe' : ''}`;
}

/** Fetches a target's runtime into `.cache`, where that is not yet done, and checks its hash. @returns the file */
export function fetchRuntime({ runtime }: Target): string {
  const integrity = lockedIntegrity(runtime);
  const cache = join(PROJECT, '.cache/runtimes');
  const folder = join(cache, createHash('sha256').update(integrity).digest('hex').slice(0, 16));
  const file = join(folder, 'package/bin', runtime.includes('windows') ? 'bun.exe' : 'bun');
  if (existsSync(file)) return file;
  mkdirSync(cache, { recursive: true });
  const scratch = mkdtempSync(join(cache, 'fetch-'));
  try {
    runTool('npm', ['pack', `${runtime}@${runtimeVersion()}`, `--pack-destination=${scratch}`, '--loglevel=error']);
    const archive = join(scratch, `${runtime.replace('@', '').replace('/', '-')}-${runtimeVersion()}.tgz`);
    const found = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
    if (found !== integrity) throw new Error(`${runtime} has the hash ${found}, and ${integrity} is pinned`);
    const { status } = spawnSync('tar', ['xzf', archive, '-C', scratch], { stdio: 'inherit' });
    if (status !== 0) throw new Error(`${archive} cannot be unpacked`);
    rmSync(archive);
    renameSync(scratch, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return file;
}
