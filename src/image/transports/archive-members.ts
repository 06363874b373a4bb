// Finds members of an archive and opens them: by their place in a plain tar, and what a compressed one
// holds from memory if it is small, from a temporary file if it is a layer.

import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import type { ByteSource } from '../cipher/streams.ts';
import { checkManifestSize, MAXIMUM_MANIFEST_BYTES } from '../model/manifest.ts';
import { createAtomicFile, openRegularFile } from './files.ts';
import { MemberNames, memberPath } from './member-names.ts';
import { type BlobReader, readAtMost } from './store.ts';
import { type TarMember, TarReader } from './tar.ts';
import { openTarFile, type TarFile } from './tar-file.ts';
import { createTemporaryDirectory, removeTemporaryDirectory } from './temporary.ts';

/** Of all small members of one compressed archive; what has no room is read again when it is asked for. */
const MAXIMUM_KEPT_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

/** The members of one archive, all headers of which have been read. */
export class ArchiveMembers {
  readonly #path: string;
  readonly #temporary: string | undefined;
  readonly #file: TarFile;
  readonly #names: MemberNames;
  readonly #members = new Map<string, TarMember>();
  readonly #kept = new Map<string, Uint8Array>();
  /** Temporary files by the members that they hold. */
  readonly #unpacked = new Map<string, string>();
  #directory: string | undefined;

  private constructor(path: string, file: TarFile, temporary: string | undefined) {
    this.#path = path;
    this.#temporary = temporary;
    this.#file = file;
    this.#names = new MemberNames(path);
  }

  /**
   * Opens an archive and reads its headers. A compressed one is read once; of its members what may be a manifest or a
   * config (at most 4 MiB, and it begins with a brace) is kept.
   *
   * @param temporary the directory to unpack layers in; the system's if it is left out
   * @throws OcicryptError `not-found`; `bad-input` for what is no archive, and where readers disagree about what it holds
   */
  static async open(path: string, temporary?: string, signal?: AbortSignal): Promise<ArchiveMembers> {
    const members = new ArchiveMembers(path, await openTarFile(path), temporary);
    try {
      await members.#readHeaders(signal);
      return members;
    } catch (error) {
      await members.close();
      throw error;
    }
  }

  /** The size of a member that is a file or a link to one; undefined if there is none. */
  size(name: string): number | undefined {
    return this.#find(name)?.member.size;
  }

  /** Whether a member is a file itself and has a relative name: readers that do not unpack find no other. */
  isOrdinary(name: string): boolean {
    const member = this.#members.get(name);
    return member?.kind === 'file' && !member.name.startsWith('/');
  }

  /**
   * Checks that all blobs can be packed again: what blobs of other digests name is not known.
   *
   * @throws OcicryptError `bad-input`
   */
  checkDigests(): void {
    for (const [path, { kind }] of this.#members) {
      if (kind === 'directory' || !/^blobs\/(?!sha256\/)/.test(path)) continue;
      throw new OcicryptError('bad-input', `${showImagePath(this.#path)} holds a blob whose digest is not SHA-256`, {
        hint: 'it would be lost: write to another archive',
      });
    }
  }

  /** Whether opening a member needs no pass over the whole archive. */
  isAtHand(name: string): boolean {
    const path = this.#find(name)?.path;
    return !this.#file.compressed || path === undefined || this.#kept.has(path) || this.#unpacked.has(path);
  }

  /** Opens a member. @throws OcicryptError `not-found` */
  async open(name: string, signal?: AbortSignal): Promise<BlobReader> {
    const found = this.#find(name);
    if (found === undefined) {
      throw new OcicryptError('not-found', `${name} is not in ${showImagePath(this.#path)}`, {
        hint: 'the archive is damaged or was not written to its end: make it again',
      });
    }
    const { path, member } = found;
    const kept = this.#kept.get(path);
    if (kept !== undefined) return readerOf(kept);
    if (!this.#file.compressed) return this.#readerAt(member);
    if (!this.#unpacked.has(path)) await this.unpack([name], signal);
    return openRegularFile(this.#unpacked.get(path) ?? '', name);
  }

  /** Reads a member of at most 4 MiB. @throws OcicryptError `not-found`, `bad-input` */
  async readSmall(name: string, signal?: AbortSignal): Promise<Uint8Array> {
    checkManifestSize(this.size(name) ?? 0, `${name} of ${showImagePath(this.#path)}`);
    const reader = await this.open(name, signal);
    try {
      return await readAtMost(reader, this.size(name) ?? 0);
    } finally {
      await reader.close();
    }
  }

  /**
   * Writes members of a compressed archive to temporary files, in one pass over it: {@link open} finds them there.
   *
   * @throws OcicryptError `not-written`
   */
  async unpack(names: Iterable<string>, signal?: AbortSignal): Promise<void> {
    if (!this.#file.compressed) return;
    const wanted = new Set([...names].map((name) => this.#find(name)?.path));
    for (const path of [...this.#kept.keys(), ...this.#unpacked.keys(), undefined]) wanted.delete(path);
    await this.#visit(async (member, content) => {
      const path = memberPath(member.name);
      if (path === undefined || !wanted.delete(path)) return wanted.size > 0;
      this.#unpacked.set(path, await this.#write(content, signal));
      return wanted.size > 0;
    }, signal);
  }

  /** Where temporary files of this archive are, made when it is first asked for. @throws OcicryptError `not-written` */
  async temporaryDirectory(): Promise<string> {
    this.#directory ??= await createTemporaryDirectory(this.#temporary);
    return this.#directory;
  }

  async close(): Promise<void> {
    await this.#file.close();
    if (this.#directory !== undefined) await removeTemporaryDirectory(this.#directory);
    this.#directory = undefined;
  }

  #find(name: string): { readonly path: string; readonly member: TarMember } | undefined {
    const path = this.#names.resolve(memberPath(name) ?? '');
    const member = path === undefined ? undefined : this.#members.get(path);
    return path === undefined || member === undefined ? undefined : { path, member };
  }

  async #readHeaders(signal: AbortSignal | undefined): Promise<void> {
    let room = this.#file.compressed ? MAXIMUM_KEPT_BYTES : 0;
    await this.#visit(async (member, content) => {
      const path = this.#names.add(member);
      this.#members.set(path, member);
      if (member.kind !== 'file' || member.size === 0 || member.size > Math.min(room, MAXIMUM_MANIFEST_BYTES))
        return true;
      const first = await readAtMost(content, 1);
      if (first[0] !== OPENING_BRACE && first[0] !== OPENING_BRACKET) return true;
      const bytes = new Uint8Array(member.size);
      bytes.set(first);
      bytes.set(await readAtMost(content, member.size - 1), 1);
      room -= bytes.length;
      this.#kept.set(path, bytes);
      return true;
    }, signal);
    if (this.#members.size === 0)
      throw new OcicryptError('bad-input', `${showImagePath(this.#path)} is an empty archive`);
  }

  /** @param visit tells whether to go on */
  async #visit(
    visit: (member: TarMember, content: ByteSource) => Promise<boolean>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const input = this.#file.start(signal);
    const named = (error: unknown): never => {
      throw error instanceof OcicryptError && error.code === 'bad-input' ? this.#damaged(error) : error;
    };
    try {
      const reader = new TarReader(input);
      const content: ByteSource = { read: (into) => reader.content.read(into).catch(named) };
      for (;;) {
        const member = await reader.next(signal).catch(named);
        if (member === undefined) break;
        if (!(await visit(member, content))) return;
      }
      // What is damaged or cut off behind the tar's end is damaged: its checksums come last.
      await input.skip(Number.MAX_SAFE_INTEGER).catch(named);
    } finally {
      input.close();
    }
  }

  /** Errors of the tar do not know its name. */
  #damaged(error: OcicryptError): OcicryptError {
    return new OcicryptError('bad-input', `${showImagePath(this.#path)}: ${error.message}`, {
      cause: error,
      hint: 'make the archive again',
    });
  }

  #readerAt({ offset, size }: TarMember): BlobReader {
    let done = 0;
    return {
      read: async (into) => {
        const part = into.subarray(0, Math.min(into.length, size - done));
        const count = part.length === 0 ? 0 : await this.#file.readAt(part, offset + done);
        done += count;
        return count;
      },
      close: async () => undefined,
    };
  }

  async #write(content: ByteSource, signal: AbortSignal | undefined): Promise<string> {
    const directory = await this.temporaryDirectory();
    const name = join(directory, String(this.#unpacked.size));
    const file = await createAtomicFile(directory, { layer: true, mode: 0o600 });
    const buffer = new Uint8Array(CHUNK_BYTES);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const count = await content.read(buffer);
        if (count === 0) break;
        await file.write(buffer.subarray(0, count));
      }
      await file.publish(name);
    } finally {
      await file.discard();
    }
    return name;
  }
}

const OPENING_BRACE = 0x7b;
const OPENING_BRACKET = 0x5b;

function readerOf(bytes: Uint8Array): BlobReader {
  let done = 0;
  return {
    read: async (into) => {
      const part = bytes.subarray(done, done + into.length);
      into.set(part);
      done += part.length;
      return part.length;
    },
    close: async () => undefined,
  };
}
