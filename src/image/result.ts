// What the image commands say of their work, while it goes on and when it is done.

import type { BlobIdentity } from './cipher/layer.ts';
import type { ImageProgress, Transformed } from './transform.ts';
import { type ImageNode, platformName } from './tree.ts';

/** An image that was written, with some of its layers changed. */
export type WrittenImage = {
  /** Of the manifest or index that the destination's name now stands for. */
  readonly digest: string;
  readonly mediaType: string;
  readonly previousDigest: string;
  readonly images: readonly {
    /** `os/architecture[/variant]`, or `unknown`, as `inspect` has it. */
    readonly platform: string;
    readonly digest: string;
    /** How many were changed. */
    readonly layers: number;
  }[];
};

/** What became of the image that `tree` was. */
export function describeWritten(tree: ImageNode, { root, images }: Transformed<unknown>): WrittenImage {
  return {
    digest: root.digest,
    mediaType: root.mediaType,
    previousDigest: tree.stored.digest,
    images: [...images].map(([image, { stored, layers }]) => ({
      platform: platformName(image),
      digest: stored.digest,
      layers: layers.filter((layer) => layer !== undefined).length,
    })),
  };
}

/** Turns the bytes that were read since the last call into events of one layer. To be made anew for each attempt. */
export function countProgress(
  operation: ImageProgress['operation'],
  { digest, size }: BlobIdentity,
  report: ((progress: ImageProgress) => void) | undefined,
): (read: number) => void {
  let bytes = 0;
  return (read) => {
    bytes += read;
    report?.({ operation, digest, size, bytes });
  };
}
