// The only code that reads and writes OCI layout directories, with tags as skopeo has them.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md

import { constants } from 'node:fs';
import { access, mkdir, open, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import { type JsonInput, writeJson } from '../base/json-writer.ts';
import type { BlobIdentity } from './cipher.ts';
import {
  type AtomicFile,
  createAtomicFile,
  notWritten,
  openRegularFile,
  readSmallFile,
  removeAbandonedFiles,
  syncDirectory,
  writeFileAtomically,
} from './files.ts';
import {
  changeDescriptor,
  type Descriptor,
  formatPlatform,
  isDigest,
  isManifestType,
  MAXIMUM_MANIFEST,
  MEDIA_TYPES,
  parseDescriptor,
  thaw,
} from './manifest.ts';
import { type BlobReader, type BlobWriter, checkContent, type ImageStore, type StoredManifest } from './store.ts';

/** The annotation that holds an image's tag. */
const TAG = 'org.opencontainers.image.ref.name';
const LAYOUT_FILE = '{"imageLayoutVersion":"1.0.0"}';

/** An OCI layout in `directory`; nothing is read or made before it is needed. `name` is for messages. */
export function openLayout(directory: string, tag: string | undefined, name: string): ImageStore {
  return new LayoutStore(directory, tag, name);
}

/** What the index of a layout names. @throws OcicryptError `not-found`, `bad-input` */
export async function readLayoutEntries(directory: string): Promise<readonly Descriptor[]> {
  const { entries } = await readLayoutIndex(directory);
  return entries.map((entry, index) => parseDescriptor(entry, `index.json[${index}]`));
}

/** A blob without its name. */
type StagedBlob = { readonly file: AtomicFile; readonly size: number };

/** Each has an open file until it is sealed. */
const MAXIMUM_UNSEALED = 64;

class LayoutStore implements ImageStore {
  readonly name: string;
  readonly transfers = 1;
  readonly #directory: string;
  readonly #tag: string | undefined;
  /** Blobs get their names when a manifest is about to name them: of a decryption that fails no plain layer stays. */
  readonly #staged = new Map<string, StagedBlob>();
  #prepared: Promise<void> | undefined;
  /** What the name was found to stand for: in place, the new image takes its place. */
  #found: Descriptor | undefined;
  /** The outermost directory that was made here, until something is in it. */
  #made: string | undefined;

  constructor(directory: string, tag: string | undefined, name: string) {
    this.name = name;
    this.#directory = directory;
    this.#tag = tag;
  }

  async readRoot(): Promise<StoredManifest> {
    this.#found = this.#select(await readLayoutEntries(this.#directory));
    return this.readManifest(this.#found);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    const { digest, mediaType, size } = descriptor;
    const what = `manifest ${digest}`;
    if (size > MAXIMUM_MANIFEST)
      throw new OcicryptError('bad-input', `${what} is larger than ${MAXIMUM_MANIFEST} bytes`);
    const bytes = await readSmallFile(this.#blobPath(digest), what);
    checkContent(bytes, descriptor, 'manifest');
    return { bytes, digest, mediaType, size };
  }

  openBlob(blob: BlobIdentity): Promise<BlobReader> {
    return openRegularFile(this.#blobPath(blob.digest), `blob ${blob.digest}`);
  }

  async hasBlob(blob: BlobIdentity): Promise<boolean> {
    if (this.#staged.get(blob.digest)?.size === blob.size) return true;
    const reader = await open(this.#blobPath(blob.digest), constants.O_RDONLY | constants.O_NONBLOCK).catch(
      () => undefined,
    );
    if (reader === undefined) return false;
    try {
      const status = await reader.stat();
      return status.isFile() && status.size === blob.size;
    } finally {
      await reader.close();
    }
  }

  async createBlob(): Promise<BlobWriter> {
    await this.#prepare();
    const file = await createAtomicFile(this.#blobs(), true);
    let staged = false;
    return {
      write: (bytes) => file.write(bytes),
      commit: async ({ digest, size }) => {
        staged = true;
        const twin = this.#staged.get(digest);
        this.#staged.set(digest, { file, size });
        await twin?.file.discard();
        if (this.#staged.size % MAXIMUM_UNSEALED === 0) await this.#seal();
      },
      discard: async () => {
        if (!staged) await file.discard();
      },
    };
  }

  async writeManifest(manifest: StoredManifest): Promise<void> {
    await this.#prepare();
    await this.#writeMarkers();
    await this.#publish();
    if (!(await this.hasBlob(manifest))) await writeFileAtomically(this.#blobPath(manifest.digest), manifest.bytes);
  }

  async writeRoot(manifest: StoredManifest): Promise<void> {
    await this.writeManifest(manifest);
    const { entries, json } = await readLayoutIndex(this.#directory);
    const { digest, mediaType, size } = manifest;
    const annotations = this.#tag === undefined ? {} : { annotations: { [TAG]: this.#tag } };
    const entry: JsonInput =
      this.#found === undefined
        ? { mediaType, digest, size, ...annotations }
        : changeDescriptor(this.#found, { mediaType, digest, size });
    const kept = entries.filter((other) => !this.#isReplaced(other)).map(thaw);
    const index = writeJson({
      schemaVersion: 2,
      ...Object.fromEntries([...json].map(([member, value]) => [member, thaw(value)])),
      manifests: [...kept, entry],
    });
    await writeFileAtomically(join(this.#directory, 'index.json'), index);
  }

  async close(): Promise<void> {
    for (const { file } of this.#staged.values()) await file.discard();
    this.#staged.clear();
    if (this.#made !== undefined) await removeEmptyDirectories(this.#blobs(), this.#made);
  }

  async #publish(): Promise<void> {
    if (this.#staged.size === 0) return;
    await this.#seal();
    for (const [digest, { file }] of this.#staged) await file.publish(this.#blobPath(digest));
    this.#staged.clear();
    await syncDirectory(this.#blobs()).catch(notWritten(this.#blobs()));
  }

  /** All together: a journal takes many files in one commit, and the next layer never waits for the disk. */
  async #seal(): Promise<void> {
    await Promise.all([...this.#staged.values()].map(({ file }) => file.seal()));
  }

  #blobs(): string {
    return join(this.#directory, 'blobs/sha256');
  }

  /** Under a tag only the tag moves. Without one the image is the only one, as it must be to be found again. */
  #isReplaced(entry: JsonObject): boolean {
    const tag = asText(asObject(entry.get('annotations'))?.get(TAG));
    return tag === this.#tag || (this.#tag === undefined && asText(entry.get('digest')) === this.#found?.digest);
  }

  /** An image without a tag beside others could not be named afterwards. */
  async #checkName(): Promise<void> {
    if (this.#tag !== undefined || this.#found !== undefined || !(await exists(join(this.#directory, 'index.json'))))
      return;
    const tags = (await readLayoutEntries(this.#directory)).flatMap((entry) => entry.annotations.get(TAG) ?? []);
    if (tags.length === 0) return;
    throw new OcicryptError('bad-input', `${this.name} holds images with tags, and the new one would have none`, {
      hint: `name it ${this.name}:TAG; there are ${tags.slice(0, 8).join(', ')}`,
    });
  }

  #select(entries: readonly Descriptor[]): Descriptor {
    const usable = entries.filter((entry) => isManifestType(entry.mediaType));
    const tags = usable.flatMap((entry) => entry.annotations.get(TAG) ?? []);
    const known = tags.length === 0 ? 'it has no tags' : `its tags are ${tags.slice(0, 8).join(', ')}`;
    const found = this.#tag === undefined ? usable : usable.filter((entry) => entry.annotations.get(TAG) === this.#tag);
    const [first, ...others] = found;
    if (first === undefined) throw new OcicryptError('not-found', `no image ${this.name}`, { hint: known });
    if (others.length === 0) return first;
    if (this.#tag === undefined) {
      const spelled = tags[0] === undefined ? this.name : `${this.name}:${tags[0]}`;
      throw new OcicryptError('bad-input', `${this.name} holds ${found.length} images`, {
        hint: tags[0] === undefined ? 'give the image a tag' : `name one as ${spelled}; ${known}`,
      });
    }
    const platforms = found.flatMap((entry) => (entry.platform === undefined ? [] : [formatPlatform(entry.platform)]));
    throw new OcicryptError('bad-input', `${found.length} images have the tag of ${this.name}`, {
      hint: `platforms ${platforms.join(', ')}: put them under one index`,
    });
  }

  #prepare(): Promise<void> {
    this.#prepared ??= this.#makeDirectories();
    return this.#prepared;
  }

  async #makeDirectories(): Promise<void> {
    await this.#checkName();
    const blobs = this.#blobs();
    try {
      this.#made = await mkdir(blobs, { recursive: true });
      await removeAbandonedFiles(blobs);
      await removeAbandonedFiles(this.#directory);
    } catch (error) {
      notWritten(this.#directory)(error);
    }
  }

  /** What makes a directory a layout. */
  async #writeMarkers(): Promise<void> {
    this.#made = undefined;
    const marker = join(this.#directory, 'oci-layout');
    if (!(await exists(marker))) await writeFileAtomically(marker, new TextEncoder().encode(LAYOUT_FILE));
    const index = join(this.#directory, 'index.json');
    const empty = { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [] };
    if (!(await exists(index))) await writeFileAtomically(index, writeJson(empty));
  }

  #blobPath(digest: string): string {
    // Descriptors are checked when they are parsed; here it decides over a path.
    if (!isDigest(digest)) throw new OcicryptError('bad-input', 'not a SHA-256 digest');
    return join(this.#directory, 'blobs/sha256', digest.slice('sha256:'.length));
  }
}

async function readLayoutIndex(
  directory: string,
): Promise<{ readonly entries: readonly JsonObject[]; readonly json: JsonObject }> {
  const path = join(directory, 'index.json');
  const json = asObject(parseJson(await readSmallFile(path, `layout ${directory}`), path));
  const manifests = json?.get('manifests');
  const entries = manifests === null ? [] : asArray(manifests)?.map(asObject);
  if (json === undefined || entries === undefined) throw new OcicryptError('bad-input', `${path} is no image index`);
  const objects = entries.filter((entry) => entry !== undefined);
  if (objects.length < entries.length) throw new OcicryptError('bad-input', `${path} is no image index`);
  return { entries: objects, json };
}

/** From `inner` outwards to `outer`; the first that holds something, or is not ours to remove, ends it. */
async function removeEmptyDirectories(inner: string, outer: string): Promise<void> {
  const last = resolve(outer);
  for (let directory = resolve(inner); directory.startsWith(last); directory = dirname(directory)) {
    const removed = await rmdir(directory).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
