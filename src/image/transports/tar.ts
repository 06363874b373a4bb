// Reads the headers of tar files: ustar, PAX and GNU as Go's archive/tar reads them, as hostile input.

import { OcicryptError } from '../../base/errors.ts';
import type { ByteSource } from '../cipher/streams.ts';
import type { ArchiveMember } from './member-names.ts';

/** A member of a tar. `offset` is where its content starts in the uncompressed tar. */
export type TarMember = ArchiveMember & { readonly size: number; readonly offset: number };

/** The bytes of a tar from its start. */
export interface TarInput {
  /** Fills `into`; fewer bytes are the end. */
  read(into: Uint8Array): Promise<number>;
  /** Passes over bytes. @returns how many there were, at most `count` */
  skip(count: number): Promise<number>;
}

const BLOCK_BYTES = 512;
const MAXIMUM_MEMBERS = 20_000;
/** A member has at most one of PAX, and two of GNU for its names. */
const MAXIMUM_HEADERS = 4 * MAXIMUM_MEMBERS;
/** What Go reads at most as one PAX or GNU record. */
const MAXIMUM_RECORD_BYTES = 1024 * 1024;

/** Reads a tar member by member; what is not read of a member's content is passed over. */
export class TarReader {
  readonly #input: TarInput;
  /** How far the input was read. */
  #position = 0;
  /** Where the content of the current member ends, without its padding. */
  #end = 0;
  #members = 0;
  #headers = 0;

  constructor(input: TarInput) {
    this.#input = input;
  }

  /**
   * The next member, undefined at the end: end blocks, or the end of the file where a header could be.
   *
   * @throws OcicryptError `bad-input` for what is no tar, for one that is cut off, one whose readers disagree about it,
   *   and one of more than 20,000 members
   */
  async next(signal?: AbortSignal): Promise<TarMember | undefined> {
    const pending: { pax: ReadonlyMap<string, string>; name?: string; target?: string } = { pax: new Map() };
    for (;;) {
      signal?.throwIfAborted();
      const block = await this.#nextHeader();
      if (block === undefined) return undefined;
      if (++this.#headers > MAXIMUM_HEADERS) throw bad(`it has more than ${MAXIMUM_HEADERS} headers`);
      const header = parseHeader(block);
      switch (header.flag) {
        case 'x':
          pending.pax = parsePax(await this.#record(header.size));
          continue;
        case 'g':
          if (pending.pax.size > 0 || pending.name !== undefined || pending.target !== undefined)
            throw bad('a header for all members stands between a member and what is said of it');
          refuseGlobal(parsePax(await this.#record(header.size)));
          continue;
        case 'L':
          pending.name = cString(await this.#record(header.size));
          continue;
        case 'K':
          pending.target = cString(await this.#record(header.size));
          continue;
        default:
          return this.#member(header, pending);
      }
    }
  }

  /** The content of the member that {@link next} gave last. */
  get content(): ByteSource {
    return {
      read: async (into) => {
        const wanted = into.subarray(0, Math.min(into.length, this.#end - this.#position));
        const count = wanted.length === 0 ? 0 : await this.#input.read(wanted);
        if (count < wanted.length) throw cutOff();
        this.#position += count;
        return count;
      },
    };
  }

  #member(
    header: Header,
    pending: { readonly pax: ReadonlyMap<string, string>; readonly name?: string; readonly target?: string },
  ): TarMember {
    if (++this.#members > MAXIMUM_MEMBERS) throw bad(`it has more than ${MAXIMUM_MEMBERS} members`);
    const { pax } = pending;
    if ([...pax.keys()].some((record) => record.startsWith('GNU.sparse.'))) throw bad('it has a sparse file');
    const name = pending.name || pax.get('path') || header.name;
    const target = pending.target || pax.get('linkpath') || header.target;
    const paxSize = pax.get('size');
    const said = paxSize === undefined || paxSize === '' ? header.size : decimal(paxSize);
    const kind = kindOf(header.flag, name);
    // Links, devices and directories have no content, whatever their header says; those of the first tars too.
    const size = kind === 'directory' || HEADER_ONLY.has(header.flag) ? 0 : said;
    this.#end = this.#position + size;
    if (!Number.isSafeInteger(this.#end)) throw bad('a member is larger than any file');
    return { name, kind, target, size, offset: this.#position };
  }

  async #nextHeader(): Promise<Uint8Array | undefined> {
    const left = this.#end - this.#position;
    if (left > 0 && (await this.#skip(left)) < left) throw cutOff();
    const padding = (BLOCK_BYTES - (this.#end % BLOCK_BYTES)) % BLOCK_BYTES;
    if ((await this.#skip(padding)) < padding) return undefined;
    const block = await this.#block();
    if (block === undefined || !block.every((byte) => byte === 0)) return this.#whole(block);
    const second = await this.#block();
    if (second === undefined || second.every((byte) => byte === 0)) return undefined;
    throw bad('something follows what should be its end');
  }

  /** The content of a header's own record. */
  async #record(size: number): Promise<Uint8Array> {
    if (size > MAXIMUM_RECORD_BYTES) throw bad('a record of a header is too long');
    this.#end = this.#position + size;
    const bytes = new Uint8Array(size);
    const read = size === 0 ? 0 : await this.#input.read(bytes);
    this.#position += read;
    if (read < size) throw cutOff();
    return bytes;
  }

  async #block(): Promise<Uint8Array | undefined> {
    const block = new Uint8Array(BLOCK_BYTES);
    const read = await this.#input.read(block);
    this.#position += read;
    if (read !== 0 && read < BLOCK_BYTES) throw cutOff();
    return read === 0 ? undefined : block;
  }

  #whole(block: Uint8Array | undefined): Uint8Array | undefined {
    this.#end = this.#position;
    return block;
  }

  async #skip(count: number): Promise<number> {
    const skipped = count === 0 ? 0 : await this.#input.skip(count);
    this.#position += skipped;
    return skipped;
  }
}

type Header = { readonly name: string; readonly flag: string; readonly target: string; readonly size: number };

/** Links, devices, directories, pipes. */
const HEADER_ONLY: ReadonlySet<string> = new Set(['1', '2', '3', '4', '5', '6']);

function kindOf(flag: string, name: string): TarMember['kind'] {
  if (flag === '1') return 'hard-link';
  if (flag === '2') return 'symbolic-link';
  if (flag === '5') return 'directory';
  if (flag === '0' || flag === '7') return 'file';
  // The first tars had no type for directories.
  if (flag === '\0') return name.endsWith('/') ? 'directory' : 'file';
  if (flag === 'S') throw bad('it has a sparse file');
  return 'other';
}

function parseHeader(block: Uint8Array): Header {
  checkSum(block);
  const size = number(block.subarray(124, 136));
  const flag = String.fromCharCode(block[156] ?? 0);
  const magic = latin(block.subarray(257, 265));
  const ustar = magic.startsWith('ustar\0');
  // Star keeps times where others keep the end of a long prefix.
  const isStar = ustar && latin(block.subarray(508, 512)) === 'tar\0';
  const prefix = ustar ? cString(block.subarray(345, isStar ? 476 : 500)) : '';
  if (magic === 'ustar  \0') checkTimes(block.subarray(345, 369));
  const name = cString(block.subarray(0, 100));
  return { name: prefix === '' ? name : `${prefix}/${name}`, flag, target: cString(block.subarray(157, 257)), size };
}

/** Go takes what stands here for the start of the name if it is not two times, as an old bug of its own wrote it. */
function checkTimes(bytes: Uint8Array): void {
  for (const field of [bytes.subarray(0, 12), bytes.subarray(12)]) if (field[0] !== 0) number(field);
}

function checkSum(block: Uint8Array): void {
  let unsigned = 0;
  let signed = 0;
  for (const [index, byte] of block.entries()) {
    const counted = index >= 148 && index < 156 ? 0x20 : byte;
    unsigned += counted;
    signed += counted > 127 ? counted - 256 : counted;
  }
  const sum = octal(latin(block.subarray(148, 156)));
  if (sum !== unsigned && sum !== signed) throw bad('a header has a wrong checksum');
}

/** Octal digits, or the base-256 of GNU. */
function number(field: Uint8Array): number {
  const [first = 0] = field;
  if ((first & 0x80) === 0) return octal(latin(field));
  if ((first & 0x40) !== 0) throw bad('a number in a header is negative');
  let value = first & 0x3f;
  for (const byte of field.subarray(1)) value = value * 256 + byte;
  if (!Number.isSafeInteger(value)) throw bad('a number in a header is too large');
  return value;
}

/** Between blanks, up to a NUL: where Go finds no number, what stands here may be something else to it. */
function octal(text: string): number {
  const digits = /^([0-7]*)(?:\0.*)?$/s.exec(text.replace(/^[ \0]+|[ \0]+$/g, ''))?.[1];
  if (digits === undefined) throw bad('a number in a header is malformed');
  return digits === '' ? 0 : Number.parseInt(digits, 8);
}

function decimal(text: string): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw bad('a size in a header is no number');
  return value;
}

/** `LENGTH NAME=VALUE\n`, where the length counts the whole record; the last record of a name counts. */
function parsePax(bytes: Uint8Array): ReadonlyMap<string, string> {
  const records = new Map<string, string>();
  for (let from = 0; from < bytes.length; ) {
    const space = bytes.indexOf(0x20, from);
    // Longer ones are no number; a million characters are too many arguments.
    const length = space < 0 ? Number.NaN : decimal(latin(bytes.subarray(from, Math.min(space, from + 20))));
    const record = bytes.subarray(space + 1, from + length);
    const equals = record.indexOf(0x3d);
    if (from + length > bytes.length || record.at(-1) !== 0x0a || equals <= 0)
      throw bad('a record of a header is malformed');
    const name = text(record.subarray(0, equals));
    const value = text(record.subarray(equals + 1, -1));
    if (name.includes('\0') || (/^(?:path|linkpath)$/.test(name) && value.includes('\0')))
      throw bad('a name in a header is malformed');
    records.set(name, value);
    from += length;
  }
  return records;
}

/** Go ignores what is said of all members at once, other readers do not. */
function refuseGlobal(records: ReadonlyMap<string, string>): void {
  for (const name of records.keys()) {
    if (/^(?:path|linkpath|size|GNU\.sparse\..*)$/.test(name)) throw bad(`a header says the ${name} of every member`);
  }
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return text(end < 0 ? bytes : bytes.subarray(0, end));
}

function text(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}

function latin(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function cutOff(): OcicryptError {
  return bad('it ends in the middle of a member');
}

function bad(reason: string): OcicryptError {
  return new OcicryptError('bad-input', `this is no tar that can be read: ${reason}`);
}
