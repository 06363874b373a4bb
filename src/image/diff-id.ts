// The digest of a layer once it is uncompressed, which an image's config calls its diff id.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { OcicryptError } from '../base/errors.ts';
import type { Compression } from './annotations.ts';
import { formatDigest } from './cipher.ts';
import type { ByteSink } from './streams.ts';

/** Takes the bytes of a layer as they are stored; nothing of what comes out is kept. */
export interface DiffIdSink extends ByteSink {
  /** The diff id, after the last byte. @throws OcicryptError `integrity` where the bytes cannot be uncompressed */
  finish(): Promise<string>;
  /** Stops. Harmless after {@link finish}. */
  discard(): void;
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
  const decompressor = compression === 'gzip' ? createGunzip() : createZstdDecompress();
  const done = new Promise<void>((resolve, reject) => {
    decompressor.on('data', (chunk: Uint8Array) => hash.update(chunk));
    decompressor.once('end', resolve);
    decompressor.once('error', (cause) => {
      reject(new OcicryptError('integrity', 'the layer cannot be uncompressed', { cause }));
    });
  });
  done.catch(() => undefined);
  return {
    write: async (bytes) => {
      // The stream keeps what it is given, and the caller uses the memory again.
      if (decompressor.write(Uint8Array.from(bytes)) || decompressor.destroyed) return;
      await Promise.race([once(decompressor, 'drain'), done]);
    },
    finish: async () => {
      decompressor.end();
      await done;
      return formatDigest(hash.digest());
    },
    discard: () => {
      decompressor.destroy();
    },
  };
}
