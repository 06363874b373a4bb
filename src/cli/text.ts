// How things are written for people and programs: JSON, sizes, digests, counts.

/**
 * JSON for programs and logs, in printable ASCII alone: what reads lines, and people who look at them, see U+0085,
 * U+2028 or U+202E as what they are.
 *
 * @param indent of the lines, for those that people read; one line where it is left out
 */
export function asciiJson(value: unknown, indent?: number): string {
  const json = JSON.stringify(value, null, indent);
  return json.replace(/[\u007F-\uFFFF]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
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
