// Containerd's content store as it lies on disk: the encrypted layers that its manifests name, found by their first bytes.

import { createHash } from 'node:crypto';
import { closeSync, constants, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { equalBytes } from '../base/bytes.ts';
import { asOcicryptError, OcicryptError, showSystemCode } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';
import { identifyLayer, isEncryptedType } from '../image/model/annotations.ts';
import type { Descriptor } from '../image/model/descriptor.ts';
import { MAXIMUM_MANIFEST_BYTES, parseManifest } from '../image/model/manifest.ts';
import type { ContentStore } from './stores.ts';

/** What is known of a layer that is being read. */
export type LayerClue = {
  /** Its first bytes: of ciphertext, which nothing else begins with by chance. */
  readonly head: Uint8Array;
  /** Whether there are no more. */
  readonly isWhole: boolean;
  /** As containerd calls it. */
  readonly mediaType: string | undefined;
};

/** A layer as a manifest names it, and the file that its blob is. */
export type StoredLayer = {
  readonly descriptor: Descriptor;
  readonly blob: string;
  /** How many layers of its manifest that name the blob stand before it: none in an image that nobody has forged. */
  readonly turn: number;
};

/** The layers that may be meant, and why some manifests that name the blob say nothing of it. */
export type FoundLayers = { readonly layers: readonly StoredLayer[]; readonly refusals: readonly OcicryptError[] };

/** Lines that a reader still reads. */
const MAXIMUM_REFUSALS = 4;

type Entry = { readonly size: number; readonly modified: number };

/**
 * Every layer of this content that the manifests of a store name; those of the newest manifest first, each that differs
 * in its annotations once. One blob may be part of many images: an image before and after its keys were changed, for
 * example.
 *
 * containerd unpacks a layer from its blob and never from the parts that it is still fetching (`ingest`), and it has the
 * manifest before that. Everything in a store came from a registry: names are digests or are passed over, links are not
 * followed, and manifests are read as those of any image. What this reader refuses to read is passed over, and told: it can
 * hide no other manifest.
 *
 * @throws OcicryptError `configuration` where the store cannot be read
 */
export function findStoredLayers({ directory, open }: ContentStore, clue: LayerClue): FoundLayers {
  const blobs = join(directory, 'blobs/sha256');
  const entries = listBlobs(blobs);
  const isMatch = (hex: string) => beginsWith(join(blobs, hex), entries.get(hex)?.size ?? -1, clue);
  // Two blobs may begin alike if somebody made one of them so: then it is the one that containerd has open.
  const reading = [...open].filter(isMatch);
  const wanted = reading.length > 0 ? reading : [...entries.keys()].filter(isMatch);
  if (wanted.length === 0) return { layers: [], refusals: [] };
  const refusals: OcicryptError[] = [];
  const refuse = (error: OcicryptError) => {
    if (refusals.length < MAXIMUM_REFUSALS) refusals.push(error);
  };
  const layers = new Map<string, StoredLayer>();
  const manifests = [...entries].filter(([, { size }]) => size <= MAXIMUM_MANIFEST_BYTES);
  for (const [name, { size }] of manifests.toSorted(([, a], [, b]) => b.modified - a.modified)) {
    let turn = 0;
    for (const descriptor of encryptedLayers(blobs, name, size, wanted, refuse)) {
      const hex = descriptor.digest.slice('sha256:'.length);
      if (!wanted.includes(hex)) continue;
      const isMeant = clue.mediaType === undefined || descriptor.mediaType === clue.mediaType;
      if (!isMeant || entries.get(hex)?.size !== descriptor.size) {
        refuse(otherwise(name, descriptor, isMeant ? 'size' : 'type'));
        continue;
      }
      const identity = identifyLayer(descriptor);
      const known = layers.get(identity);
      if (known === undefined || known.turn > turn) layers.set(identity, { descriptor, blob: join(blobs, hex), turn });
      turn++;
    }
  }
  return { layers: [...layers.values()], refusals };
}

function otherwise(manifest: string, { digest }: Descriptor, what: 'size' | 'type'): OcicryptError {
  return new OcicryptError(
    'bad-input',
    `manifest sha256:${manifest} names layer ${digest} with another ${what} than it has`,
    { hint: 'pull the image again; if that does not help, build it again' },
  );
}

function listBlobs(blobs: string): ReadonlyMap<string, Entry> {
  const entries = new Map<string, Entry>();
  for (const name of namesIn(blobs)) {
    if (!/^[0-9a-f]{64}$/.test(name)) continue;
    const status = lstatSync(join(blobs, name), { throwIfNoEntry: false });
    if (status?.isFile()) entries.set(name, { size: status.size, modified: status.mtimeMs });
  }
  return entries;
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch (cause) {
    throw new OcicryptError('configuration', `cannot read ${showPath(directory)}${showSystemCode(cause)}`, {
      cause,
      hint: 'containerd keeps its content from others: run this as the user that it runs as',
    });
  }
}

/** Of a manifest that has one of the wanted digests in it. Most blobs are layers, which their first bytes tell from JSON. */
function encryptedLayers(
  blobs: string,
  name: string,
  size: number,
  wanted: readonly string[],
  refuse: (error: OcicryptError) => void,
): readonly Descriptor[] {
  const path = join(blobs, name);
  if (!/^\s*(?:\{|$)/.test(Buffer.from(readStart(path, Math.min(size, SHORT))).toString('latin1'))) return [];
  const bytes = readStart(path, size);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (!wanted.some((hex) => buffer.includes(hex))) return [];
  if (createHash('sha256').update(bytes).digest('hex') !== name) return [];
  try {
    const manifest = parseManifest(bytes, undefined, `manifest sha256:${name}`);
    return manifest.kind === 'manifest' ? manifest.layers.filter((layer) => isEncryptedType(layer.mediaType)) : [];
  } catch (error) {
    // A manifest that is read by no command of ours, or another document that names the layer, as a list of contents does.
    if (/"layers"/i.test(buffer.toString('latin1'))) refuse(asOcicryptError(error));
    return [];
  }
}

function beginsWith(path: string, size: number, { head, isWhole }: LayerClue): boolean {
  if (isWhole ? size !== head.length : size < head.length) return false;
  const first = head.subarray(0, SHORT);
  return equalBytes(readStart(path, first.length), first) && equalBytes(readStart(path, head.length), head);
}

/** Enough to tell almost all blobs apart. */
const SHORT = 16;

/** Less than `length` bytes, or none, where the file was cut or removed meanwhile. */
function readStart(path: string, length: number): Uint8Array {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return new Uint8Array();
  }
  try {
    const bytes = new Uint8Array(length);
    let done = 0;
    for (let count = -1; count !== 0 && done < length; done += count) {
      count = readSync(file, bytes, done, length - done, done);
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(file);
  }
}
