// JSON to bytes: keys are spelled as base64 or numbers without ever becoming a JavaScript string.

import { base64Length, wipe, writeBase64, writeBase64Url } from './bytes.ts';
import { asArray, asObject, JsonNumber, type JsonObject, JsonString, type JsonValue } from './json.ts';
import { BACKSLASH, QUOTE } from './json-escapes.ts';

/** What {@link writeJson} takes: bytes become text, and a number that keeps its digits is written with them. */
export type JsonInput =
  | null
  | boolean
  | number
  | string
  | JsonNumber
  | Uint8Array
  | readonly JsonInput[]
  | { readonly [member: string]: JsonInput | undefined };

/** How bytes are spelled in JSON: as base64 or base64url text, or an array of numbers as Rust's serde reads `Vec<u8>`. */
export type ByteSpelling = 'base64' | 'base64url' | 'array';

/**
 * The bytes of a JSON document, members in the order given, members that are undefined left out, no white space.
 * Strings are escaped as `JSON.stringify` does, which is what RFC 8785 (JCS) asks for.
 *
 * @param spelling how byte arrays are written
 */
export function writeJson(value: JsonInput, spelling: ByteSpelling = 'base64'): Uint8Array<ArrayBuffer> {
  const writer = new Writer(spelling, spare);
  try {
    writer.value(value);
    return writer.written();
  } finally {
    spare = writer.wiped();
  }
}

/** Packets and replies fit. One buffer serves all documents in turn, since writing one is never interrupted. */
const SPARE_LENGTH = 4096;
let spare = new Uint8Array(SPARE_LENGTH);

const COMMA = 0x2c;
const encoder = new TextEncoder();

/** One buffer that grows: it may hold a key, and is wiped whenever it is left. */
class Writer {
  readonly #spelling: ByteSpelling;
  #buffer: Uint8Array<ArrayBuffer>;
  #length = 0;

  constructor(spelling: ByteSpelling, buffer: Uint8Array<ArrayBuffer>) {
    this.#spelling = spelling;
    this.#buffer = buffer;
  }

  written(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.#length);
  }

  /** The buffer, for the next document. */
  wiped(): Uint8Array<ArrayBuffer> {
    wipe(this.#buffer.subarray(0, this.#length));
    return this.#buffer.length > SPARE_LENGTH ? new Uint8Array(SPARE_LENGTH) : this.#buffer;
  }

  value(value: JsonInput): void {
    if (typeof value === 'string') this.#string(value);
    else if (value instanceof Uint8Array) this.#bytes(value);
    else if (typeof value !== 'object' || value === null) this.#ascii(String(value));
    else if (value instanceof JsonNumber) this.#ascii(value.text);
    else if (isList(value)) this.#list(value);
    else this.#object(value);
  }

  #object(value: { readonly [member: string]: JsonInput | undefined }): void {
    let separator = 0x7b;
    for (const name of Object.keys(value)) {
      const member = value[name];
      if (member === undefined) continue;
      this.#byte(separator);
      this.#string(name);
      this.#byte(0x3a);
      this.value(member);
      separator = COMMA;
    }
    if (separator !== COMMA) this.#byte(separator);
    this.#byte(0x7d);
  }

  #list(value: readonly JsonInput[]): void {
    let separator = 0x5b;
    for (const element of value) {
      this.#byte(separator);
      this.value(element);
      separator = COMMA;
    }
    if (separator !== COMMA) this.#byte(separator);
    this.#byte(0x5d);
  }

  #string(text: string): void {
    const start = this.#length;
    this.#reserve(text.length + 2);
    this.#byte(QUOTE);
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index);
      if (code < 0x20 || code > 0x7e || code === QUOTE || code === BACKSLASH) {
        this.#length = start;
        this.#append(encoder.encode(JSON.stringify(text)));
        return;
      }
      this.#byte(code);
    }
    this.#byte(QUOTE);
  }

  #bytes(bytes: Uint8Array): void {
    if (this.#spelling === 'array') {
      this.#numbers(bytes);
      return;
    }
    this.#reserve(base64Length(bytes.length) + 2);
    this.#byte(QUOTE);
    const write = this.#spelling === 'base64url' ? writeBase64Url : writeBase64;
    this.#length = write(bytes, this.#buffer, this.#length);
    this.#byte(QUOTE);
  }

  /** Digits straight into bytes: the numbers may be those of a key. */
  #numbers(bytes: Uint8Array): void {
    let separator = 0x5b;
    for (const byte of bytes) {
      this.#byte(separator);
      if (byte >= 100) this.#byte(0x30 + Math.floor(byte / 100));
      if (byte >= 10) this.#byte(0x30 + (Math.floor(byte / 10) % 10));
      this.#byte(0x30 + (byte % 10));
      separator = COMMA;
    }
    if (separator !== COMMA) this.#byte(separator);
    this.#byte(0x5d);
  }

  /** A number or a literal. */
  #ascii(text: string): void {
    for (let index = 0; index < text.length; index++) this.#byte(text.charCodeAt(index));
  }

  #append(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #byte(byte: number): void {
    if (this.#length === this.#buffer.length) this.#reserve(1);
    this.#buffer[this.#length++] = byte;
  }

  #reserve(more: number): void {
    const old = this.#buffer;
    if (this.#length + more <= old.length) return;
    this.#buffer = new Uint8Array(Math.max(2 * old.length, this.#length + more));
    this.#buffer.set(old);
    wipe(old);
  }
}

function isList(value: JsonInput): value is readonly JsonInput[] {
  return Array.isArray(value);
}

/** What was parsed, as what can be written. */
export function thaw(value: JsonValue): JsonInput {
  if (value instanceof JsonString) return value.text();
  if (value instanceof JsonNumber) return value;
  const object = asObject(value);
  if (object !== undefined) return thawObject(object);
  const array = asArray(value);
  if (array !== undefined) return array.map(thaw);
  return typeof value === 'number' || typeof value === 'boolean' ? value : null;
}

/** The same of an object. */
export function thawObject(object: JsonObject): { readonly [member: string]: JsonInput } {
  // Built from entries, so that a member called __proto__ is a member and nothing more.
  return Object.fromEntries([...object].map(([name, value]) => [name, thaw(value)]));
}
