// Turns bytes into base64 and back: from bytes to bytes, so that no string ever holds a key.

const ALPHABET = new TextEncoder().encode('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const PADDING = '='.charCodeAt(0);
const NOT_BASE64 = 255;
const VALUE_OF = new Uint8Array(256).fill(NOT_BASE64);
for (const [value, character] of ALPHABET.entries()) VALUE_OF[character] = value;

/**
 * Standard padded base64 (RFC 4648 section 4) of `bytes`, as ASCII bytes.
 * Not `Buffer.toString('base64')`: the result may be a key, and a string cannot be wiped.
 */
export function encodeBase64(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(base64Length(bytes.length));
  writeBase64(bytes, out, 0);
  return out;
}

/** How many characters the base64 of `length` bytes has. */
export function base64Length(length: number): number {
  return Math.ceil(length / 3) * 4;
}

/** Writes the base64 of `bytes` into `out` from `offset` on, where it must have room; returns where it ends. */
export function writeBase64(bytes: Uint8Array, out: Uint8Array, offset: number): number {
  let to = offset;
  for (let from = 0; from < bytes.length; from += 3) {
    const group = ((bytes[from] ?? 0) << 16) | ((bytes[from + 1] ?? 0) << 8) | (bytes[from + 2] ?? 0);
    const present = bytes.length - from;
    out[to++] = ALPHABET[(group >> 18) & 63] ?? 0;
    out[to++] = ALPHABET[(group >> 12) & 63] ?? 0;
    out[to++] = present > 1 ? (ALPHABET[(group >> 6) & 63] ?? 0) : PADDING;
    out[to++] = present > 2 ? (ALPHABET[group & 63] ?? 0) : PADDING;
  }
  return to;
}

/**
 * The bytes that `base64` (ASCII bytes, RFC 4648 section 4, padded) encodes, or undefined where it is not strictly
 * that: no white space, no missing padding, no bits set beyond the data. `Buffer.from` would ignore all of these.
 *
 * @param start where it begins in `base64`, and `end` where it ends
 */
export function decodeBase64(base64: Uint8Array, start = 0, end = base64.length): Uint8Array<ArrayBuffer> | undefined {
  const length = end - start;
  if (length % 4 !== 0) return undefined;
  let padding = 0;
  while (padding < 2 && padding < length && base64[end - 1 - padding] === PADDING) padding++;
  const out = new Uint8Array((length / 4) * 3 - padding);
  let to = 0;
  for (let from = start; from < end; from += 4) {
    const isLast = from + 4 === end;
    const a = sextet(base64[from]);
    const b = sextet(base64[from + 1]);
    const c = isLast && padding === 2 ? 0 : sextet(base64[from + 2]);
    const d = isLast && padding > 0 ? 0 : sextet(base64[from + 3]);
    if ((a | b | c | d) === NOT_BASE64) return undefined;
    const group = (a << 18) | (b << 12) | (c << 6) | d;
    // What lies beyond the end of `out` is dropped here, and so must be zero.
    if (isLast && padding > 0 && (group & (padding === 2 ? 0xffff : 0xff)) !== 0) return undefined;
    out[to++] = group >> 16;
    out[to++] = group >> 8;
    out[to++] = group;
  }
  return out;
}

/** Six bits, or all eight set. */
function sextet(character: number | undefined): number {
  return VALUE_OF[character ?? 0] ?? NOT_BASE64;
}

/** `bytes` (nothing secret) as standard base64 text. */
export function base64Text(bytes: Uint8Array): string {
  return new TextDecoder().decode(encodeBase64(bytes));
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
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}

/** Overwrites keys with zeros when they are done with; strings and copies inside the runtime are out of reach. */
export function wipe(...secrets: readonly (Uint8Array | undefined)[]): void {
  for (const secret of secrets) secret?.fill(0);
}
