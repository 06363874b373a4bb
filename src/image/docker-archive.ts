// The only code that reads `docker save` archives (docker-archive:): containers-transports(5); the image is given as OCI.

import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { concatBytes } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { type BlobIdentity, formatDigest } from './cipher.ts';
import { notWritten, openRegularFile, TEMPORARY_PREFIX } from './files.ts';
import { MAXIMUM_MANIFEST, MEDIA_TYPES } from './manifest.ts';
import { type BlobReader, createStoredManifest, type ImageSource, type StoredManifest } from './store.ts';
import { forEachMember, writeNewFile } from './tar.ts';

/**
 * An image of a `docker save` archive.
 *
 * @param selector `NAME:TAG` or `@N`, where the archive holds several
 */
export function openDockerArchive(path: string, selector: string | undefined, name: string): ImageSource {
  return new DockerArchiveSource(path, selector, name);
}

type Unpacked = { readonly manifest: StoredManifest; readonly files: ReadonlyMap<string, string> };
type Member = BlobIdentity & { readonly file: string; readonly mediaType: string };

const LAYER = 'application/vnd.oci.image.layer.v1.tar';

class DockerArchiveSource implements ImageSource {
  readonly name: string;
  readonly transfers = 1;
  readonly #path: string;
  readonly #selector: string | undefined;
  #directory: string | undefined;
  #unpacked: Promise<Unpacked> | undefined;

  constructor(path: string, selector: string | undefined, name: string) {
    this.name = name;
    this.#path = path;
    this.#selector = selector;
  }

  async readRoot(): Promise<StoredManifest> {
    return (await this.#open()).manifest;
  }

  async readManifest(): Promise<StoredManifest> {
    throw new OcicryptError('internal', 'a docker archive has no index');
  }

  async openBlob(blob: BlobIdentity): Promise<BlobReader> {
    const file = (await this.#open()).files.get(blob.digest);
    if (file === undefined) throw new OcicryptError('not-found', `blob ${blob.digest} is not in ${this.name}`);
    return openRegularFile(file, `blob ${blob.digest}`);
  }

  async close(): Promise<void> {
    await this.#unpacked?.catch(() => undefined);
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true, force: true });
    this.#directory = undefined;
    this.#unpacked = undefined;
  }

  #open(): Promise<Unpacked> {
    this.#unpacked ??= this.#unpack();
    return this.#unpacked;
  }

  /** Twice through the archive: what it names may stand before or after what names it. */
  async #unpack(): Promise<Unpacked> {
    const entry = await this.#readEntry();
    const config = asText(entry.get('Config'));
    const layers = asArray(entry.get('Layers'))?.map(asText);
    if (config === undefined || layers === undefined || layers.length > 1000) throw this.#damaged();
    const directory = await mkdtemp(join(tmpdir(), TEMPORARY_PREFIX)).catch(notWritten(tmpdir()));
    this.#directory = directory;
    const wanted = new Set([config, ...layers]);
    const members = new Map<string, Member>();
    await forEachMember(this.#path, this.#damaged, async (name, body) => {
      if (wanted.has(name) && !members.has(name)) {
        members.set(name, await unpackMember(join(directory, String(members.size)), body));
      }
    });
    const find = (name: string | undefined): Member => {
      const member = name === undefined ? undefined : members.get(name);
      if (member === undefined) throw this.#damaged();
      return member;
    };
    const { digest, size } = find(config);
    const manifest = writeJson({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.manifest,
      config: { mediaType: MEDIA_TYPES.config, digest, size },
      layers: layers.map(find).map((layer) => ({ mediaType: layer.mediaType, digest: layer.digest, size: layer.size })),
    });
    return {
      manifest: createStoredManifest(manifest, MEDIA_TYPES.manifest),
      files: new Map([...members.values()].map((member) => [member.digest, member.file])),
    };
  }

  async #readEntry(): Promise<JsonObject> {
    let bytes: Uint8Array | undefined;
    await forEachMember(this.#path, this.#damaged, async (name, body) => {
      if (name !== 'manifest.json' || bytes !== undefined) return;
      const chunks: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of body) {
        size += chunk.length;
        if (size > MAXIMUM_MANIFEST) throw this.#damaged();
        chunks.push(chunk);
      }
      bytes = concatBytes(...chunks);
    });
    if (bytes === undefined) throw this.#damaged();
    const entries = asArray(parseJson(bytes, `manifest.json of ${this.#path}`))?.map(asObject) ?? [];
    const found = entries.filter((entry, index) => entry !== undefined && this.#isSelected(entry, index));
    const [first, ...others] = found;
    if (first === undefined) throw new OcicryptError('not-found', `no image ${this.name}`, { hint: namesIn(entries) });
    if (others.length === 0) return first;
    throw new OcicryptError('bad-input', `${this.name} holds ${found.length} images`, { hint: namesIn(entries) });
  }

  #isSelected(entry: JsonObject, index: number): boolean {
    if (this.#selector === undefined) return true;
    return this.#selector === `@${index}` || tagsOf(entry).includes(this.#selector);
  }

  readonly #damaged = (cause?: unknown): OcicryptError =>
    new OcicryptError('bad-input', `${this.#path} is no archive of docker save`, {
      cause,
      hint: 'OCI archives are named oci-archive:FILE',
    });
}

async function unpackMember(file: string, body: AsyncIterable<Uint8Array>): Promise<Member> {
  const hash = createHash('sha256');
  let size = 0;
  let start: readonly number[] = [];
  async function* measured(): AsyncGenerator<Uint8Array> {
    for await (const chunk of body) {
      if (start.length < 4) start = [...start, ...chunk.subarray(0, 4)];
      size += chunk.length;
      hash.update(chunk);
      yield chunk;
    }
  }
  await writeNewFile(file, measured());
  const [a, b, c, d] = start;
  const gzip = a === 0x1f && b === 0x8b;
  const zstd = a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd;
  const mediaType = LAYER + (gzip ? '+gzip' : zstd ? '+zstd' : '');
  return { file, size, mediaType, digest: formatDigest(hash.digest()) };
}

function tagsOf(entry: JsonObject): readonly string[] {
  return asArray(entry.get('RepoTags'))?.flatMap((tag) => asText(tag) ?? []) ?? [];
}

function namesIn(entries: readonly (JsonObject | undefined)[]): string {
  const names = entries.flatMap((entry, index) => (entry === undefined ? [] : [tagsOf(entry)[0] ?? `@${index}`]));
  return `it holds ${names.slice(0, 8).join(', ') || 'nothing'}`;
}
