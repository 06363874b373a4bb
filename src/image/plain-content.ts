// Says whether bytes are what runtimes unpack: an encrypted layer that begins like one runs without any key.

import { BZIP2, beginsWith, GZIP, XZ, ZSTD, ZSTD_SKIPPABLE } from './cipher/magic.ts';

/** How many of the first bytes are looked at. */
export const HEAD_BYTES = 512;

/**
 * What containers/storage (pkg/archive) and containerd (pkg/archive/compression) know a compressed tar by, whatever its
 * media type says, and what a WASM module begins with. Three random bytes are one of these once in eight million layers.
 */
const MAGICS: readonly (readonly number[])[] = [
  [...GZIP, 0x08],
  BZIP2,
  XZ,
  ZSTD,
  ...ZSTD_SKIPPABLE,
  [0x00, 0x61, 0x73, 0x6d],
];

/**
 * Whether content that begins like this is a layer in the clear.
 *
 * @param head the first {@link HEAD_BYTES}, or all if there are fewer
 */
export function isPlainContent(head: Uint8Array): boolean {
  if (MAGICS.some((magic) => beginsWith(head, magic))) return true;
  return head.length >= HEAD_BYTES && (head.every((byte) => byte === 0) || isTarHeader(head));
}

const CHECKSUM = { start: 148, end: 156 };

/** By its checksum, with signed bytes too, as old writers counted: Go's archive/tar takes both, and a blank one as 0. */
function isTarHeader(head: Uint8Array): boolean {
  const field = String.fromCharCode(...head.subarray(CHECKSUM.start, CHECKSUM.end));
  const digits = /^(?:[ \0]{8}|[ \0]*([0-7]{1,8}).*)$/s.exec(field);
  if (digits === null) return false;
  let unsigned = 0;
  let signed = 0;
  for (const [index, byte] of head.subarray(0, HEAD_BYTES).entries()) {
    const counted = index >= CHECKSUM.start && index < CHECKSUM.end ? 0x20 : byte;
    unsigned += counted;
    signed += counted > 127 ? counted - 256 : counted;
  }
  const checksum = Number.parseInt(digits[1] ?? '0', 8);
  return checksum === unsigned || checksum === signed;
}
