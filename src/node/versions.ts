// What is known of containerd by its version: what it gives a decoder, and which versions were tried.

/** `[major, minor, patch]`. */
export type RuntimeVersion = readonly [major: number, minor: number, patch: number];

/** The first version in a text, as `containerd --version` prints it; undefined if there is none. */
export function parseVersion(text: string): RuntimeVersion | undefined {
  const [, major, minor, patch] = /(?<![\w.])v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?/.exec(text) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor), Number(patch ?? 0)];
}

export function formatVersion(version: RuntimeVersion): string {
  return version.join('.');
}

/**
 * When CRI gives a decoder its payload: always; never, because the call is missing from the source; or if it pulls by
 * itself, which `use_local_image_pull` says. Only ctd-decoder needs one.
 */
export type PayloadRule = 'always' | 'never' | 'local pull';

/** The rule of a version; docs/nodes.md has the table, and its tests hold versions against it. */
export function payloadRule(version: RuntimeVersion): PayloadRule {
  if (isBefore(version, [2, 0, 0])) return 'always';
  if (isBefore(version, [2, 1, 7])) return 'never';
  return isBefore(version, [2, 2, 0]) || !isBefore(version, [2, 2, 2]) ? 'local pull' : 'never';
}

/** Whether a version is older than another one. */
export function isBefore(version: RuntimeVersion, other: RuntimeVersion): boolean {
  const index = version.findIndex((part, position) => part !== other[position]);
  return index >= 0 && (version[index] ?? 0) < (other[index] ?? 0);
}
