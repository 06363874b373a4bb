// The digest of a layer once it is uncompressed, which an image's config calls its diff id: computed, and as configs say it.

import { createHash } from 'node:crypto';
import { OcicryptError } from '../base/errors.ts';
import { Inflater } from './cipher/inflate.ts';
import { formatDigest } from './cipher/layer.ts';
import type { ByteSink } from './cipher/streams.ts';
import type { Compression } from './model/annotations.ts';
import { isConfigType, parseConfig } from './model/manifest.ts';
import { type ImageSource, readSmallBlob } from './transports/store.ts';
import { MAXIMUM_BYTES, type PlatformImage } from './tree.ts';

/** Takes the bytes of a layer as they are stored; nothing of what comes out is kept. */
export interface DiffIdSink extends ByteSink {
  /** The diff id, after the last byte. @throws OcicryptError `integrity` if the bytes cannot be uncompressed */
  finish(): Promise<string>;
  /** Stops. Harmless after {@link finish}. */
  discard(): void;
}

/**
 * The diff ids that each image's config has, one config at a time; images without such a config are left out.
 *
 * @throws OcicryptError `bad-input` for configs that are no such thing or too large in all, `integrity`, `not-found`
 */
export async function readDiffIds(
  source: ImageSource,
  images: readonly PlatformImage[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<PlatformImage, readonly string[]>> {
  const read = new Map<string, readonly string[]>();
  const diffIds = new Map<PlatformImage, readonly string[]>();
  let bytes = 0;
  for (const image of images) {
    const { config } = image.manifest;
    if (!isConfigType(config.mediaType)) continue;
    let found = read.get(config.digest);
    if (found === undefined) {
      bytes += config.size;
      if (bytes > MAXIMUM_BYTES)
        throw new OcicryptError('bad-input', `${source.name} has more than ${MAXIMUM_BYTES} bytes of configs`);
      const content = await readSmallBlob(source, config, 'config', signal);
      found = parseConfig(content, `config ${config.digest}`).diffIds;
      read.set(config.digest, found);
    }
    diffIds.set(image, found);
  }
  return diffIds;
}

/** Starts the computation for a layer that is compressed so. */
export function createDiffIdSink(compression: Compression): DiffIdSink {
  const hash = createHash('sha256');
  if (compression === 'none') {
    return {
      write: async (bytes) => {
        hash.update(bytes);
      },
      finish: async () => formatDigest(hash.digest()),
      discard: () => undefined,
    };
  }
  const inflater = new Inflater(compression);
  const { stream } = inflater;
  const done = new Promise<void>((resolve, reject) => {
    stream.on('data', (chunk: Uint8Array) => hash.update(chunk));
    stream.once('end', () => (inflater.isWhole ? resolve() : reject(notUncompressed())));
    stream.once('error', (cause) => reject(notUncompressed(cause)));
  });
  done.catch(() => undefined);
  return {
    write: (bytes) => Promise.race([inflater.write(bytes), done]),
    finish: async () => {
      stream.end();
      await done;
      return formatDigest(hash.digest());
    },
    discard: () => {
      stream.destroy();
    },
  };
}

function notUncompressed(cause?: unknown): OcicryptError {
  return new OcicryptError('integrity', 'the layer cannot be uncompressed', { cause });
}
