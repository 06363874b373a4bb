// JSON to bytes: keys are spelled as base64 or numbers without ever becoming a JavaScript string.

import { concatBytes, encodeBase64 } from './bytes.ts';

/** What {@link writeJson} takes: bytes become base64 text. */
export type JsonInput =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly JsonInput[]
  | { readonly [member: string]: JsonInput | undefined };

/** How {@link writeJson} spells bytes: standard base64 text, or an array of numbers as Rust's serde reads `Vec<u8>`. */
export type ByteSpelling = 'base64' | 'array';

/**
 * The bytes of a JSON document, members in the order given, members that are undefined left out, no white space.
 * Strings are escaped as `JSON.stringify` does, which is what RFC 8785 (JCS) asks for.
 *
 * @param spelling how byte arrays are written
 */
export function writeJson(value: JsonInput, spelling: ByteSpelling = 'base64'): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  write(value, spelling, parts);
  return concatBytes(...parts);
}

const encoder = new TextEncoder();

function write(value: JsonInput, spelling: ByteSpelling, parts: Uint8Array[]): void {
  if (value instanceof Uint8Array) {
    if (spelling === 'array') parts.push(numberArray(value));
    else parts.push(encoder.encode('"'), encodeBase64(value), encoder.encode('"'));
  } else if (isList(value)) {
    parts.push(encoder.encode('['));
    for (const [index, element] of value.entries()) {
      if (index > 0) parts.push(encoder.encode(','));
      write(element, spelling, parts);
    }
    parts.push(encoder.encode(']'));
  } else if (typeof value === 'object' && value !== null) {
    let separator = '{';
    for (const [name, member] of Object.entries(value)) {
      if (member === undefined) continue;
      parts.push(encoder.encode(`${separator}${JSON.stringify(name)}:`));
      write(member, spelling, parts);
      separator = ',';
    }
    parts.push(encoder.encode(separator === '{' ? '{}' : '}'));
  } else {
    parts.push(encoder.encode(JSON.stringify(value)));
  }
}

function isList(value: JsonInput): value is readonly JsonInput[] {
  return Array.isArray(value);
}

/** Digits straight into bytes: the numbers may be those of a key. */
function numberArray(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(2 + bytes.length * 4);
  let to = 0;
  out[to++] = 0x5b;
  for (const [index, byte] of bytes.entries()) {
    if (index > 0) out[to++] = 0x2c;
    if (byte >= 100) out[to++] = 0x30 + Math.floor(byte / 100);
    if (byte >= 10) out[to++] = 0x30 + (Math.floor(byte / 10) % 10);
    out[to++] = 0x30 + (byte % 10);
  }
  out[to++] = 0x5d;
  return out.subarray(0, to);
}
