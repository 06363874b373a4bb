// The tag that is made of a digest, for runtimes that cannot decrypt an image that is named by its digest.

import { OcicryptError } from '../../base/errors.ts';
import { setting } from '../../base/setting.ts';
import { formatImageReference, type RegistryReference } from './reference.ts';

/** A place that can be asked what a tag stands for. */
export interface TagSource {
  /** The digest of what a tag of the same repository stands for now; undefined if there is no such tag. */
  resolveTag(tag: string, signal?: AbortSignal): Promise<string | undefined>;
}

/** Signature schemes own `sha256-HEX` and what begins with it: cosign's tags, and the referrers of a digest. */
const DIGEST_TAG = /^digest-([0-9a-f]{64})$/;

/**
 * `digest-HEX`, for `sha256:HEX`.
 *
 * @param digest `sha256:HEX`
 * @throws nothing
 * @example
 * formatDigestTag(digest); // digest-HEX
 */
export function formatDigestTag(digest: string): string {
  return digest.replace(/^sha256:/, 'digest-');
}

/**
 * The digest that a tag was made of; undefined for every other tag.
 *
 * @param tag of an image, if it has one
 * @throws nothing
 * @example
 * parseDigestTag('latest'); // undefined
 */
export function parseDigestTag(tag: string | undefined): string | undefined {
  const hex = DIGEST_TAG.exec(tag ?? '')?.[1];
  return hex === undefined ? undefined : `sha256:${hex}`;
}

/** The digest that a name stands for, in whichever form; undefined for a name that may stand for another image tomorrow. */
export function digestInName({ digest, tag }: RegistryReference): string | undefined {
  return digest ?? parseDigestTag(tag);
}

/** The name of the image with this digest in the same repository, by its digest tag. */
export function nameByDigestTag(image: RegistryReference, digest: string): RegistryReference {
  return { ...image, tag: formatDigestTag(digest), digest: undefined };
}

/**
 * Whether the digest tag of the image is there already.
 *
 * @throws OcicryptError `integrity` if it stands for another image
 */
export async function hasDigestTag(place: TagSource, digest: string, signal?: AbortSignal): Promise<boolean> {
  const tag = formatDigestTag(digest);
  const found = await place.resolveTag(tag, signal);
  if (found === undefined || found === digest) return found === digest;
  throw new OcicryptError('integrity', `the tag ${tag} stands for another image, ${found}`, {
    hint: 'the tag was moved: find out who can write to the repository, then delete the tag',
  });
}

/** The command that gives an image its digest tag without us. */
export function digestTagCommand(image: RegistryReference, digest: string): string {
  const byDigest = formatImageReference({ ...image, tag: undefined, digest });
  const byTag = formatImageReference(nameByDigestTag(image, digest));
  return `skopeo copy --all --preserve-digests ${byDigest} ${byTag}`;
}

/** The error for a digest tag outside registries, where no image is named by its digest either. */
export function noDigestTags(name: string): OcicryptError {
  return new OcicryptError('usage', `${name} is in no registry, and only images in registries have digest tags`, {
    hint: `leave out ${setting('digestTag')}; copied to a registry under that tag, the image has it`,
  });
}
