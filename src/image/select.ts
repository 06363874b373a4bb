// Counts layers: which layer of an image the user means by a number.

import { OcicryptError } from '../base/errors.ts';
import type { PlatformImage } from './tree.ts';

/**
 * The numbers of the layers that are meant, for each image.
 *
 * @param numbers from 0, or from -1 backwards; undefined means all
 * @throws OcicryptError `not-found` for a number that an image does not have
 */
export function selectLayers(
  images: readonly PlatformImage[],
  numbers: readonly number[] | undefined,
): ReadonlyMap<PlatformImage, ReadonlySet<number>> {
  return new Map(images.map((image) => [image, selectOf(image.manifest.layers.length, numbers)]));
}

function selectOf(count: number, numbers: readonly number[] | undefined): ReadonlySet<number> {
  if (numbers === undefined) return new Set(Array.from({ length: count }, (_, index) => index));
  return new Set(
    numbers.map((number) => {
      const index = number < 0 ? count + number : number;
      if (Number.isInteger(index) && index >= 0 && index < count) return index;
      throw new OcicryptError('not-found', `no layer ${number} in an image of ${count} layers`, {
        hint:
          count === 0 ? 'it has nothing to encrypt' : `layers are 0 to ${count - 1}, or -1 to -${count} from the end`,
      });
    }),
  );
}
