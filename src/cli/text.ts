// How things are written for people: sizes, digests, and texts of strangers that must not drive the terminal.

/** Without what terminals obey: controls, line separators, and what turns the direction of text. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
}

/** Bytes in binary units, as `3.1 MiB`. */
export function formatSize(bytes: number): string {
  let [value, unit] = [bytes, 'B'];
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (value < 1024) break;
    [value, unit] = [value / 1024, next];
  }
  return `${unit === 'B' ? value : value.toFixed(1)} ${unit}`;
}

/** Enough of a digest to tell it from others. */
export function shortDigest(digest: string): string {
  return digest.slice(0, 'sha256:'.length + 12);
}

/** `1 layer`, `2 layers`. */
export function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}
