// Makes the images of the matrix: every kind that a registry holds, encrypted by the executable.
import { join } from 'node:path';
import { executable, type LocalKey, succeed } from '../end-to-end/workspace.ts';
import { type Compression, type ImageOptions, writeImage, writeIndex } from '../fixtures/images.ts';
import { runClient } from '../real-clients/process.ts';
import type { Registry } from '../real-clients/registry.ts';
import { copy } from '../real-clients/skopeo.ts';
import { toolArgv } from '../real-clients/tools.ts';

/** What an image consists of. All of them run, and say hello. */
export const IMAGE_KINDS = ['gzip', 'zstd', 'uncompressed', 'mixed', 'index', 'partly encrypted', '30 layers'] as const;
export type ImageKind = (typeof IMAGE_KINDS)[number];

const COMPRESSIONS = ['gzip', 'zstd', 'none'] as const satisfies readonly Compression[];
const FEW = 3;
const MANY = 30;

/** The name that a node pulls. */
export function imageName(registry: Registry, kind: ImageKind | 'pause'): string {
  return `${registry.host}/${repository(kind)}:1`;
}

/** Pushes the images of these kinds, each encrypted to the key, and the pause image of pods, which is not. */
export async function pushImages(
  directory: string,
  registry: Registry,
  key: LocalKey,
  kinds: readonly ImageKind[] = IMAGE_KINDS,
): Promise<void> {
  const shell = (await toolArgv('busybox'))[0];
  const pause = await writeImage(join(directory, 'pause'), {
    layers: [{ shell, size: 0 }],
    command: ['/bin/sh', '-c', 'trap exit TERM INT; sleep 1d & wait'],
  });
  await succeed(copy(pause.reference, registry.reference('pause:1'), { registry }));
  for (const kind of kinds) {
    const layout = join(directory, repository(kind));
    const image = imageOptions(kind, shell);
    const { reference } =
      kind === 'index'
        ? await writeIndex(layout, [image, { ...image, platform: { os: 'linux', architecture: 'arm64' } }])
        : await writeImage(layout, image);
    const layers = kind === 'partly encrypted' ? ['--layer=1'] : [];
    await encryptTo(registry, reference, repository(kind), key.uri, layers);
  }
}

/** Pushes an image of gzip layers that is encrypted to any key. */
export async function pushImage(
  directory: string,
  registry: Registry,
  name: string,
  key: string,
  options: readonly string[],
): Promise<void> {
  const shell = (await toolArgv('busybox'))[0];
  const { reference } = await writeImage(join(directory, name), { ...imageOptions('gzip', shell), seed: name });
  await encryptTo(registry, reference, name, key, options);
}

async function encryptTo(
  registry: Registry,
  source: string,
  name: string,
  key: string,
  options: readonly string[],
): Promise<void> {
  const words = ['--recipient', key, `--ca=${registry.authority}`, ...options];
  await succeed(runClient([executable(), 'encrypt', source, registry.reference(`${name}:1`), ...words]));
}

function repository(kind: string): string {
  return kind.replaceAll(' ', '-');
}

function imageOptions(kind: ImageKind, shell: string): ImageOptions {
  const one = (compression: Compression) => ({ seed: kind, layers: [{ compression, shell }, { compression }] });
  switch (kind) {
    case 'gzip':
    case 'partly encrypted':
    case 'index':
      return one('gzip');
    case 'zstd':
      return one('zstd');
    case 'uncompressed':
      return one('none');
    case 'mixed':
      return { seed: kind, layers: many(FEW, shell, (position) => COMPRESSIONS[position % COMPRESSIONS.length]) };
    case '30 layers':
      return { seed: kind, layers: many(MANY, shell, () => 'gzip') };
  }
}

function many(count: number, shell: string, compressionOf: (position: number) => Compression | undefined) {
  return Array.from({ length: count }, (_, position) => ({
    compression: compressionOf(position) ?? 'gzip',
    ...(position === 0 ? { shell } : {}),
  }));
}
