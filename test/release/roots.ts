// Where the executables of a release run: roots of a system with nothing in them but what each needs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, globSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readProduct } from '../../tools/release/contents.ts';
import { TARGETS } from '../../tools/release/targets.ts';
import { blobPath, readImages, writeImage } from '../fixtures/images.ts';
import { fetchWheel } from '../peers/fetched.ts';
import { CURRENT, type DebianRelease, fetchFromDebian } from '../real-clients/debian.ts';
import { type RunResult, runClient } from '../real-clients/process.ts';

/** What `npm run release` has made. */
export const RELEASE = fileURLToPath(new URL('../../dist/release', import.meta.url));

/** The targets that this run was asked for: all, if it was asked for none. */
export const CHOSEN: readonly string[] =
  process.env.OCICRYPT_TEST_TARGETS?.split(',') ?? TARGETS.map(({ name }) => name);

/** Without names of targets, also what needs more than current releases of Debian: not every machine's mirror has that. */
export const IS_WHOLE = process.env.OCICRYPT_TEST_TARGETS === undefined;

/** Runs a command in a root, to its end. */
export type InRoot = (...words: readonly [string, ...string[]]) => Promise<RunResult>;

export type Arch = 'amd64' | 'arm64';

/** The release's file of that name, which must be there. */
export function released(name: string): string {
  const [file] = globSync(name, { cwd: RELEASE });
  assert.ok(file !== undefined, `${name} is not in ${RELEASE}: npm run release`);
  return join(RELEASE, file);
}

/** Runs what is in `root`; what is for another processor is emulated. The command sees its own processes only. */
export async function enterRoot(root: string, arch: Arch = 'amd64', cpu = 'max'): Promise<InRoot> {
  mkdirSync(join(root, 'proc'), { recursive: true });
  mkdirSync(join(root, 'dev'), { recursive: true });
  const emulator: string[] = [];
  if (arch === 'arm64' || cpu !== 'max') {
    const name = arch === 'arm64' ? 'qemu-aarch64' : 'qemu-x86_64';
    copyFileSync(join(await fetchFromDebian(['qemu-user']), 'usr/bin', name), join(root, name));
    emulator.push(`/${name}`, '-cpu', cpu);
  }
  const enter = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$@"';
  return (...words) =>
    runClient(['unshare', '--mount', '--pid', '--fork', 'sh', '-c', enter, 'sh', root, ...emulator, ...words], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      // An emulated processor takes a minute for what takes a second, and more beside other work.
      limit: emulator.length > 0 ? 600_000 : 120_000,
    });
}

/** The image of the release for one processor, unpacked by tar. */
export async function unpackImage(directory: string, arch: Arch): Promise<string> {
  const layout = join(directory, 'layout');
  const root = join(directory, 'root');
  for (const path of [layout, root]) mkdirSync(path, { recursive: true });
  execFileSync('tar', ['xf', released('*-image.tar'), '-C', layout]);
  const image = (await readImages(layout)).find(({ platform }) => platform.architecture === arch);
  assert.ok(image, `no image for ${arch}`);
  for (const { digest } of image.layers) execFileSync('tar', ['xzf', blobPath(layout, digest), '-C', root]);
  return root;
}

/** The C library of a Debian, and nothing else. */
export async function glibcRoot(root: string, release: DebianRelease): Promise<string> {
  for (const path of ['usr/bin', 'tmp']) mkdirSync(join(root, path), { recursive: true });
  cpSync(await fetchFromDebian(['libc6'], release), root, { recursive: true, verbatimSymlinks: true });
  return root;
}

/** musl of Debian, and the libstdc++ of Alpine that a wheel for musl brings along. */
export async function muslRoot(root: string, arch: Arch): Promise<string> {
  const machine = arch === 'amd64' ? 'x86_64' : 'aarch64';
  const libraries = join(root, 'usr/lib');
  for (const path of [libraries, join(root, 'lib'), join(root, 'usr/bin'), join(root, 'tmp')]) {
    mkdirSync(path, { recursive: true });
  }
  const musl = await fetchFromDebian(['musl'], CURRENT, arch);
  copyFileSync(join(musl, `usr/lib/${machine}-linux-musl/libc.so`), join(root, `lib/ld-musl-${machine}.so.1`));
  symlinkSync(`ld-musl-${machine}.so.1`, join(root, `lib/libc.musl-${machine}.so.1`));
  const wheel = await fetchWheel('numpy==2.2.0', `musllinux_1_2_${machine}`);
  cpSync(join(wheel, 'numpy.libs'), libraries, { recursive: true });
  const [library = ''] = globSync('libstdc++-*', { cwd: libraries });
  symlinkSync(library, join(libraries, 'libstdc++.so.6'));
  return root;
}

/**
 * The main job, by an executable in a root: a key, an image encrypted to it that `verify` finds no fault with and that
 * the executable of this machine opens too, refused with another key and opened with the right one.
 *
 * @returns milliseconds from the first command to the encrypted image
 */
export async function assertMainJob(root: string, run: InRoot, program = '/usr/bin/ocicrypt-kms'): Promise<number> {
  const work = join(root, 'work');
  // The second layer is large enough for threads.
  const plain = await writeImage(join(work, 'plain'), { layers: [{}, { size: 5_000_000 }] });
  const ours = async (...words: readonly string[]) => {
    const { exitCode, stdout, stderr } = await run(program, ...words);
    assert.equal(exitCode, 0, `${words.join(' ')}: ${stderr}`);
    return Buffer.from(stdout).toString();
  };
  const started = performance.now();
  const key = (await ours('keygen', '/work/app.key')).trim();
  await ours('encrypt', 'oci:/work/plain', 'oci:/work/encrypted', `--recipient=${key}`);
  const milliseconds = performance.now() - started;
  const other = (await ours('keygen', '/work/other.key')).trim();
  assert.match(await ours('version'), new RegExp(`^ocicrypt-kms ${readProduct().version}$`, 'm'));
  assert.match(await ours('licenses'), /^jose /m);
  await ours('verify', 'oci:/work/encrypted', `--only=${key}`, '--content', '--key=/work/app.key');
  assert.equal(
    (await run(program, 'decrypt', 'oci:/work/encrypted', 'oci:/work/stolen', `--key=/work/other.key`)).exitCode,
    77,
  );
  assert.notEqual(key, other);
  await ours('decrypt', 'oci:/work/encrypted', 'oci:/work/opened', '--key=/work/app.key');
  const [opened] = await readImages(join(work, 'opened'));
  const digests = (layers: readonly { readonly digest: string }[] | undefined) => layers?.map(({ digest }) => digest);
  assert.deepEqual(digests(opened?.layers), digests(plain.images[0].layers));

  const here = fileURLToPath(new URL('../../dist/ocicrypt-kms', import.meta.url));
  const crossed = await runClient([
    here,
    'decrypt',
    `oci:${work}/encrypted`,
    `oci:${work}/crossed`,
    `--key=${work}/app.key`,
  ]);
  assert.equal(crossed.exitCode, 0, crossed.stderr);
  assert.equal(
    readFileSync(join(work, 'crossed/index.json'), 'utf8'),
    readFileSync(join(work, 'opened/index.json'), 'utf8'),
    basename(root),
  );
  return milliseconds;
}
