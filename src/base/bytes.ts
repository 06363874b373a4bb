// Turns bytes into base64 and back: from bytes to bytes, so that no string ever holds a key.

/** One of both forms of RFC 4648. */
type Base64 = { readonly alphabet: Uint8Array; readonly values: Uint8Array; readonly isPadded: boolean };

const PADDING = '='.charCodeAt(0);
const NOT_BASE64 = 255;
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const STANDARD = base64Form('+/', true);
const URL_SAFE = base64Form('-_', false);

function base64Form(last: string, isPadded: boolean): Base64 {
  const alphabet = new TextEncoder().encode(LETTERS + last);
  const values = new Uint8Array(256).fill(NOT_BASE64);
  for (const [value, character] of alphabet.entries()) values[character] = value;
  return { alphabet, values, isPadded };
}

/**
 * Standard padded base64 (RFC 4648 section 4) of `bytes`, as ASCII bytes.
 * Not `Buffer.toString('base64')`: the result may be a key, and a string cannot be wiped.
 */
export function encodeBase64(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(base64Length(bytes.length));
  writeBase64(bytes, out, 0);
  return out;
}

/** How many characters the base64 of `length` bytes has, or may have if it is not padded. */
export function base64Length(length: number): number {
  return Math.ceil(length / 3) * 4;
}

/** Writes the base64 of `bytes` into `out` from `offset` on, where it must have room; returns where it ends. */
export function writeBase64(bytes: Uint8Array, out: Uint8Array, offset: number): number {
  return write(STANDARD, bytes, out, offset);
}

/** As {@link writeBase64}, in base64url without padding (RFC 4648 section 5). */
export function writeBase64Url(bytes: Uint8Array, out: Uint8Array, offset: number): number {
  return write(URL_SAFE, bytes, out, offset);
}

function write({ alphabet, isPadded }: Base64, bytes: Uint8Array, out: Uint8Array, offset: number): number {
  let to = offset;
  for (let from = 0; from < bytes.length; from += 3) {
    const group = ((bytes[from] ?? 0) << 16) | ((bytes[from + 1] ?? 0) << 8) | (bytes[from + 2] ?? 0);
    const present = bytes.length - from;
    out[to++] = alphabet[(group >> 18) & 63] ?? 0;
    out[to++] = alphabet[(group >> 12) & 63] ?? 0;
    out[to++] = present > 1 ? (alphabet[(group >> 6) & 63] ?? 0) : PADDING;
    out[to++] = present > 2 ? (alphabet[group & 63] ?? 0) : PADDING;
  }
  return isPadded ? to : to - missing(bytes.length);
}

/** How many bytes the last group of three lacks, and so characters of padding. */
function missing(length: number): number {
  return (3 - (length % 3)) % 3;
}

/**
 * The bytes that `base64` (ASCII bytes, RFC 4648 section 4, padded) encodes, or undefined if it is not strictly
 * that: no white space, no missing padding, no bits set beyond the data. `Buffer.from` would ignore all of these.
 *
 * @param start where it begins in `base64`, and `end` where it ends
 */
export function decodeBase64(base64: Uint8Array, start = 0, end = base64.length): Uint8Array<ArrayBuffer> | undefined {
  const length = end - start;
  if (length % 4 !== 0) return undefined;
  let padding = 0;
  while (padding < 2 && padding < length && base64[end - 1 - padding] === PADDING) padding++;
  return decode(STANDARD, base64, start, end - padding);
}

/** The bytes that `text` encodes, or undefined if it is not strictly base64url without padding. */
export function decodeBase64Url(text: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  return decode(URL_SAFE, text, 0, text.length);
}

/** @param end where the data ends, without padding */
function decode(
  { values }: Base64,
  base64: Uint8Array,
  start: number,
  end: number,
): Uint8Array<ArrayBuffer> | undefined {
  const spare = (end - start) % 4;
  if (spare === 1) return undefined;
  const padding = (4 - spare) % 4;
  const out = new Uint8Array((end - start + padding) * 0.75 - padding);
  let to = 0;
  for (let from = start; from < end; from += 4) {
    const isLast = from + 4 > end;
    const a = values[base64[from] ?? 0] ?? NOT_BASE64;
    const b = values[base64[from + 1] ?? 0] ?? NOT_BASE64;
    const c = isLast && padding === 2 ? 0 : (values[base64[from + 2] ?? 0] ?? NOT_BASE64);
    const d = isLast ? 0 : (values[base64[from + 3] ?? 0] ?? NOT_BASE64);
    if ((a | b | c | d) === NOT_BASE64) return undefined;
    const group = (a << 18) | (b << 12) | (c << 6) | d;
    // What lies beyond the end of `out` is dropped here, and so must be zero.
    if (isLast && (group & (padding === 2 ? 0xffff : 0xff)) !== 0) return undefined;
    out[to++] = group >> 16;
    out[to++] = group >> 8;
    out[to++] = group;
  }
  return out;
}

/** `bytes` (nothing secret) as standard base64 text. */
export function base64Text(bytes: Uint8Array): string {
  return new TextDecoder().decode(encodeBase64(bytes));
}

/**
 * The same bytes as a Buffer. For what is read often it is better to be one from the start (`Buffer.alloc`): a view of other
 * bytes costs the engine more than to read them.
 */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** `parts` one after the other in one new array. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** Whether both arrays hold the same bytes. Not constant in time: for public bytes only. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  // By native code: the decoder compares 64 KiB before any code is compiled.
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

/** Overwrites keys with zeros when they are done with; strings and copies inside the runtime are out of reach. */
export function wipe(...secrets: readonly (Uint8Array | undefined)[]): void {
  for (const secret of secrets) secret?.fill(0);
}
