// Parses image names, spelled as skopeo spells them: containers-transports(5).

import { OcicryptError } from '../../base/errors.ts';
import { isContentOfFile, showValue } from '../../base/shown.ts';

/** An image by where it is. Paths are as typed, relative to the current directory; a tag `@N` is the number of an image. */
export type ImageReference =
  | { readonly transport: 'oci' | 'oci-archive'; readonly path: string; readonly tag: string | undefined }
  | { readonly transport: 'dir'; readonly path: string }
  | { readonly transport: 'docker-archive'; readonly path: string; readonly selector: string | undefined }
  | RegistryReference;

/** As images of Docker Hub are named. */
export const DOCKER_HUB = 'docker.io';

/** The host that images and credentials are filed under: Docker Hub has several. */
export function normalizeHost(host: string): string {
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? DOCKER_HUB : host;
}

/** An image in a registry: either a tag or a digest. */
export type RegistryReference = {
  readonly transport: 'docker';
  /** `HOST` or `HOST:PORT`, as credentials are filed under. */
  readonly host: string;
  readonly name: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
};

/**
 * Parses `oci:DIR[:TAG|:@N]`, `oci-archive:FILE[:TAG|:@N]`, `docker://HOST/NAME[:TAG|@DIGEST]`, `dir:DIR` or
 * `docker-archive:FILE[:NAME|:@N]`.
 *
 * @param text the name of an image, as users write it
 * @throws OcicryptError `usage`
 * @example
 * const image = parseImageReference('docker://registry.example/app:1');
 */
export function parseImageReference(text: string): ImageReference {
  const colon = text.indexOf(':');
  const transport = text.slice(0, Math.max(colon, 0));
  const rest = text.slice(colon + 1);
  switch (transport) {
    case 'oci':
    case 'oci-archive':
      return parseLayout(transport, rest, text);
    case 'dir':
      return { transport, path: nonEmpty(rest, text) };
    case 'docker-archive': {
      const [path, selector] = splitPath(rest);
      return { transport, path: nonEmpty(path, text), selector };
    }
    case 'docker':
      if (!rest.startsWith('//')) throw notAnImage(text, `did you mean docker://${rest}?`);
      return parseRegistry(rest.slice(2), text);
    default:
      throw notAnImage(text, suggestTransport(text));
  }
}

/** The name as {@link parseImageReference} takes it. */
export function formatImageReference(image: ImageReference): string {
  switch (image.transport) {
    case 'docker':
      return `docker://${image.host}/${image.name}${image.digest === undefined ? `:${image.tag ?? 'latest'}` : `@${image.digest}`}`;
    case 'dir':
      return `dir:${image.path}`;
    case 'docker-archive':
      return `docker-archive:${image.path}${image.selector === undefined ? '' : `:${image.selector}`}`;
    default:
      return `${image.transport}:${image.path}${image.tag === undefined ? '' : `:${image.tag}`}`;
  }
}

/** containers/image oci/internal: what may stand behind the path. */
const WORD = '[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*';
const LAYOUT_TAG = new RegExp(`^(?:${WORD}(?:/${WORD})*|@[0-9]{1,9})$`);

/** distribution/reference. */
const HOST =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

function parseLayout(transport: 'oci' | 'oci-archive', rest: string, text: string): ImageReference {
  const [path, tag] = splitPath(rest);
  if (tag !== undefined && (tag.length > 255 || !LAYOUT_TAG.test(tag)))
    throw notAnImage(text, 'a tag looks like 1.0 or latest, and @0 is the first image');
  return { transport, path: nonEmpty(path, text), tag };
}

/** The first colon ends the path, as in skopeo. */
function splitPath(rest: string): readonly [string, string | undefined] {
  const colon = rest.indexOf(':');
  if (colon < 0) return [rest, undefined];
  const tag = rest.slice(colon + 1);
  return [rest.slice(0, colon), tag === '' ? undefined : tag];
}

function parseRegistry(rest: string, text: string): RegistryReference {
  const [named = '', digest, ...more] = rest.split('@');
  const slash = named.indexOf('/');
  const first = slash < 0 ? '' : named.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first;
  const host = isHost ? normalizeHost(first) : DOCKER_HUB;
  const path = isHost ? named.slice(slash + 1) : named;
  const colon = path.lastIndexOf(':');
  const tag = colon < 0 ? undefined : path.slice(colon + 1);
  const short = colon < 0 ? path : path.slice(0, colon);
  const name = host === DOCKER_HUB && !short.includes('/') ? `library/${short}` : short;
  if (more.length > 0 || !HOST.test(host) || !NAME.test(name) || name.length > 255) {
    throw notAnImage(text, 'images in registries look like docker://HOST/NAME:TAG');
  }
  if (tag !== undefined && digest !== undefined) throw notAnImage(text, 'name a tag or a digest, not both');
  if (tag !== undefined && !TAG.test(tag)) throw notAnImage(text, 'a tag looks like 1.0 or latest');
  if (digest !== undefined && !DIGEST.test(digest))
    throw notAnImage(text, 'a digest is sha256: and 64 hexadecimal digits');
  return { transport: 'docker', host, name, tag: digest === undefined ? (tag ?? 'latest') : undefined, digest };
}

function suggestTransport(text: string): string {
  if (/^https?:\/\//.test(text)) return `did you mean ${text.replace(/^https?/, 'docker')}?`;
  if (/\.(?:tar|tgz|tar\.\w+)$/.test(text)) return `did you mean oci-archive:${text}?`;
  if (/^[./]/.test(text)) return `did you mean oci:${text}?`;
  if (/^[a-z0-9.-]+(:\d+)?\/\S+$/.test(text)) return `did you mean docker://${text}?`;
  return 'images are named oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker://HOST/NAME[:TAG|@DIGEST]';
}

function nonEmpty(path: string, text: string): string {
  if (path === '' || path.includes('\0') || isContentOfFile(path)) throw notAnImage(text, 'a path is missing');
  // What the runtime puts in the place of bytes that it cannot read: the path would name another file.
  if (path.includes('\ufffd'))
    throw notAnImage(text, 'its path is not UTF-8: give the file another name, or a link that has one');
  return path;
}

function notAnImage(text: string, hint: string): OcicryptError {
  return new OcicryptError('usage', `not an image: ${showValue(text)}`, { hint });
}
