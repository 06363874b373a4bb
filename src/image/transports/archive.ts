// Reads and writes oci-archive files: a layout in a tar, read in place and written anew as a whole.

import { dirname } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import type { BlobIdentity } from '../cipher/layer.ts';
import type { Descriptor } from '../model/descriptor.ts';
import { checkManifestSize, isManifestType, parseLayoutVersion, parseManifest } from '../model/manifest.ts';
import { notDurable } from '../not-written.ts';
import { type ArchiveTarget, changedMeanwhile, packBlob, packBytes, readTarget } from './archive-file.ts';
import { ArchiveMembers } from './archive-members.ts';
import { type AtomicFile, createAtomicFile, openRegularFile, readSmallFile, syncDirectory } from './files.ts';
import { blobPath, EMPTY_INDEX, LAYOUT_FILE, LayoutIndex, type LayoutName } from './layout-index.ts';
import { type BlobReader, type BlobWriter, checkContent, type ImageStore, type StoredManifest } from './store.ts';
import { endTar } from './tar-write.ts';
import { removeAbandoned } from './temporary.ts';

/**
 * An OCI layout in a tar file, which may be compressed. Writing packs what the index leads to, and nothing else, so that
 * no plain layer stays behind in an archive that is encrypted in place.
 *
 * @param writing whether the archive will be written: then what is temporary is beside it, if there is room for it
 */
export function openArchive(path: string, tag: string | undefined, name: string, writing: boolean): ImageStore {
  return new ArchiveStore(path, { name, tag }, writing);
}

/** Indexes in indexes, as many as an image may have, and the index of the archive. */
const MAXIMUM_DEPTH = 5;

type Staged = { readonly file: AtomicFile; readonly size: number };
class ArchiveStore implements ImageStore {
  readonly name: string;
  readonly transfers = 1;
  readonly #path: string;
  readonly #wanted: LayoutName;
  readonly #writing: boolean;
  readonly #staged = new Map<string, Staged>();
  #members: Promise<ArchiveMembers> | undefined;
  #target: Promise<ArchiveTarget> | undefined;
  #found: Descriptor | undefined;
  /** As it was when the image was read. */
  #index: LayoutIndex | undefined;
  #unpacked: Promise<void> | undefined;
  /** Of the file that the image was read from. */
  #identity: string | undefined;

  constructor(path: string, wanted: LayoutName, writing: boolean) {
    this.name = wanted.name;
    this.#path = path;
    this.#wanted = wanted;
    this.#writing = writing;
  }

  async readRoot(signal?: AbortSignal): Promise<StoredManifest> {
    this.#index = await this.#readIndex(await this.#open(signal));
    this.#found = this.#index.select(this.#wanted);
    return this.readManifest(this.#found, signal);
  }

  async readManifest(descriptor: Descriptor, signal?: AbortSignal): Promise<StoredManifest> {
    const { digest, mediaType, size } = descriptor;
    checkManifestSize(size, `manifest ${digest}`);
    this.#index?.checkType(descriptor);
    const staged = this.#staged.get(digest);
    const bytes =
      staged === undefined
        ? await (await this.#open(signal)).readSmall(blobPath(digest), signal)
        : await readSmallFile(staged.file.path, `manifest ${digest}`);
    checkContent(bytes, descriptor, 'manifest');
    return { bytes, digest, mediaType, size };
  }

  async openBlob(blob: BlobIdentity, signal?: AbortSignal): Promise<BlobReader> {
    const members = await this.#open(signal);
    const size = members.size(blobPath(blob.digest));
    if (size !== undefined && size !== blob.size) throw this.#damaged(blob);
    if (!members.isAtHand(blobPath(blob.digest))) {
      // Of a compressed archive all that the image needs is unpacked in one pass, and nothing else.
      this.#unpacked ??= this.#unpack(members, signal);
      await this.#unpacked;
    }
    return members.open(blobPath(blob.digest), signal);
  }

  async hasBlob({ digest, size }: BlobIdentity): Promise<boolean> {
    if (this.#staged.get(digest)?.size === size) return true;
    return (await this.#openOld())?.size(blobPath(digest)) === size;
  }

  async createBlob(): Promise<BlobWriter> {
    const file = await this.#createFile(true);
    let staged = false;
    return {
      write: (bytes) => file.write(bytes),
      commit: async (blob) => {
        staged = true;
        await this.#stage(blob, file);
      },
      discard: async () => {
        if (!staged) await file.discard();
      },
    };
  }

  async writeManifest(manifest: StoredManifest): Promise<void> {
    if (await this.hasBlob(manifest)) return;
    const file = await this.#createFile(false);
    try {
      await file.write(manifest.bytes);
    } catch (error) {
      await file.discard();
      throw error;
    }
    await this.#stage(manifest, file);
  }

  async writeRoot(manifest: StoredManifest, signal?: AbortSignal): Promise<void> {
    await this.writeManifest(manifest);
    const target = await this.#readTarget();
    const index = (await this.#readIndex(await this.#openOld())).with(manifest, this.#wanted, this.#found);
    const file = await createAtomicFile(dirname(target.path), { mode: target.owner === undefined ? 0o644 : 0o600 });
    try {
      await packBytes(file, 'oci-layout', LAYOUT_FILE);
      await packBytes(file, 'index.json', index);
      for (const blob of await this.#collect(LayoutIndex.parse(index, this.#path), signal)) {
        await this.#pack(file, blob, signal);
      }
      await endTar(file);
      if (target.owner !== undefined) await file.own(target.owner);
      await file.seal();
      signal?.throwIfAborted();
      const isOther = this.#identity !== undefined && this.#identity !== target.identity;
      if (isOther || (await readTarget(this.#path)).identity !== target.identity) throw changedMeanwhile(this.#path);
      await file.publish(target.path);
      await syncDirectory(dirname(target.path)).catch(notDurable(`${this.name} (${manifest.digest})`));
    } finally {
      await file.discard();
    }
  }

  async close(): Promise<void> {
    for (const { file } of this.#staged.values()) await file.discard();
    this.#staged.clear();
    const members = await this.#members?.catch(() => undefined);
    await members?.close();
    this.#members = undefined;
    this.#unpacked = undefined;
  }

  #open(signal?: AbortSignal): Promise<ArchiveMembers> {
    this.#members ??= this.#openMembers(signal);
    return this.#members;
  }

  async #openMembers(signal: AbortSignal | undefined): Promise<ArchiveMembers> {
    if (!this.#writing) return ArchiveMembers.open(this.#path, undefined, signal);
    this.#identity = (await readTarget(this.#path).catch(() => undefined))?.identity;
    return ArchiveMembers.open(this.#path, dirname(this.#path), signal);
  }

  /** The archive that is there already, if there is one. */
  async #openOld(): Promise<ArchiveMembers | undefined> {
    return (await this.#readTarget()).owner === undefined ? undefined : this.#open();
  }

  async #readIndex(members: ArchiveMembers | undefined): Promise<LayoutIndex> {
    const what = `index.json of ${this.#path}`;
    if (members === undefined) return LayoutIndex.parse(EMPTY_INDEX, what);
    if (members.size('index.json') === undefined) {
      throw new OcicryptError('bad-input', `${this.#path} is no OCI archive: it holds no index.json`, {
        hint: 'archives of docker save are named docker-archive:FILE',
      });
    }
    const marker = 'oci-layout';
    const hasMarker = members.size(marker) !== undefined;
    const version = hasMarker ? parseLayoutVersion(await members.readSmall(marker), `${marker} of ${this.#path}`) : '';
    // containerd (core/images/archive/importer.go) takes manifest.json if no oci-layout has a version.
    if (members.size('manifest.json') !== undefined && (!version || !members.isOrdinary(marker))) {
      throw new OcicryptError('bad-input', `${this.#path} is an archive of docker save to some readers`, {
        hint: `it holds a manifest.json, and its ${marker} is missing, a link or without a version: write it again, or name it docker-archive:FILE`,
      });
    }
    return LayoutIndex.parse(await members.readSmall('index.json'), what);
  }

  /** The file that will be replaced, and what would fail in the end: looked at once, before the first layer. */
  #readTarget(): Promise<ArchiveTarget> {
    this.#target ??= this.#checkTarget();
    return this.#target;
  }

  async #checkTarget(): Promise<ArchiveTarget> {
    const target = await readTarget(this.#path);
    const old = target.owner === undefined ? undefined : await this.#open();
    (await this.#readIndex(old)).checkName(this.#wanted, this.#found);
    old?.checkDigests();
    await removeAbandoned(dirname(target.path));
    return target;
  }

  async #createFile(layer: boolean): Promise<AtomicFile> {
    const { path } = await this.#readTarget();
    return createAtomicFile(dirname(path), { layer, mode: 0o600 });
  }

  async #stage({ digest, size }: BlobIdentity, file: AtomicFile): Promise<void> {
    const twin = this.#staged.get(digest);
    this.#staged.set(digest, { file, size });
    await twin?.file.discard();
    await file.seal();
  }

  async #unpack(members: ArchiveMembers, signal: AbortSignal | undefined): Promise<void> {
    const blobs = await this.#walk(this.#found === undefined ? [] : [this.#found], signal);
    const named = blobs.map(({ digest, size }) => ({ name: blobPath(digest), size }));
    await members.unpack(
      named.filter(({ name, size }) => members.size(name) === size).map(({ name }) => name),
      signal,
    );
  }

  /** What the new archive holds: all that its index leads to and that is here. What the old one lacked stays absent. */
  async #collect(index: LayoutIndex, signal: AbortSignal | undefined): Promise<readonly BlobIdentity[]> {
    const blobs: BlobIdentity[] = [];
    for (const blob of await this.#walk(index.entries(), signal)) if (await this.#isHere(blob)) blobs.push(blob);
    const old = blobs.filter(({ digest }) => !this.#staged.has(digest)).map(({ digest }) => blobPath(digest));
    await (await this.#openOld())?.unpack(old, signal);
    return blobs;
  }

  /** All that descriptors lead to, each once, as far as the manifests are here. */
  async #walk(roots: readonly Descriptor[], signal: AbortSignal | undefined): Promise<readonly BlobIdentity[]> {
    const found = new Map<string, BlobIdentity>();
    const visit = async (descriptor: Descriptor, depth: number): Promise<void> => {
      if (found.has(descriptor.digest)) return;
      found.set(descriptor.digest, descriptor);
      if (!isManifestType(descriptor.mediaType) || depth > MAXIMUM_DEPTH || !(await this.#isHere(descriptor))) return;
      const { bytes, mediaType } = await this.readManifest(descriptor, signal);
      const manifest = parseManifest(bytes, mediaType, `manifest ${descriptor.digest}`);
      const inner = manifest.kind === 'index' ? manifest.manifests : [manifest.config, ...manifest.layers];
      for (const entry of inner) await visit(entry, depth + 1);
    };
    for (const root of roots) await visit(root, 1);
    return [...found.values()];
  }

  async #isHere({ digest }: BlobIdentity): Promise<boolean> {
    if (this.#staged.has(digest)) return true;
    const members = this.#writing ? await this.#openOld() : await this.#open();
    return members?.size(blobPath(digest)) !== undefined;
  }

  /** Copies a blob into the new archive; one that is not what its descriptor says would be lost with the old one. */
  async #pack(file: AtomicFile, blob: BlobIdentity, signal: AbortSignal | undefined): Promise<void> {
    const staged = this.#staged.get(blob.digest);
    const reader =
      staged === undefined
        ? await this.openBlob(blob, signal)
        : await openRegularFile(staged.file.path, `blob ${blob.digest}`);
    try {
      if (!(await packBlob(file, blob, reader, signal))) throw this.#damaged(blob);
    } finally {
      await reader.close();
    }
  }

  #damaged({ digest }: BlobIdentity): OcicryptError {
    return new OcicryptError('integrity', `blob ${digest} of ${this.name} does not have that digest and size`, {
      hint: 'nothing was changed: the archive is damaged, make it again',
    });
  }
}
