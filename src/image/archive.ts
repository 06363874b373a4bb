// The only code that reads and writes oci-archive files: a layout in a tar, unpacked beside and packed again as a whole.

import { access, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { packTar, type TarSource } from 'modern-tar/fs';
import { OcicryptError } from '../base/errors.ts';
import type { BlobIdentity } from './cipher.ts';
import { createAtomicFile, notWritten, removeAbandonedFiles, TEMPORARY_PREFIX } from './files.ts';
import { openLayout, readLayoutEntries } from './layout.ts';
import { type Descriptor, isManifestType, parseManifest } from './manifest.ts';
import type { BlobReader, BlobWriter, ImageStore, StoredManifest } from './store.ts';
import { forEachMember, writeNewFile } from './tar.ts';

/**
 * An OCI layout in a tar file. Reading unpacks it into a temporary directory; writing packs what the index names, and
 * nothing else, so that no plain layer stays behind in an archive that is encrypted in place.
 *
 * @param writing whether the archive will be written
 */
export function openArchive(path: string, tag: string | undefined, name: string, writing: boolean): ImageStore {
  return new ArchiveStore(path, tag, name, writing);
}

const MEMBER = /^(?:\.\/)?(oci-layout|index\.json|blobs\/sha256\/[0-9a-f]{64})$/;

class ArchiveStore implements ImageStore {
  readonly name: string;
  readonly transfers = 1;
  readonly #path: string;
  readonly #tag: string | undefined;
  readonly #writing: boolean;
  #directory: string | undefined;
  #isMissing = false;
  #layout: Promise<ImageStore> | undefined;

  constructor(path: string, tag: string | undefined, name: string, writing: boolean) {
    this.name = name;
    this.#path = path;
    this.#tag = tag;
    this.#writing = writing;
  }

  async readRoot(): Promise<StoredManifest> {
    const layout = await this.#open();
    if (this.#isMissing) throw new OcicryptError('not-found', `no file ${this.#path}`, { hint: 'check the path' });
    return layout.readRoot();
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    return (await this.#open()).readManifest(descriptor);
  }

  async openBlob(blob: BlobIdentity): Promise<BlobReader> {
    return (await this.#open()).openBlob(blob);
  }

  async hasBlob(blob: BlobIdentity): Promise<boolean> {
    return (await this.#open()).hasBlob(blob);
  }

  async createBlob(size: number): Promise<BlobWriter> {
    return (await this.#open()).createBlob(size);
  }

  async writeManifest(manifest: StoredManifest): Promise<void> {
    await (await this.#open()).writeManifest(manifest);
  }

  async writeRoot(manifest: StoredManifest, signal?: AbortSignal): Promise<void> {
    const layout = await this.#open();
    await layout.writeRoot(manifest);
    const directory = this.#directory ?? '';
    const members = ['oci-layout', 'index.json', ...(await referencedBlobs(directory, layout))];
    const file = await createAtomicFile(dirname(this.#path));
    try {
      const packed = packTar(members.map((member) => tarSource(directory, member)));
      for await (const chunk of packed) {
        signal?.throwIfAborted();
        await file.write(chunk);
      }
      await file.commit(this.#path);
    } finally {
      await file.discard();
    }
  }

  async close(): Promise<void> {
    await this.#layout?.catch(() => undefined);
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true, force: true });
    this.#directory = undefined;
    this.#layout = undefined;
  }

  #open(): Promise<ImageStore> {
    this.#layout ??= this.#unpack();
    return this.#layout;
  }

  async #unpack(): Promise<ImageStore> {
    // Beside the archive when there is one to write: that disk has room for it, and the temporary one may not.
    const parent = this.#writing ? dirname(this.#path) : tmpdir();
    try {
      if (this.#writing) await removeAbandonedFiles(parent);
      this.#directory = await mkdtemp(join(parent, TEMPORARY_PREFIX));
    } catch (error) {
      notWritten(parent)(error);
    }
    const directory = this.#directory ?? '';
    const present = await access(this.#path).then(
      () => true,
      () => false,
    );
    if (present) await unpackLayout(this.#path, directory);
    this.#isMissing = !present;
    return openLayout(directory, this.#tag, this.name);
  }
}

/** Takes the members of a layout that are plain files, by their names; links, devices and all other paths are left. */
async function unpackLayout(path: string, directory: string): Promise<void> {
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  const seen = new Set<string>();
  const damaged = (cause?: unknown) =>
    new OcicryptError('bad-input', `${path} is no OCI archive`, {
      cause,
      hint: 'other archives are named docker-archive:FILE',
    });
  await forEachMember(path, damaged, async (name, body) => {
    const member = MEMBER.exec(name)?.[1];
    if (member === undefined) return;
    // A second member of the same name is an attack or an accident, and neither is sorted out here.
    if (seen.has(member)) throw damaged();
    seen.add(member);
    await writeNewFile(join(directory, member), body);
  });
}

/** The names of all blobs that the index leads to. */
async function referencedBlobs(directory: string, layout: ImageStore): Promise<readonly string[]> {
  const found = new Set<string>();
  const visit = async (descriptor: Descriptor, depth: number): Promise<void> => {
    if (found.has(descriptor.digest)) return;
    if (await layout.hasBlob(descriptor)) found.add(descriptor.digest);
    if (!isManifestType(descriptor.mediaType) || depth > 4) return;
    const { bytes, mediaType } = await layout.readManifest(descriptor);
    const manifest = parseManifest(bytes, mediaType, `manifest ${descriptor.digest}`);
    const inner = manifest.kind === 'index' ? manifest.manifests : [manifest.config, ...manifest.layers];
    for (const entry of inner) await visit(entry, depth + 1);
  };
  for (const entry of await readLayoutEntries(directory)) await visit(entry, 1);
  return [...found].map((digest) => join('blobs/sha256', digest.slice('sha256:'.length)));
}

/** The same archive whenever the same image is packed. */
function tarSource(directory: string, member: string): TarSource {
  return {
    type: 'file',
    source: join(directory, member),
    target: member,
    mode: 0o644,
    mtime: new Date(0),
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
  };
}
