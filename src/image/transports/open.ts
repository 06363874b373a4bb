// The table of places that images can be in.

import { OcicryptError } from '../../base/errors.ts';
import { digestInName, noDigestTags } from '../model/digest-tag.ts';
import { formatImageReference, type ImageReference } from '../model/reference.ts';
import { openArchive } from './archive.ts';
import { openDirectory } from './directory.ts';
import { openDockerArchive } from './docker-archive.ts';
import { openLayout } from './layout.ts';
import type { RegistrySettings } from './registry/client.ts';
import { openRegistry, type RegistryStoreSettings } from './registry/store.ts';
import type { ImageSource, ImageStore } from './store.ts';

/**
 * Opens a place to read an image from. Nothing is read yet.
 *
 * @param image its name, as its parts
 * @param use `inspect` where only manifests and configs will be read: then a docker-archive is not unpacked, and its
 *   manifest names its layers as they are instead of as they will be copied
 * @throws OcicryptError `usage`
 * @example
 * const source = openImageSource(parseImageReference('docker-archive:app.tar'));
 */
export function openImageSource(
  image: ImageReference,
  settings: RegistrySettings = {},
  use: 'copy' | 'inspect' = 'copy',
): ImageSource {
  const name = formatImageReference(image);
  switch (image.transport) {
    case 'dir':
      return openDirectory(image.path, name);
    case 'docker-archive':
      return openDockerArchive(image.path, image.selector, name, use === 'copy');
    case 'oci':
      return openLayout(image.path, image.tag, name);
    case 'oci-archive':
      return openArchive(image.path, image.tag, name, false);
    case 'docker':
      return openRegistry(image, settings);
  }
}

/**
 * Opens a place to read an image from and write one to. Nothing is read or made yet.
 *
 * @param image its name, as its parts
 * @throws OcicryptError `usage` for a place that cannot be written to, or a name that cannot stand for a new image
 * @example
 * const store = openImageStore(parseImageReference('oci:app:latest'));
 */
export function openImageStore(image: ImageReference, settings: RegistryStoreSettings = {}): ImageStore {
  const name = formatImageReference(image);
  if (settings.digestTag === true && image.transport !== 'docker') throw noDigestTags(name);
  if ('tag' in image && image.tag?.startsWith('@')) {
    throw new OcicryptError('usage', `images cannot be written to ${name}, which is a number and no tag`, {
      hint: `name the image to write by a tag, as ${image.transport}:PATH:TAG`,
    });
  }
  switch (image.transport) {
    case 'oci':
      return openLayout(image.path, image.tag, name);
    case 'oci-archive':
      return openArchive(image.path, image.tag, name, true);
    case 'docker':
      if (digestInName(image) === undefined) return openRegistry(image, settings);
      throw new OcicryptError('usage', `${name} names a digest, and the new image has another`, {
        hint: 'name the image to write by a tag',
      });
    default:
      throw new OcicryptError('usage', `images cannot be written to ${image.transport}:`, {
        hint: 'write to oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker://HOST/NAME[:TAG]',
      });
  }
}
