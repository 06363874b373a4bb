// Which runtimes decrypt an image by which kind of name; docs/runtimes.md shows each combination as it was run.

import { digestInName, nameByDigestTag } from './model/digest-tag.ts';
import { formatImageReference, type RegistryReference } from './model/reference.ts';

export const NAME_KINDS = ['tag', 'digest', 'digest tag'] as const;
export type NameKind = (typeof NAME_KINDS)[number];

export const RUNTIMES = ['podman', 'buildah', 'CRI-O', 'containerd'] as const;
export type Runtime = (typeof RUNTIMES)[number];

/** A name as a runtime takes it, and who decrypts the image by it. */
export type RuntimeName = {
  readonly name: string;
  readonly kind: NameKind;
  readonly runtimes: readonly Runtime[];
  /** These refuse: a decrypted image has another digest than its name says. */
  readonly refusing: readonly Runtime[];
};

/** What becomes of an image if a runtime is given this name. */
export function runtimeName(image: RegistryReference): RuntimeName {
  const kind = image.digest !== undefined ? 'digest' : digestInName(image) === undefined ? 'tag' : 'digest tag';
  const runtimes = RUNTIMES.filter((runtime) => decryptsBy(runtime, kind));
  return {
    name: formatImageReference(image).replace(/^docker:\/\//, ''),
    kind,
    runtimes,
    refusing: RUNTIMES.filter((runtime) => !runtimes.includes(runtime)),
  };
}

/**
 * The names that stand for the image with this digest and no other.
 *
 * @param image as it was named
 * @param hasDigestTag whether its digest tag is known to be there; one that it was named by is
 */
export function fixedNames(image: RegistryReference, digest: string, hasDigestTag: boolean): readonly RuntimeName[] {
  const byDigest = runtimeName({ ...image, tag: undefined, digest });
  const isThere = hasDigestTag || runtimeName(image).kind === 'digest tag';
  return isThere ? [runtimeName(nameByDigestTag(image, digest)), byDigest] : [byDigest];
}

/** Whether the runtime decrypts an image that is named so, as long as it checks no signature of it. */
function decryptsBy(runtime: Runtime, kind: NameKind): boolean {
  return kind !== 'digest' || runtime === 'containerd';
}
