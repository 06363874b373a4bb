// Reads and writes OCI layout directories.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md

import { access, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import type { BlobIdentity } from '../cipher/layer.ts';
import { type Descriptor, isDigest } from '../model/descriptor.ts';
import { checkManifestSize, parseLayoutVersion } from '../model/manifest.ts';
import { notDurable, notWritten } from '../not-written.ts';
import {
  type AtomicFile,
  createAtomicFile,
  isFileOfSize,
  openRegularFile,
  readSmallFile,
  syncDirectory,
  writeFileAtomically,
} from './files.ts';
import { LayoutBlobs } from './layout-blobs.ts';
import { BLOBS, EMPTY_INDEX, LAYOUT_FILE, LayoutIndex, type LayoutName } from './layout-index.ts';
import { lockIndex } from './layout-lock.ts';
import { type BlobReader, type BlobWriter, checkContent, type ImageStore, type StoredManifest } from './store.ts';
import { removeAbandoned } from './temporary.ts';
import { findNamed } from './unnamed.ts';

/** An OCI layout in `directory`; nothing is read or made before it is needed. `name` is for messages. */
export function openLayout(directory: string, tag: string | undefined, name: string): ImageStore {
  return new LayoutStore(directory, { name, tag });
}

/** A blob or manifest without its name. */
type Staged = { readonly file: AtomicFile; readonly size: number };

/** Each has an open file until it is sealed. */
const MAXIMUM_UNSEALED = 64;

class LayoutStore implements ImageStore {
  readonly name: string;
  readonly transfers = 1;
  readonly #directory: string;
  readonly #wanted: LayoutName;
  /** All gets its name together, when all of it is on the disk: of a decryption that fails no plain layer stays. */
  readonly #staged = new Map<string, Staged>();
  /** What was there already, and must be there still when the index changes. */
  readonly #counted = new Map<string, BlobIdentity>();
  /** Where it is written, once anything is. */
  #blobs: Promise<LayoutBlobs> | undefined;
  /** What the name was found to stand for: in place, the new image takes its place. */
  #found: Descriptor | undefined;
  /** As it was when the image was read. */
  #index: LayoutIndex | undefined;

  constructor(directory: string, wanted: LayoutName) {
    this.name = wanted.name;
    this.#directory = directory;
    this.#wanted = wanted;
  }

  async readRoot(): Promise<StoredManifest> {
    this.#index = await this.#readIndex();
    this.#found = this.#index.select(this.#wanted);
    return this.readManifest(this.#found);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    const { digest, mediaType, size } = descriptor;
    const what = `manifest ${digest}`;
    checkManifestSize(size, what);
    this.#index?.checkType(descriptor);
    const bytes = await readSmallFile(this.#blobPath(digest), what);
    checkContent(bytes, descriptor, 'manifest');
    return { bytes, digest, mediaType, size };
  }

  openBlob(blob: BlobIdentity): Promise<BlobReader> {
    return openRegularFile(this.#blobPath(blob.digest), `blob ${blob.digest}`);
  }

  async hasBlob(blob: BlobIdentity): Promise<boolean> {
    if (this.#staged.get(blob.digest)?.size === blob.size) return true;
    if (!(await this.#isThere(blob))) return false;
    this.#counted.set(blob.digest, blob);
    return true;
  }

  async createBlob(): Promise<BlobWriter> {
    const blobs = await this.#prepare();
    const file = await blobs.createFile({ layer: true });
    let staged = false;
    return {
      write: (bytes) => file.write(bytes),
      commit: async ({ digest, size }) => {
        staged = true;
        await this.#stage(digest, { file, size });
      },
      discard: async () => {
        if (!staged) await file.discard();
      },
    };
  }

  async writeManifest({ bytes, digest, size }: StoredManifest): Promise<void> {
    const blobs = await this.#prepare();
    if (await this.hasBlob({ digest, size })) return;
    const file = await blobs.createFile();
    try {
      await file.write(bytes);
    } catch (error) {
      await file.discard();
      throw error;
    }
    await this.#stage(digest, { file, size });
  }

  async writeRoot(manifest: StoredManifest, signal?: AbortSignal): Promise<void> {
    await this.writeManifest(manifest);
    await this.#seal();
    const unlock = await lockIndex(this.#directory, signal);
    try {
      await this.#switch(manifest);
    } finally {
      await unlock();
    }
    await this.#release();
  }

  /** What something here still names stays; what does not and stays all the same is returned. Never fails. */
  async removeUnnamed(digests: readonly string[]): Promise<readonly string[]> {
    const present: string[] = [];
    for (const digest of new Set(digests)) if (await exists(this.#blobPath(digest))) present.push(digest);
    if (present.length === 0) return [];
    try {
      const unlock = await lockIndex(this.#directory);
      try {
        return await this.#removeUnnamed(present);
      } finally {
        await unlock();
      }
    } catch {
      // The image is written; if it cannot be told what else is named here, that is no fault of it.
      return present;
    }
  }

  async close(): Promise<void> {
    for (const { file } of this.#staged.values()) await file.discard();
    this.#staged.clear();
    await this.#release();
  }

  async #removeUnnamed(present: readonly string[]): Promise<readonly string[]> {
    const index = await this.#readIndex();
    // What those name is not known.
    if (index.namesOthers()) return present;
    const named = await findNamed(present, index.entries(), (entry) => this.readManifest(entry));
    const left: string[] = [];
    const blobs = await LayoutBlobs.open(this.#directory);
    try {
      for (const digest of present) {
        if (!named.has(digest)) await blobs.remove(nameOf(digest)).catch(() => left.push(digest));
      }
    } finally {
      await blobs.close();
    }
    return left;
  }

  async #stage(digest: string, staged: Staged): Promise<void> {
    const twin = this.#staged.get(digest);
    this.#staged.set(digest, staged);
    await twin?.file.discard();
    if (this.#staged.size % MAXIMUM_UNSEALED === 0) await this.#seal();
  }

  /** All together: a journal takes many files in one commit, and the next layer never waits for the disk. */
  async #seal(): Promise<void> {
    await Promise.all([...this.#staged.values()].map(({ file }) => file.seal()));
  }

  /**
   * Gives everything its name, the index last. Everything is written by now and only names change; if one cannot, the
   * names that were given are taken back.
   */
  async #switch(root: StoredManifest): Promise<void> {
    const index = (await this.#readIndexOrNone()).with(root, this.#wanted, this.#found);
    await this.#checkCounted();
    const blobs = await this.#prepare();
    const file = await createAtomicFile(this.#directory);
    const given: Given[] = [];
    try {
      await file.write(index);
      await file.seal();
      await this.#publish(blobs, given);
      await file.publish(join(this.#directory, 'index.json'));
    } catch (error) {
      await file.discard();
      await takeBack(given, error);
    }
    this.#staged.clear();
    blobs.keep();
    this.#found = undefined;
    await syncDirectory(this.#directory).catch(notDurable(`${this.name} (${root.digest})`));
  }

  /** @param given learns what was not there before */
  async #publish(blobs: LayoutBlobs, given: Given[]): Promise<void> {
    const marker = join(this.#directory, 'oci-layout');
    if (!(await isFile(marker))) {
      if (!(await exists(marker))) given.push({ shown: marker, remove: () => rm(marker, { force: true }) });
      await writeFileAtomically(marker, LAYOUT_FILE);
    }
    for (const [digest, { file }] of this.#staged) {
      const name = nameOf(digest);
      const path = blobs.pathOf(name);
      if (!(await exists(path))) given.push({ shown: blobs.shownPathOf(name), remove: () => blobs.remove(name) });
      await file.publish(path);
    }
    await blobs.sync();
  }

  /** Another run may have removed what nothing named yet. */
  async #checkCounted(): Promise<void> {
    for (const blob of this.#counted.values()) {
      if (this.#staged.has(blob.digest) || (await this.#isThere(blob))) continue;
      throw new OcicryptError('not-written', `${blob.digest} was removed from ${this.name} by another run`, {
        hint: 'nothing was changed: run again',
      });
    }
  }

  #isThere({ digest, size }: BlobIdentity): Promise<boolean> {
    return isFileOfSize(this.#blobPath(digest), size);
  }

  async #readIndex(): Promise<LayoutIndex> {
    const marker = join(this.#directory, 'oci-layout');
    if (await isFile(marker)) parseLayoutVersion(await readSmallFile(marker, `layout ${this.#directory}`), marker);
    const path = join(this.#directory, 'index.json');
    return LayoutIndex.parse(await readSmallFile(path, `layout ${this.#directory}`), path);
  }

  async #readIndexOrNone(): Promise<LayoutIndex> {
    const path = join(this.#directory, 'index.json');
    return (await exists(path)) ? this.#readIndex() : LayoutIndex.parse(EMPTY_INDEX, path);
  }

  #prepare(): Promise<LayoutBlobs> {
    this.#blobs ??= this.#openBlobs();
    return this.#blobs;
  }

  async #release(): Promise<void> {
    // What went wrong with it was said when it was opened.
    const blobs = await this.#blobs?.catch(() => undefined);
    this.#blobs = undefined;
    await blobs?.close();
  }

  /** Finds out what would fail in the end, before the first layer. */
  async #openBlobs(): Promise<LayoutBlobs> {
    let blobs: LayoutBlobs | undefined;
    try {
      const index = await this.#readIndexOrNone();
      index.checkName(this.#wanted, this.#found);
      index.entries();
      blobs = await LayoutBlobs.open(this.#directory);
      await (await createAtomicFile(this.#directory)).discard();
    } catch (error) {
      await blobs?.close();
      if (error instanceof OcicryptError) throw error;
      return notWritten(this.#directory)(error);
    }
    await blobs.removeAbandoned();
    await removeAbandoned(this.#directory);
    return blobs;
  }

  #blobPath(digest: string): string {
    return join(this.#directory, BLOBS, nameOf(digest));
  }
}

/** Of a blob's file. Descriptors are checked when they are parsed; here it decides over a path. */
function nameOf(digest: string): string {
  if (!isDigest(digest)) throw new OcicryptError('bad-input', 'not a SHA-256 digest');
  return digest.slice('sha256:'.length);
}

/** A file in a layout that was not there before. */
type Given = { readonly shown: string; readonly remove: () => Promise<void> };

/** Removes what a failed run has published. @throws OcicryptError the error, which says what stays */
async function takeBack(given: readonly Given[], error: unknown): Promise<never> {
  const left: string[] = [];
  for (const { shown, remove } of given) await remove().catch(() => left.push(shown));
  if (left.length === 0) throw error;
  const { code, message } = asOcicryptError(error);
  throw new OcicryptError(code, `${message}, and ${left.length} new files cannot be removed`, {
    cause: error,
    hint: `they may hold plain layers: remove ${left.slice(0, 4).join(', ')}`,
  });
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (status) => status.isFile(),
    () => false,
  );
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
