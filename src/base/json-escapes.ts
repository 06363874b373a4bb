// What stands between the quotes of a JSON string, with its escapes undone.

export const QUOTE = 0x22;
export const BACKSLASH = 0x5c;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * `raw` is valid JSON string content (the parser has checked its ends), so the engine's own parser may unescape it.
 * Half of a surrogate pair is U+FFFD, as in Go.
 */
export function unescapeText(raw: Uint8Array): string {
  const text = utf8.decode(raw);
  if (!raw.includes(BACKSLASH)) return text;
  const value: unknown = JSON.parse(`"${text}"`);
  return typeof value === 'string' ? value.toWellFormed() : text;
}

const SHORT_ESCAPES: ReadonlyMap<number, number> = new Map([
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x2f, 0x2f],
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
]);

/** Without a string in between: Rust clients send a layer-key record as escaped JSON text. */
export function unescapeBytes(raw: Uint8Array): Uint8Array {
  const out = new Uint8Array(raw.length);
  let to = 0;
  for (let from = 0; from < raw.length; from++) {
    const byte = raw[from] ?? 0;
    const letter = raw[from + 1] ?? 0;
    if (byte !== BACKSLASH) out[to++] = byte;
    else if (SHORT_ESCAPES.has(letter)) {
      out[to++] = SHORT_ESCAPES.get(letter) ?? 0;
      from++;
    } else {
      // \uXXXX: rare enough that the engine may do it.
      return new TextEncoder().encode(unescapeText(raw));
    }
  }
  return out.subarray(0, to);
}
