// Reads `docker save` archives (docker-archive:): containers-transports(5); the image is given as OCI.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { OcicryptError } from '../../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../../base/json.ts';
import { findMember } from '../../base/json-members.ts';
import { writeJson } from '../../base/json-writer.ts';
import { type BlobIdentity, formatDigest } from '../cipher/layer.ts';
import { beginsWith, GZIP, ZSTD } from '../cipher/magic.ts';
import type { ByteSource } from '../cipher/streams.ts';
import { MEDIA_TYPES } from '../model/manifest.ts';
import { formatImageReference, parseImageReference } from '../model/reference.ts';
import { ArchiveMembers } from './archive-members.ts';
import { createAtomicFile, openRegularFile } from './files.ts';
import { memberPath } from './member-names.ts';
import { type BlobReader, createStoredManifest, type ImageSource, readAtMost, type StoredManifest } from './store.ts';

/**
 * An image of a `docker save` archive. Its layers are compressed when they are first asked for: after encryption nothing
 * can do it any more.
 *
 * @param selector `NAME[:TAG]` in any spelling, or `@N`, if the archive holds several
 * @param compress whether layers will be copied; else the manifest names them as the archive holds them, and nothing is
 *   unpacked
 */
export function openDockerArchive(
  path: string,
  selector: string | undefined,
  name: string,
  compress: boolean,
): ImageSource {
  return new DockerArchiveSource(path, selector, name, compress);
}

type Image = { readonly manifest: StoredManifest; readonly blobs: ReadonlyMap<string, Opener> };
type Opener = (signal: AbortSignal | undefined) => Promise<BlobReader>;
type Layer = BlobIdentity & { readonly mediaType: string; readonly open: Opener };

const LAYER = 'application/vnd.oci.image.layer.v1.tar';
const MAXIMUM_LAYERS = 1000;
const CHUNK_BYTES = 1024 * 1024;

class DockerArchiveSource implements ImageSource {
  readonly name: string;
  readonly transfers = 1;
  readonly #path: string;
  readonly #selector: string | undefined;
  readonly #compress: boolean;
  #members: Promise<ArchiveMembers> | undefined;
  #image: Promise<Image> | undefined;

  constructor(path: string, selector: string | undefined, name: string, compress: boolean) {
    this.name = name;
    this.#path = path;
    this.#selector = selector;
    this.#compress = compress;
  }

  async readRoot(signal?: AbortSignal): Promise<StoredManifest> {
    return (await this.#open(signal)).manifest;
  }

  async readManifest(): Promise<StoredManifest> {
    throw new OcicryptError('internal', 'a docker archive has no index');
  }

  async openBlob(blob: BlobIdentity, signal?: AbortSignal): Promise<BlobReader> {
    const open = (await this.#open(signal)).blobs.get(blob.digest);
    if (open === undefined) throw new OcicryptError('not-found', `blob ${blob.digest} is not in ${this.name}`);
    return open(signal);
  }

  async close(): Promise<void> {
    await this.#image?.catch(() => undefined);
    const members = await this.#members?.catch(() => undefined);
    await members?.close();
    this.#members = undefined;
    this.#image = undefined;
  }

  #open(signal: AbortSignal | undefined): Promise<Image> {
    this.#members ??= ArchiveMembers.open(this.#path, undefined, signal);
    this.#image ??= this.#members.then((members) => this.#read(members, signal));
    return this.#image;
  }

  async #read(members: ArchiveMembers, signal: AbortSignal | undefined): Promise<Image> {
    if (members.size('manifest.json') === undefined) throw this.#damaged('it holds no manifest.json');
    const entry = this.#select(await members.readSmall('manifest.json', signal));
    const configName = asText(findMember(entry, 'Config'));
    const names = asArray(findMember(entry, 'Layers'))?.map(asText) ?? [];
    if (configName === undefined || names.length > MAXIMUM_LAYERS)
      throw this.#damaged('its manifest.json names no image');
    const config = await members.readSmall(configName, signal);
    const diffIds = asArray(asObject(asObject(parseJson(config, configName))?.get('rootfs'))?.get('diff_ids')) ?? [];
    if (diffIds.length !== names.length) throw this.#damaged('its config and its manifest.json name different layers');
    if (this.#compress) {
      await members.unpack(
        names.filter((name) => name !== undefined),
        signal,
      );
    }
    const layers = new Map<string, Layer>();
    const list = [];
    for (const [index, name] of names.entries()) {
      const path = memberPath(name ?? '');
      const size = members.size(name ?? '');
      if (path === undefined || size === undefined) throw this.#damaged(`it does not hold layer ${index}`);
      const known = layers.get(path) ?? (await this.#layer(members, path, asText(diffIds[index]) ?? '', size, signal));
      layers.set(path, known);
      list.push({ mediaType: known.mediaType, digest: known.digest, size: known.size });
    }
    const stored = createStoredManifest(config, MEDIA_TYPES.config);
    const manifest = writeJson({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.manifest,
      config: { mediaType: MEDIA_TYPES.config, digest: stored.digest, size: stored.size },
      layers: list,
    });
    const openConfig: Opener = (running) => members.open(configName, running);
    return {
      manifest: createStoredManifest(manifest, MEDIA_TYPES.manifest),
      blobs: new Map([
        [stored.digest, openConfig],
        ...[...layers.values()].map(({ digest, open }): [string, Opener] => [digest, open]),
      ]),
    };
  }

  /** A layer as it will be copied: compressed, if it is not; or as the archive and its config say it is. */
  async #layer(
    members: ArchiveMembers,
    path: string,
    diffId: string,
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<Layer> {
    const open: Opener = (running) => members.open(path, running);
    if (!this.#compress) return { digest: diffId, size, mediaType: LAYER, open };
    const compression = await withReader(open, signal, async (reader) =>
      compressionAt(await readAtMost(reader, ZSTD.length)),
    );
    if (compression !== '') {
      const identity = await withReader(open, signal, (reader) => measure(reader, signal));
      return { ...identity, mediaType: LAYER + compression, open };
    }
    const file = join(
      await members.temporaryDirectory(),
      `${formatDigest(createHash('sha256').update(path).digest())}.gz`,
    );
    const identity = await withReader(open, signal, (reader) => compressTo(file, reader, diffId, signal));
    return { ...identity, mediaType: `${LAYER}+gzip`, open: () => openRegularFile(file, path) };
  }

  #select(bytes: Uint8Array): JsonObject {
    const entries = asArray(parseJson(bytes, `manifest.json of ${this.#path}`))?.map(asObject) ?? [];
    const found = entries.filter((entry, index) => entry !== undefined && this.#isSelected(entry, index));
    const [first, ...others] = found;
    if (first === undefined) throw new OcicryptError('not-found', `no image ${this.name}`, { hint: namesIn(entries) });
    if (others.length === 0) return first;
    throw new OcicryptError('bad-input', `${this.name} holds ${found.length} images`, { hint: namesIn(entries) });
  }

  #isSelected(entry: JsonObject, index: number): boolean {
    if (this.#selector === undefined || this.#selector === `@${index}`) return true;
    const wanted = canonicalName(this.#selector);
    return tagsOf(entry).some((tag) => canonicalName(tag) === wanted);
  }

  #damaged(reason: string): OcicryptError {
    return new OcicryptError('bad-input', `${this.#path} is no archive of docker save: ${reason}`, {
      hint: 'OCI archives are named oci-archive:FILE',
    });
  }
}

async function withReader<Result>(
  open: Opener,
  signal: AbortSignal | undefined,
  work: (reader: BlobReader) => Promise<Result>,
): Promise<Result> {
  const reader = await open(signal);
  try {
    return await work(reader);
  } finally {
    await reader.close();
  }
}

function compressionAt(head: Uint8Array): '' | '+gzip' | '+zstd' {
  if (beginsWith(head, GZIP)) return '+gzip';
  return beginsWith(head, ZSTD) ? '+zstd' : '';
}

async function measure(source: ByteSource, signal: AbortSignal | undefined): Promise<BlobIdentity> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of chunksOf(source, signal)) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { digest: formatDigest(hash.digest()), size };
}

/** Compresses a layer into a file; what the config says it is, it must be. */
async function compressTo(
  path: string,
  source: ByteSource,
  diffId: string,
  signal: AbortSignal | undefined,
): Promise<BlobIdentity> {
  const file = await createAtomicFile(join(path, '..'), { mode: 0o600 });
  const plain = createHash('sha256');
  const hash = createHash('sha256');
  let size = 0;
  async function* hashed(): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunksOf(source, signal)) {
      plain.update(chunk);
      yield chunk;
    }
  }
  const gzip = createGzip();
  const input = Readable.from(hashed(), { objectMode: false });
  input.on('error', (error) => gzip.destroy(error));
  try {
    for await (const chunk of input.pipe(gzip)) {
      hash.update(chunk);
      size += chunk.length;
      await file.write(chunk);
    }
    if (formatDigest(plain.digest()) !== diffId) {
      throw new OcicryptError('integrity', `layer ${diffId} does not have that digest`, {
        hint: 'the archive is damaged: save the image again',
      });
    }
    await file.publish(path);
    return { digest: formatDigest(hash.digest()), size };
  } finally {
    input.destroy();
    gzip.destroy();
    await file.discard();
  }
}

async function* chunksOf(source: ByteSource, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  for (;;) {
    signal?.throwIfAborted();
    const buffer = new Uint8Array(CHUNK_BYTES);
    const count = await source.read(buffer);
    if (count === 0) return;
    yield buffer.subarray(0, count);
  }
}

/** `busybox`, `busybox:latest` and `docker.io/library/busybox:latest` are one name: distribution/reference. */
function canonicalName(name: string): string {
  try {
    return formatImageReference(parseImageReference(`docker://${name}`));
  } catch {
    return name;
  }
}

function tagsOf(entry: JsonObject): readonly string[] {
  return asArray(findMember(entry, 'RepoTags'))?.flatMap((tag) => asText(tag) ?? []) ?? [];
}

function namesIn(entries: readonly (JsonObject | undefined)[]): string {
  const names = entries.flatMap((entry, index) => (entry === undefined ? [] : [tagsOf(entry)[0] ?? `@${index}`]));
  return `it holds ${names.slice(0, 8).join(', ') || 'nothing'}`;
}
