// Reads the name of an image as pods have it, which runtimes take for an image in a registry.

import { bareHost, isLoopback } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { printable } from '../base/shown.ts';
import { parseDigestTag } from '../image/model/digest-tag.ts';
import { formatImageReference, parseImageReference, type RegistryReference } from '../image/model/reference.ts';
import type { NodeRuntime } from './policy.ts';

/** Runtimes also take what names an image that the node has already, in no registry. */
const IDENTIFIER = /^(?:sha256:)?[0-9a-f]{64}$/;
/** A tag beside a digest, which no runtime looks at. */
const IDLE_TAG = /:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?=@)/;

/**
 * The image that a runtime would pull by this name.
 *
 * @throws OcicryptError `usage` for a name that is none, or that does not say where the image is
 */
export function parseImageName(name: string): RegistryReference {
  if (name === '') throw new OcicryptError('usage', 'no image is named');
  if (IDENTIFIER.test(name)) {
    throw new OcicryptError('usage', 'the name is an ID, and images have IDs on nodes alone', {
      hint: 'name the image by its registry',
    });
  }
  const image = parseImageReference(`docker://${name.replace(IDLE_TAG, '')}`);
  if (image.transport === 'docker') return image;
  throw new OcicryptError('usage', 'the name is none of an image in a registry');
}

/** The name as pods have it: whole, so that no list of a runtime's own says where it is. */
export function formatImageName(image: RegistryReference): string {
  return formatImageReference(image).replace(/^docker:\/\//, '');
}

/** Whether the name says its registry: CRI-O may look for others in registries of the node's own choice. */
export function isWhole(name: string): boolean {
  return /^(?:localhost|[^/]*[.:][^/]*)\//.test(name);
}

/** Whether the registry is what is meant on every machine. */
export function isOnThisMachine({ host }: RegistryReference): boolean {
  const url = URL.parse(`https://${host}`);
  // Spelled in whichever way: 127.1 and 2130706433 are addresses too.
  const name = url === null ? host : bareHost(url);
  return isLoopback(name) || /^(?:0\.0\.0\.0|::|::ffff:0:0|::ffff:7f[0-9a-f]{2}:[0-9a-f]+|.*\.localhost)$/.test(name);
}

/**
 * Whether a node with this runtime runs the image that was judged by this name, tomorrow as well. What is named by its digest
 * CRI-O does not decrypt: there only the digest tag will do.
 */
export function isFixed(image: RegistryReference, runtime: NodeRuntime | undefined): boolean {
  return runtime === 'cri-o' ? parseDigestTag(image.tag) !== undefined : image.digest !== undefined;
}

/** A name as it is shown in messages. */
export function showImage(name: string): string {
  return name === '' ? 'without an image' : printable(name).slice(0, 200);
}
