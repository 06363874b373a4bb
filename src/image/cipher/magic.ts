// What compressed files begin with.

export const GZIP: readonly number[] = [0x1f, 0x8b];
export const ZSTD: readonly number[] = [0x28, 0xb5, 0x2f, 0xfd];
/** Frames of zstd that hold no content, and may come first: RFC 8878 section 3.1.2. */
export const ZSTD_SKIPPABLE: readonly (readonly number[])[] = Array.from({ length: 16 }, (_, low) => [
  0x50 + low,
  0x2a,
  0x4d,
  0x18,
]);
export const XZ: readonly number[] = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
export const BZIP2: readonly number[] = [0x42, 0x5a, 0x68];

/** Whether `bytes` begin with all of `magic`. */
export function beginsWith(bytes: Uint8Array, magic: readonly number[]): boolean {
  return magic.every((byte, index) => bytes[index] === byte);
}
