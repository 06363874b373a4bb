// Finds out which blobs of a layout its index still leads to.

import { OcicryptError } from '../../base/errors.ts';
import type { Descriptor } from '../model/descriptor.ts';
import { isManifestType, parseManifest } from '../model/manifest.ts';
import type { StoredManifest } from './store.ts';

/**
 * The digests among `digests` that something names. What is named by a type that is not known counts for all that its
 * text holds.
 *
 * @throws OcicryptError if a manifest that is named cannot be read: then what it names is not known
 */
export async function findNamed(
  digests: readonly string[],
  entries: readonly Descriptor[],
  read: (descriptor: Descriptor) => Promise<StoredManifest>,
): Promise<ReadonlySet<string>> {
  const named = new Set<string>();
  const seen = new Set<string>();
  const pending = [...entries];
  for (let entry = pending.pop(); entry !== undefined; entry = pending.pop()) {
    if (seen.has(entry.digest)) continue;
    seen.add(entry.digest);
    if (digests.includes(entry.digest)) named.add(entry.digest);
    const stored = await readIfThere(entry, read);
    if (stored === undefined) continue;
    const { bytes } = stored;
    if (!isManifestType(entry.mediaType)) {
      const text = new TextDecoder().decode(bytes);
      for (const digest of digests) if (text.includes(digest)) named.add(digest);
      continue;
    }
    const manifest = parseManifest(bytes, entry.mediaType, `manifest ${entry.digest}`);
    if (manifest.kind === 'index' && manifest.others.length > 0) throw unreadDigest(entry.digest);
    if (manifest.kind === 'index') pending.push(...manifest.manifests);
    else for (const { digest } of [manifest.config, ...manifest.layers]) named.add(digest);
  }
  return named;
}

function unreadDigest(digest: string): OcicryptError {
  return new OcicryptError('bad-input', `${digest} names manifests that are not read: only SHA-256 digests are`);
}

/** A manifest that is not here names nothing that is. */
async function readIfThere(
  entry: Descriptor,
  read: (descriptor: Descriptor) => Promise<StoredManifest>,
): Promise<StoredManifest | undefined> {
  try {
    return await read(entry);
  } catch (error) {
    if (error instanceof OcicryptError && error.code === 'not-found') return undefined;
    throw error;
  }
}
