// Reads `dir:` images: containers-transports(5), one file for each blob and the manifest beside them.

import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { asObject, asText, parseJson } from '../../base/json.ts';
import type { BlobIdentity } from '../cipher/layer.ts';
import { type Descriptor, isDigest } from '../model/descriptor.ts';
import { isManifestType, MEDIA_TYPES } from '../model/manifest.ts';
import { openRegularFile, readSmallFile } from './files.ts';
import { type BlobReader, checkContent, createStoredManifest, type ImageSource, type StoredManifest } from './store.ts';

/** An image in a directory as skopeo writes it. */
export function openDirectory(directory: string, name: string): ImageSource {
  return {
    name,
    transfers: 1,
    async readRoot() {
      const bytes = await readSmallFile(join(directory, 'manifest.json'), name);
      return createStoredManifest(bytes, typeOf(bytes, name));
    },
    async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
      const bytes = await readSmallFile(
        `${blobPath(directory, descriptor)}.manifest.json`,
        `manifest ${descriptor.digest}`,
      );
      checkContent(bytes, descriptor, 'manifest');
      return createStoredManifest(bytes, descriptor.mediaType);
    },
    openBlob: (blob: BlobIdentity): Promise<BlobReader> =>
      openRegularFile(blobPath(directory, blob), `blob ${blob.digest}`),
    close: async () => undefined,
  };
}

/** Nothing else says what it is; OCI manifests need not say it themselves. */
function typeOf(bytes: Uint8Array, name: string): string {
  const json = asObject(parseJson(bytes, name));
  const said = asText(json?.get('mediaType')) ?? (json?.has('manifests') ? MEDIA_TYPES.index : MEDIA_TYPES.manifest);
  if (isManifestType(said)) return said;
  throw new OcicryptError('bad-input', `${name} is of a type that is no image's`);
}

function blobPath(directory: string, { digest }: BlobIdentity): string {
  if (!isDigest(digest)) throw new OcicryptError('bad-input', 'not a SHA-256 digest');
  return join(directory, digest.slice('sha256:'.length));
}
