// What a pod says of images: which it names, where, and of what decides how they are judged.

import { OcicryptError } from '../base/errors.ts';
import { printable } from '../base/shown.ts';
import { isRecord, type UnknownRecord } from '../base/yaml-file.ts';
import type { Labels } from './policy.ts';
import { textOf } from './review.ts';

/** An image that a pod names. */
export type PodImage = {
  /** For people: `container "web"`. */
  readonly where: string;
  /** RFC 6901: where its name stands. */
  readonly pointer: string;
  readonly name: string;
};

/** Each list of a pod that names images, what its entries are called, and the members that lead to a name. */
const PLACES = [
  ['initContainers', 'init container', ['image']],
  ['containers', 'container', ['image']],
  ['ephemeralContainers', 'ephemeral container', ['image']],
  ['volumes', 'volume', ['image', 'reference']],
] as const;

/** More than a node could run, and more names than can be looked at in time. */
const MAXIMUM_IMAGES = 4096;

/**
 * All images that a pod names, in its order.
 *
 * @throws OcicryptError `bad-input` for what an API server would not send
 */
function imagesOf(pod: UnknownRecord): readonly PodImage[] {
  const spec = isRecord(pod.spec) ? pod.spec : undefined;
  if (spec === undefined) throw new OcicryptError('bad-input', 'the pod has no spec');
  const images = PLACES.flatMap(([member, kind, path]) =>
    entriesOf(spec, member).flatMap((entry, index): readonly PodImage[] => {
      if (!isRecord(entry)) throw new OcicryptError('bad-input', `an entry of ${member} is no object`);
      // A volume is of many kinds, a container always has an image.
      if (member === 'volumes' && (entry.image === undefined || entry.image === null)) return [];
      const value = path.reduce((at: unknown, name) => (isRecord(at) ? at[name] : undefined), entry);
      const where = `${kind} ${JSON.stringify(printable(textOf(entry.name)).slice(0, 63))}`;
      return [{ where, pointer: `/spec/${member}/${index}/${path.join('/')}`, name: textOf(value) }];
    }),
  );
  if (images.length > MAXIMUM_IMAGES)
    throw new OcicryptError('bad-input', `the pod names more than ${MAXIMUM_IMAGES} images`);
  return images;
}

/** The images that were not there before, in the same place by the same name. */
export function newImages(pod: UnknownRecord, old: UnknownRecord | undefined): readonly PodImage[] {
  const key = ({ where, name }: PodImage) => `${where} ${name}`;
  const known = new Set(old === undefined ? [] : imagesOf(old).map(key));
  return imagesOf(pod).filter((image) => !known.has(key(image)));
}

const MIRROR = 'kubernetes.io/config.mirror';

/**
 * A pod without what decides nothing: its author may make that large, and this is kept for as long as registries are asked.
 * What is not as it should be stays so.
 */
export function essentialsOf(pod: UnknownRecord): UnknownRecord {
  const { metadata, spec } = pod;
  const annotations = isRecord(metadata) && isMirror(pod) ? { [MIRROR]: '' } : undefined;
  const entry = (value: unknown, [first]: readonly string[]) =>
    isRecord(value) && first !== undefined ? { name: value.name, [first]: partOf(value[first], ['reference']) } : value;
  return {
    metadata: isRecord(metadata) ? { ...pick(metadata, ['name', 'generateName', 'labels']), annotations } : undefined,
    spec: isRecord(spec)
      ? {
          ...pick(spec, ['nodeSelector', 'imagePullSecrets']),
          ...Object.fromEntries(
            PLACES.map(([member, , path]) => {
              const value = spec[member];
              return [member, Array.isArray(value) ? value.map((one) => entry(one, path)) : value];
            }),
          ),
        }
      : spec,
  };
}

function partOf(value: unknown, members: readonly string[]): unknown {
  return isRecord(value) ? pick(value, members) : value;
}

function pick(from: UnknownRecord, members: readonly string[]): UnknownRecord {
  return Object.fromEntries(members.map((member) => [member, from[member]]));
}

export function labelsOf(object: UnknownRecord): Labels {
  return textsOf(isRecord(object.metadata) ? object.metadata.labels : undefined);
}

/** The labels that every node has to which the pod may come. */
export function boundLabels(pod: UnknownRecord): Labels {
  return textsOf(isRecord(pod.spec) ? pod.spec.nodeSelector : undefined);
}

/** The names of the secrets by which its images are pulled. */
export function pullSecretsOf(pod: UnknownRecord): readonly string[] {
  const spec = isRecord(pod.spec) ? pod.spec : {};
  return entriesOf(spec, 'imagePullSecrets')
    .flatMap((entry) => (isRecord(entry) ? textOf(entry.name) : ''))
    .filter(Boolean);
}

/** How a pod is called that may not have its name yet. */
export function podName(pod: UnknownRecord, name: string): string {
  const metadata = isRecord(pod.metadata) ? pod.metadata : {};
  const given = name || textOf(metadata.name) || `${textOf(metadata.generateName)}*`;
  return printable(given).slice(0, 253);
}

/** Whether it only shows what a node runs by itself: nothing of it can be changed, and refusing it stops nothing. */
export function isMirror(pod: UnknownRecord): boolean {
  const annotations = isRecord(pod.metadata) ? pod.metadata.annotations : undefined;
  return isRecord(annotations) && Object.hasOwn(annotations, MIRROR);
}

function entriesOf(spec: UnknownRecord, member: string): readonly unknown[] {
  const value = spec[member];
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw new OcicryptError('bad-input', `${member} of the pod is no list`);
}

function textsOf(value: unknown): Labels {
  if (!isRecord(value)) return {};
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, text]) => (typeof text === 'string' ? [[name, text]] : [])),
  );
}
