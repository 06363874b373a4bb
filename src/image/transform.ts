// Writes an image that is another one with some layers changed: content first, manifests after it, the root last.

import { OcicryptError } from '../base/errors.ts';
import { asArray } from '../base/json.ts';
import type { JsonInput } from '../base/json-writer.ts';
import { thaw } from '../base/json-writer.ts';
import { forEachLimited } from './concurrency.ts';
import { identifyLayer, ociLayerType, withoutEncryption } from './model/annotations.ts';
import { changeDescriptor, type Descriptor } from './model/descriptor.ts';
import { MEDIA_TYPES, writeIndex, writeManifest } from './model/manifest.ts';
import { retry } from './retry.ts';
import {
  copyBlob,
  createNewManifest,
  type ImageSource,
  type ImageStore,
  type StoredManifest,
} from './transports/store.ts';
import type { ImageNode, PlatformImage } from './tree.ts';

/** A layer after its change; `annotations` take the place of all that encryption added before. */
export type ChangedLayer = {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations: ReadonlyMap<string, string>;
};

/** How far a layer or other blob is. */
export type ImageProgress = {
  readonly operation: 'encrypt' | 'decrypt' | 'copy';
  /** Digest before the change. */
  readonly digest: string;
  /** Bytes in all. */
  readonly size: number;
  /** Bytes done so far; the last event has all. */
  readonly bytes: number;
};

export type TransformOptions<Change extends ChangedLayer> = {
  /** Whether layer number `index` of the image is to change. */
  readonly selects: (image: PlatformImage, index: number) => boolean;
  /** Writes the changed layer to the destination. Called once for layers that are alike. */
  readonly change: (layer: Descriptor, signal: AbortSignal) => Promise<Change>;
  /** Called for each changed layer of each image before any manifest is written; may throw. */
  readonly check?: (image: PlatformImage, index: number, change: Change) => void;
  readonly onProgress?: ((progress: ImageProgress) => void) | undefined;
  /** Called once, before the work begins, with the bytes of all that `onProgress` will tell of. */
  readonly onTotal?: ((bytes: number) => void) | undefined;
  /** Called with the digest of the new image when only its name is to be moved: afterwards it may stand for that. */
  readonly onSwitch?: ((digest: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** The images that were changed, by their manifests before, and the new root. */
export type Transformed<Change> = {
  readonly root: StoredManifest;
  readonly images: ReadonlyMap<PlatformImage, ChangedImage<Change>>;
};

export type ChangedImage<Change> = {
  readonly stored: StoredManifest;
  /** One for each layer of the manifest; undefined if it was left as it is. */
  readonly layers: readonly (Change | undefined)[];
};

/**
 * Writes `tree` to the destination with the selected layers changed. Manifests of images without a selected layer, and
 * all that is no image, are written as they are.
 *
 * @throws whatever `change` and `check` throw; the destination's name then still stands for what it stood for
 */
export async function transformImage<Change extends ChangedLayer>(
  source: ImageSource,
  destination: ImageStore,
  tree: ImageNode,
  options: TransformOptions<Change>,
): Promise<Transformed<Change>> {
  const plan = planWork(tree, options);
  const changes = new Map<string, Change>();
  const blobs = [...plan.changes.values(), ...plan.copies.values()];
  options.onTotal?.(blobs.reduce((sum, { size }) => sum + size, 0));
  const work = [
    ...[...plan.changes].map(([key, layer]) => async (signal: AbortSignal) => {
      changes.set(key, await options.change(layer, signal));
    }),
    ...[...plan.unknown.values()].map(
      (entry) => (signal: AbortSignal) => copyUnknown(source, destination, entry, signal),
    ),
    ...[...plan.copies.values()].map((blob) => async (signal: AbortSignal) => {
      const { digest, size } = blob;
      await copyContent(source, destination, blob, signal, (bytes) => {
        options.onProgress?.({ operation: 'copy', digest, size, bytes });
      });
    }),
  ];
  // One layer keeps both cores busy: two side by side from disk to disk are no faster and take 60 MiB more (measured).
  const limit = Math.max(source.transfers, destination.transfers);
  await forEachLimited(work, limit, (step, signal) => step(signal), options.signal);

  const images = new Map<PlatformImage, ChangedImage<Change>>();
  for (const image of plan.images) {
    const layers = image.manifest.layers.map((layer, index) =>
      options.selects(image, index) ? changes.get(identifyLayer(layer)) : undefined,
    );
    for (const [index, change] of layers.entries()) if (change !== undefined) options.check?.(image, index, change);
    images.set(image, { stored: rewriteImage(image, layers), layers });
  }
  const written = rewriteTree(tree, new Map([...images].map(([image, { stored }]) => [image, stored])));
  await writeTree(destination, written, options);
  return { root: written.root, images };
}

/** The manifests of an image; inner ones in the order in which they are to be written. */
export type RewrittenTree = { readonly root: StoredManifest; readonly inner: readonly StoredManifest[] };

/** Writes the manifests of an image whose layers are there: the root last, by which the name moves. */
export async function writeTree(
  destination: ImageStore,
  { root, inner }: RewrittenTree,
  { signal, onSwitch }: Pick<TransformOptions<ChangedLayer>, 'onSwitch' | 'signal'>,
): Promise<void> {
  for (const manifest of inner) await destination.writeManifest(manifest, signal);
  signal?.throwIfAborted();
  onSwitch?.(root.digest);
  await destination.writeRoot(root, signal);
}

/**
 * The manifests of the tree after some of its images have changed. Indexes without a changed image stay byte for byte
 * what they are.
 */
export function rewriteTree(tree: ImageNode, changed: ReadonlyMap<ImageNode, StoredManifest>): RewrittenTree {
  const replacement = changed.get(tree);
  if (replacement !== undefined) return { root: replacement, inner: [] };
  if (tree.kind !== 'index') return { root: tree.stored, inner: [] };
  const inner: StoredManifest[] = [];
  const digests = new Map<string, StoredManifest>();
  for (const { descriptor, node } of tree.children) {
    if (node === undefined) continue;
    const child = rewriteTree(node, changed);
    inner.push(...child.inner, child.root);
    if (child.root.digest !== descriptor.digest) digests.set(descriptor.digest, child.root);
  }
  if (digests.size === 0) return { root: tree.stored, inner };
  const entries = tree.children.map(({ descriptor }) => rewriteEntry(descriptor, digests));
  return { root: createNewManifest(writeIndex(tree.index, entries), MEDIA_TYPES.index), inner };
}

/** An attestation names the image that it is about, beside it in the index: github.com/moby/buildkit docs/attestations. */
const REFERENCE = 'vnd.docker.reference.digest';

function rewriteEntry(descriptor: Descriptor, changed: ReadonlyMap<string, StoredManifest>): JsonInput {
  const own = changed.get(descriptor.digest);
  const subject = changed.get(descriptor.annotations.get(REFERENCE) ?? '');
  if (own === undefined && subject === undefined) return thaw(descriptor.json);
  const { mediaType, digest, size } = own ?? descriptor;
  const annotations = subject && new Map([...descriptor.annotations, [REFERENCE, subject.digest]]);
  return changeDescriptor(descriptor, { mediaType, digest, size, annotations });
}

type Plan = {
  readonly images: readonly PlatformImage[];
  readonly changes: ReadonlyMap<string, Descriptor>;
  readonly copies: ReadonlyMap<string, Descriptor>;
  /** Entries of indexes whose types are not known. */
  readonly unknown: ReadonlyMap<string, Descriptor>;
};

function planWork<Change extends ChangedLayer>(tree: ImageNode, { selects }: TransformOptions<Change>): Plan {
  const images: PlatformImage[] = [];
  const changes = new Map<string, Descriptor>();
  const copies = new Map<string, Descriptor>();
  const unknown = new Map<string, Descriptor>();
  const visit = (node: ImageNode): void => {
    if (node.kind === 'index') {
      for (const { descriptor, node: child } of node.children) {
        if (child === undefined) unknown.set(descriptor.digest, descriptor);
        else visit(child);
      }
      return;
    }
    copies.set(node.manifest.config.digest, node.manifest.config);
    let changed = false;
    for (const [index, layer] of node.manifest.layers.entries()) {
      const selected = node.kind === 'image' && selects(node, index);
      changed ||= selected;
      if (selected) changes.set(identifyLayer(layer), layer);
      else copies.set(layer.digest, layer);
    }
    if (changed && node.kind === 'image') images.push(node);
  };
  visit(tree);
  return { images, changes, copies, unknown };
}

/** Layers that a registry may not pass on are named by an address elsewhere and need not be here. */
async function copyContent(
  source: ImageSource,
  destination: ImageStore,
  blob: Descriptor,
  signal: AbortSignal,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const copied = retry((running) => copyBlob(source, destination, blob, running, onProgress), signal);
  await (asArray(blob.json.get('urls'))?.length ? ifThere(copied) : copied);
}

/** An index names manifests, also of types that are not known here: a registry takes no index whose manifests it lacks. */
async function copyUnknown(
  source: ImageSource,
  destination: ImageStore,
  entry: Descriptor,
  signal: AbortSignal,
): Promise<void> {
  const manifest = await ifThere(retry((running) => source.readManifest(entry, running), signal));
  if (manifest !== undefined) return destination.writeManifest(manifest, signal);
  await ifThere(retry((running) => copyBlob(source, destination, entry, running), signal));
}

/** What a sparse index names without having it stays as it is named. */
async function ifThere<Result>(promise: Promise<Result>): Promise<Result | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof OcicryptError && error.code === 'not-found') return undefined;
    throw error;
  }
}

function rewriteImage(image: PlatformImage, changes: readonly (ChangedLayer | undefined)[]): StoredManifest {
  const layers = image.manifest.layers.map((layer, index) => {
    const change = changes[index];
    if (change === undefined) {
      // An OCI manifest holds no layer of Docker's types.
      return changeDescriptor(layer, { mediaType: ociLayerType(layer.mediaType) ?? layer.mediaType });
    }
    const { mediaType, digest, size } = change;
    const annotations = new Map([...withoutEncryption(layer.annotations), ...change.annotations]);
    return changeDescriptor(layer, { mediaType, digest, size, annotations });
  });
  return createNewManifest(writeManifest(image.manifest, layers), MEDIA_TYPES.manifest);
}
