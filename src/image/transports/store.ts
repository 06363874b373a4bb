// The contract between the image commands and the places that images are in.

import { createHash } from 'node:crypto';
import { OcicryptError } from '../../base/errors.ts';
import { type BlobIdentity, formatDigest } from '../cipher/layer.ts';
import type { ByteSink, ByteSource } from '../cipher/streams.ts';
import type { Descriptor } from '../model/descriptor.ts';
import type { TagSource } from '../model/digest-tag.ts';
import { checkManifestSize, MAXIMUM_MANIFEST_BYTES } from '../model/manifest.ts';
import { retry } from '../retry.ts';

/** A manifest as stored, its digest already checked. */
export type StoredManifest = BlobIdentity & { readonly mediaType: string; readonly bytes: Uint8Array };

/** A blob being read. */
export interface BlobReader extends ByteSource {
  close(): Promise<void>;
}

/** A blob being written, invisible until {@link commit}. */
export interface BlobWriter extends ByteSink {
  /** Makes the blob what `blob` says it is. The caller has computed that from the very bytes it wrote. */
  commit(blob: BlobIdentity): Promise<void>;
  /** Forgets what was written; does nothing after a commit. */
  discard(): Promise<void>;
}

/**
 * A place that an image can be read from. What it gives is hostile: a reader of a blob checks digest and size, or a
 * stronger check that covers them. An implementer must not follow a path or an address that a manifest names.
 */
export interface ImageSource {
  /** The image as its user named it. */
  readonly name: string;
  /** How many blobs it is good to read or write side by side: 1 for disks, more where a network is in between. */
  readonly transfers: number;
  /** The manifest or index that the name stands for. @throws OcicryptError `not-found` */
  readRoot(signal?: AbortSignal): Promise<StoredManifest>;
  /** A manifest that another one names. Its digest and size have been checked. */
  readManifest(descriptor: Descriptor, signal?: AbortSignal): Promise<StoredManifest>;
  /** Opens a blob; nothing of it has been checked. @throws OcicryptError `not-found` */
  openBlob(blob: BlobIdentity, signal?: AbortSignal): Promise<BlobReader>;
  /** Releases connections and temporary files. */
  close(): Promise<void>;
}

/**
 * A place that an image can be written to, too. Blobs come first, then the manifests that name them, the inner ones
 * first; {@link writeRoot} comes last and alone changes what the name stands for: before it everything is as it was.
 */
export interface ImageStore extends ImageSource {
  /** Whether the place has the blob already, so that it need not be sent again. */
  hasBlob(blob: BlobIdentity, signal?: AbortSignal): Promise<boolean>;
  /** Starts a blob of `size` bytes. */
  createBlob(size: number, signal?: AbortSignal): Promise<BlobWriter>;
  /** Writes a manifest that an index will name. */
  writeManifest(manifest: StoredManifest, signal?: AbortSignal): Promise<void>;
  /** Writes the manifest or index and lets the name stand for it. Durable when it resolves. */
  writeRoot(manifest: StoredManifest, signal?: AbortSignal): Promise<void>;
}

/** What refers to manifests: signatures, attestations. */
export type Referrers = {
  /** How each is named, for people. */
  readonly found: readonly string[];
  /** Whether the place has told of all. */
  readonly complete: boolean;
};

/** A place that knows what refers to a manifest. */
export interface ReferrerSource {
  /** Fails for nothing but the signal. */
  listReferrers(digests: readonly string[], signal?: AbortSignal): Promise<Referrers>;
}

export function isTagSource(source: ImageSource): source is ImageSource & TagSource {
  return 'resolveTag' in source;
}

/**
 * What refers to manifests and will not refer to those that take their place: the caller says so, since signatures of
 * the old image do not cover the new one. Nothing from a place that knows of none.
 */
export async function findReferrers(
  source: ImageSource,
  digests: readonly string[],
  signal?: AbortSignal,
): Promise<Referrers> {
  return isReferrerSource(source) ? source.listReferrers(digests, signal) : { found: [], complete: true };
}

function isReferrerSource(source: ImageSource): source is ImageSource & ReferrerSource {
  return 'listReferrers' in source;
}

/** A place where blobs stay that nothing names any more, until somebody removes them. */
export interface UnnamedRemover {
  /** @returns those that nothing names and that stay, as they cannot be removed or it is not known what is named */
  removeUnnamed(digests: readonly string[]): Promise<readonly string[]>;
}

/** Removes what nothing names any more from a place that keeps such blobs; the others have none, or delete nothing. */
export async function removeUnnamed(store: ImageStore, digests: readonly string[]): Promise<readonly string[]> {
  return isUnnamedRemover(store) ? store.removeUnnamed(digests) : [];
}

function isUnnamedRemover(store: ImageStore): store is ImageStore & UnnamedRemover {
  return 'removeUnnamed' in store;
}

/**
 * The bytes with their identity.
 *
 * @param bytes of a manifest or index, as they are stored
 * @param mediaType its type
 * @throws nothing
 * @example
 * return createStoredManifest(bytes, descriptor.mediaType);
 */
export function createStoredManifest(bytes: Uint8Array, mediaType: string): StoredManifest {
  return { bytes, mediaType, size: bytes.length, digest: digestOf(bytes) };
}

/**
 * A manifest that is about to be written, with its identity.
 *
 * @throws OcicryptError `bad-input` for one that is larger than what is read here and what registries take
 */
export function createNewManifest(bytes: Uint8Array, mediaType: string): StoredManifest {
  if (bytes.length <= MAXIMUM_MANIFEST_BYTES) return createStoredManifest(bytes, mediaType);
  throw new OcicryptError('bad-input', `the new manifest would be larger than ${MAXIMUM_MANIFEST_BYTES} bytes`, {
    hint: 'nothing was changed: name fewer recipients',
  });
}

/** The digest of `bytes` as descriptors write it. */
function digestOf(bytes: Uint8Array): string {
  return formatDigest(createHash('sha256').update(bytes).digest());
}

/**
 * Checks that content is what its descriptor says.
 *
 * @param bytes what was read
 * @param expected its digest and its size in bytes
 * @param what how errors call it
 * @throws OcicryptError `integrity`
 * @example
 * checkContent(bytes, descriptor, 'manifest');
 */
export function checkContent(bytes: Uint8Array, expected: BlobIdentity, what: string): void {
  if (bytes.length === expected.size && digestOf(bytes) === expected.digest) return;
  throw damaged(expected.digest, what);
}

/**
 * Reads a small blob whole and checks it.
 *
 * @throws OcicryptError `bad-input` for more than 4 MiB, `integrity`, `not-found`
 */
export async function readSmallBlob(
  source: ImageSource,
  blob: BlobIdentity,
  what: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  checkManifestSize(blob.size, what);
  return retry(async (running) => {
    const reader = await source.openBlob(blob, running);
    try {
      const bytes = await readAtMost(reader, blob.size + 1);
      checkContent(bytes, blob, what);
      return bytes;
    } finally {
      await reader.close();
    }
  }, signal);
}

/** Reads to the end, or to `maximum` bytes. */
export async function readAtMost(source: ByteSource, maximum: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(maximum);
  let length = 0;
  while (length < maximum) {
    const read = await source.read(bytes.subarray(length));
    if (read === 0) break;
    length += read;
  }
  return bytes.subarray(0, length);
}

/**
 * Opens a blob to read and one of the same size to write, and closes both after the work, whatever becomes of it. What is
 * written stays only where the work commits it.
 */
export async function moveBlob<Result>(
  source: ImageSource,
  destination: ImageStore,
  blob: BlobIdentity,
  signal: AbortSignal | undefined,
  work: (reader: BlobReader, writer: BlobWriter) => Promise<Result>,
): Promise<Result> {
  const reader = await source.openBlob(blob, signal);
  try {
    const writer = await destination.createBlob(blob.size, signal);
    try {
      return await work(reader, writer);
    } finally {
      await writer.discard();
    }
  } finally {
    await reader.close();
  }
}

/**
 * Copies a blob as it is, unless the destination has it; digest and size are checked while it streams, and the blob
 * appears only when they are right.
 *
 * @param onProgress is told how many bytes are done
 * @throws OcicryptError `integrity` and what source and destination throw
 */
export async function copyBlob(
  source: ImageSource,
  destination: ImageStore,
  blob: BlobIdentity,
  signal?: AbortSignal,
  onProgress?: (bytes: number) => void,
): Promise<void> {
  if (await destination.hasBlob(blob, signal)) return onProgress?.(blob.size);
  await moveBlob(source, destination, blob, signal, async (reader, writer) => {
    const hash = createHash('sha256');
    const buffer = new Uint8Array(1024 * 1024);
    let size = 0;
    for (;;) {
      signal?.throwIfAborted();
      const read = await reader.read(buffer);
      if (read === 0) break;
      size += read;
      if (size > blob.size) throw damaged(blob.digest, 'blob');
      hash.update(buffer.subarray(0, read));
      await writer.write(buffer.subarray(0, read));
      onProgress?.(size);
    }
    if (size !== blob.size || formatDigest(hash.digest()) !== blob.digest) throw damaged(blob.digest, 'blob');
    await writer.commit(blob);
  });
}

function damaged(digest: string, what: string): OcicryptError {
  return new OcicryptError('integrity', `${what} ${digest} does not have that digest and size`, {
    hint: 'the image is damaged: fetch or build it again',
  });
}
