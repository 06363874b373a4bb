// JSON from bytes: a strict parser that leaves strings where they are, so that keys pass through requests and answers
// without ever becoming a JavaScript string. Its twin is json-writer.ts.

import { isAscii } from 'node:buffer';
import { asBuffer, decodeBase64 } from './bytes.ts';
import { OcicryptError } from './errors.ts';
import { BACKSLASH, QUOTE, unescapeBytes, unescapeText } from './json-escapes.ts';
import { createJsonRoom, type JsonRoom, spend } from './json-room.ts';

/** A parsed value. Objects are maps, so that no member name can reach a prototype. */
export type JsonValue = null | boolean | number | JsonNumber | JsonString | readonly JsonValue[] | JsonObject;
/** An object by its members, in their order. */
export type JsonObject = ReadonlyMap<string, JsonValue>;

/** No request or packet nests deeper than 5; a bound keeps hostile input from costing more than its length. */
const MAXIMUM_DEPTH = 16;

/** What ends a scalar: the end of the document, white space, or a structural character. */
const DELIMITERS: ReadonlySet<number | undefined> = new Set([undefined, ...Buffer.from(' \t\n\r,:[]{}"')]);
const NUMBER = /^-?(?:0|[1-9]\d*)((?:\.\d+)?(?:[eE][+-]?\d+)?)$/;
const LITERALS: ReadonlyMap<string, null | boolean> = new Map(Object.entries({ null: null, true: true, false: false }));

/** The text between the quotes, still as the bytes of the document; only {@link text} makes it a string. */
export class JsonString {
  readonly #document: Buffer;
  readonly #start: number;
  readonly #end: number;
  /** Whether it is ASCII without an escape, so that its bytes are its characters. */
  readonly #isPlain: boolean;

  constructor(document: Buffer, start: number, end: number, isPlain: boolean) {
    this.#document = document;
    this.#start = start;
    this.#end = end;
    this.#isPlain = isPlain;
  }

  /** The value as a string; not for keys. */
  text(): string {
    return this.#isPlain ? this.#document.toString('latin1', this.#start, this.#end) : unescapeText(this.#raw());
  }

  /** The value as UTF-8 bytes: a view of the document if nothing is escaped. */
  bytes(): Uint8Array {
    const raw = this.#raw();
    return !this.#isPlain && raw.includes(BACKSLASH) ? unescapeBytes(raw) : raw;
  }

  /** The bytes that the value encodes as standard padded base64, or undefined if it is not that. */
  base64(): Uint8Array<ArrayBuffer> | undefined {
    return this.#isPlain ? decodeBase64(this.#document, this.#start, this.#end) : decodeBase64(this.bytes());
  }

  #raw(): Uint8Array {
    return this.#document.subarray(this.#start, this.#end);
  }
}

/**
 * A number that is no integer, is written as none (`2.0`, `1e3`), or is too large to be exact: Go takes none of these for
 * an integer. So it is not one here either, and keeps its digits.
 */
export class JsonNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/**
 * Parses one JSON document (RFC 8259) strictly: UTF-8, half of a surrogate pair read as U+FFFD as Go does, no trailing
 * bytes, no member twice (readers differ about which one counts), at most 16 levels deep, no recursion, and no more values
 * than there is room for.
 *
 * @param document the bytes; the result holds views of them
 * @param what how the document is called in an error ("the request")
 * @param room shared with other documents
 * @throws OcicryptError `bad-input`
 */
export function parseJson(document: Uint8Array, what: string, room: JsonRoom = createJsonRoom()): JsonValue {
  return new Parser(document, what, room).parse();
}

/** The object that the bytes are, or undefined if they are something else. */
export function readObject(document: Uint8Array): JsonObject | undefined {
  try {
    return asObject(parseJson(document, 'the answer'));
  } catch {
    return undefined;
  }
}

/** The value as an object, or undefined. */
export function asObject(value: JsonValue | undefined): JsonObject | undefined {
  return value instanceof Map ? value : undefined;
}

/** The value as a string, or undefined; not for keys. */
export function asText(value: JsonValue | undefined): string | undefined {
  return value instanceof JsonString ? value.text() : undefined;
}

/** The bytes that the value encodes as standard base64, or undefined. */
export function asBytes(value: JsonValue | undefined): Uint8Array<ArrayBuffer> | undefined {
  return value instanceof JsonString ? value.base64() : undefined;
}

/** The value as a number, or undefined. */
export function asNumber(value: JsonValue | undefined): number | undefined {
  if (value instanceof JsonNumber) return Number(value.text);
  return typeof value === 'number' ? value : undefined;
}

/** The value as an array, or undefined. */
export function asArray(value: JsonValue | undefined): readonly JsonValue[] | undefined {
  return Array.isArray(value) ? value : undefined;
}

/**
 * Whether all strings of a document are ASCII without an escape, told by the engine's own search: to look at each byte of
 * a manifest of 30 layers takes 2 ms of a process that has not run long enough for its code to be compiled. Not for a short
 * document, nor for one on several lines, where white space may stand in a string as well.
 */
function isPlain(document: Buffer): boolean {
  return document.length >= LONG_BYTES && isAscii(document) && !NOT_PLAIN.some((byte) => document.includes(byte));
}

const LONG_BYTES = 4096;
/** The control characters, and the backslash. */
const NOT_PLAIN: readonly number[] = [...Array.from({ length: 0x20 }, (_, byte) => byte), BACKSLASH];

type Container = { readonly kind: 'array'; readonly items: JsonValue[] } | ObjectContainer;
type ObjectContainer = { readonly kind: 'object'; readonly members: Map<string, JsonValue>; name: string };

class Parser {
  readonly #bytes: Buffer;
  readonly #what: string;
  readonly #room: JsonRoom;
  /** Whether a quote ends every string, and all are plain. */
  readonly #isPlain: boolean;
  #offset = 0;

  constructor(bytes: Uint8Array, what: string, room: JsonRoom) {
    this.#bytes = asBuffer(bytes);
    this.#what = what;
    this.#room = room;
    this.#isPlain = isPlain(this.#bytes);
  }

  parse(): JsonValue {
    const open: Container[] = [];
    for (;;) {
      let value = this.#open(open);
      // A value is complete: hand it to the container that waits for it, and close what ends with it.
      while (value !== undefined) {
        const container = open.at(-1);
        if (container === undefined) return this.#end(value);
        value = this.#add(container, value);
        if (value !== undefined) open.pop();
      }
    }
  }

  /** Reads the start of a value: a whole scalar or empty container, or undefined after opening a container. */
  #open(open: Container[]): JsonValue | undefined {
    const byte = this.#next();
    const isContainer = byte === 0x7b || byte === 0x5b;
    this.#spend(byte === 0x7b ? 'object' : isContainer ? 'array' : 'scalar');
    if (byte === QUOTE) return this.#string();
    if (!isContainer) return this.#scalar();
    this.#offset++;
    if (open.length === MAXIMUM_DEPTH) this.#fail(`nests deeper than ${MAXIMUM_DEPTH} levels`);
    if (byte === 0x5b) {
      if (this.#skip(0x5d)) return [];
      open.push({ kind: 'array', items: [] });
    } else {
      if (this.#skip(0x7d)) return new Map();
      open.push({ kind: 'object', members: new Map(), name: this.#name() });
    }
    return undefined;
  }

  /** Adds a value to its container; returns the container's value when it ends here. */
  #add(container: Container, value: JsonValue): JsonValue | undefined {
    if (container.kind === 'array') {
      container.items.push(value);
      if (this.#skip(0x2c)) return undefined;
      if (this.#skip(0x5d)) return container.items;
    } else {
      if (container.members.has(container.name)) this.#fail('names a member twice');
      container.members.set(container.name, value);
      if (this.#skip(0x2c)) {
        container.name = this.#name();
        return undefined;
      }
      if (this.#skip(0x7d)) return container.members;
    }
    return this.#fail('is not valid JSON');
  }

  #name(): string {
    if (this.#next() !== QUOTE) this.#fail('is not valid JSON');
    this.#spend('name');
    const name = this.#string().text();
    if (!this.#skip(0x3a)) this.#fail('is not valid JSON');
    return name;
  }

  #string(): JsonString {
    const bytes = this.#bytes;
    const start = this.#offset + 1;
    if (this.#isPlain) {
      const end = bytes.indexOf(QUOTE, start);
      if (end < 0) return this.#fail('is not valid JSON', bytes.length);
      this.#offset = end + 1;
      return new JsonString(bytes, start, end, true);
    }
    let end = start;
    let isPlain = true;
    for (; ; end++) {
      const byte = bytes[end] ?? 0;
      if (byte === QUOTE) break;
      if (byte < 0x20) return this.#fail('is not valid JSON', end);
      if (byte === BACKSLASH) end++;
      if (byte === BACKSLASH || byte >= 0x80) isPlain = false;
    }
    this.#offset = end + 1;
    // Plain ASCII cannot be malformed; anything else is decoded once here, so that it cannot fail later.
    if (!isPlain) {
      try {
        unescapeText(bytes.subarray(start, end));
      } catch {
        this.#fail('is not valid JSON');
      }
    }
    return new JsonString(bytes, start, end, isPlain);
  }

  #scalar(): JsonValue {
    const start = this.#offset;
    while (!DELIMITERS.has(this.#bytes[this.#offset])) this.#offset++;
    // No number that is written here or in any request is longer.
    if (this.#offset - start > 32) return this.#fail('is not valid JSON');
    const text = this.#bytes.toString('latin1', start, this.#offset);
    const literal = LITERALS.get(text);
    if (literal !== undefined) return literal;
    const [, decimals] = NUMBER.exec(text) ?? this.#fail('is not valid JSON');
    const number = Number(text);
    // Adding 0 makes a plain 0 of -0.
    return decimals === '' && Number.isSafeInteger(number) ? number + 0 : new JsonNumber(text);
  }

  #end(value: JsonValue): JsonValue {
    this.#next();
    if (this.#offset < this.#bytes.length) this.#fail('has bytes after its JSON document');
    return value;
  }

  #spend(kind: Parameters<typeof spend>[1]): void {
    if (!spend(this.#room, kind)) this.#fail('holds more values than are read');
  }

  #skip(byte: number): boolean {
    if (this.#next() !== byte) return false;
    this.#offset++;
    return true;
  }

  /** The next byte that is not white space, left unread. */
  #next(): number | undefined {
    for (;;) {
      const byte = this.#bytes[this.#offset];
      if (byte === undefined || byte > 0x20) return byte;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.#offset++;
    }
  }

  #fail(reason: string, offset = this.#offset): never {
    throw new OcicryptError('bad-input', `${this.#what} ${reason} (byte ${offset})`);
  }
}
