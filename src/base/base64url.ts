// Base64url without padding (RFC 4648 section 5), from bytes to bytes like its sibling in bytes.ts.

import { decodeBase64, encodeBase64 } from './bytes.ts';

const PADDING = 0x3d;
const [PLUS, SLASH, MINUS, UNDERSCORE] = [0x2b, 0x2f, 0x2d, 0x5f];

/** Base64url of `bytes` as ASCII bytes, which may be a key's. */
export function encodeBase64Url(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const text = encodeBase64(bytes);
  let length = text.length;
  while (length > 0 && text[length - 1] === PADDING) length--;
  for (const [index, byte] of text.entries()) {
    if (byte === PLUS) text[index] = MINUS;
    if (byte === SLASH) text[index] = UNDERSCORE;
  }
  return text.subarray(0, length);
}

/** The bytes that `text` encodes, or undefined where it is not strictly base64url without padding. */
export function decodeBase64Url(text: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const padded = new Uint8Array(Math.ceil(text.length / 4) * 4).fill(PADDING);
  for (const [index, byte] of text.entries()) {
    if (byte === PLUS || byte === SLASH || byte === PADDING) return undefined;
    padded[index] = byte === MINUS ? PLUS : byte === UNDERSCORE ? SLASH : byte;
  }
  const decoded = decodeBase64(padded);
  padded.fill(0);
  return decoded;
}
