// Judges images in registries by the demands of rules, many at once, and keeps what was found about digests.

import { createHash } from 'node:crypto';
import { clientOf } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import type { Client } from '../base/fair-queue.ts';
import { createHttpStreams, type HttpStreams } from '../base/http/stream.ts';
import { memoryOfJson } from '../base/json-room.ts';
import { SharedRuns } from '../base/share.ts';
import { Places } from '../base/turns.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import type { BlobIdentity } from '../image/cipher/layer.ts';
import type { Descriptor } from '../image/model/descriptor.ts';
import { formatDigestTag } from '../image/model/digest-tag.ts';
import { formatImageReference, type RegistryReference } from '../image/model/reference.ts';
import { openImageSource } from '../image/transports/open.ts';
import type { RegistrySettings } from '../image/transports/registry/client.ts';
import type { AuthDocument } from '../image/transports/registry/credentials.ts';
import { type BlobReader, type ImageSource, isTagSource, type StoredManifest } from '../image/transports/store.ts';
import { verifyImage } from '../image/verify.ts';
import { HeldMemory } from './held-memory.ts';
import { Kept } from './kept.ts';
import type { Rule } from './policy.ts';

/** What was found about an image. */
export type Verdict = {
  readonly digest: string;
  readonly ok: boolean;
  /** Why not: the first reasons, and how many more there are. */
  readonly problem: string;
};

/** Credentials that a pod brings; those with the same id are the same. */
export type Logins = { readonly id: string; readonly documents: readonly AuthDocument[] };
export const NO_LOGINS: Logins = { id: '', documents: [] };

export type JudgeOptions = {
  readonly registry: RegistrySettings;
  /** Gives what opens layer keys for a rule; nothing for one that opens none. */
  readonly unwrapperFor: (rule: Rule) => ((key: string | undefined) => LayerKeyUnwrapper) | undefined;
  readonly onVerdict: (source: 'kept' | 'made') => void;
  /** Bytes that all images take at the most that are looked at; 128 MiB if it is left out. */
  readonly memory?: number;
};

/** Images that are looked at side by side, for all pods of a namespace and for all pods together. */
const PLACES = { namespace: 16, all: 256 } as const;
const MAXIMUM_VERDICTS = 4096;
/** A manifest with a digest never changes; whether a key opens a layer, and what an index names beside, may. */
const GOOD_MILLISECONDS = 10 * 60_000;
const BAD_MILLISECONDS = 10_000;
/** An open repository has its token and its credentials, which may change. */
const MAXIMUM_REPOSITORIES = 256;
const REPOSITORY_MILLISECONDS = 60_000;
/** With a pod's credentials it is kept no longer than those are. */
const LENT_REPOSITORY_MILLISECONDS = 5_000;
/** The longest that a review takes. */
const REVIEW_MILLISECONDS = 35_000;
const SHOWN_REASONS = 2;

/** The judge of one policy: another one has other demands, and another judge. */
export class Judge {
  readonly #options: JudgeOptions;
  #streams: HttpStreams;
  #renewed = performance.now();
  readonly #verdicts = new Kept<Verdict>(MAXIMUM_VERDICTS);
  readonly #sources = new Kept<ImageSource>(MAXIMUM_REPOSITORIES);
  readonly #running = new SharedRuns<Verdict>();
  readonly #all = new Places(PLACES.all);
  readonly #namespaces = new Map<Client, Places>();
  readonly #held: HeldMemory;

  constructor(options: JudgeOptions) {
    this.#options = options;
    this.#held = new HeldMemory(options.memory);
    this.#streams = this.#createStreams();
  }

  /**
   * Judges an image. What a tag stands for is asked each time; pods of a namespace that ask at the same time
   * share the answer.
   *
   * @throws OcicryptError why nothing can be known of it, or the signal's reason
   */
  async judge(image: RegistryReference, rule: Rule, logins: Logins, signal: AbortSignal): Promise<Verdict> {
    const kept = image.digest === undefined ? undefined : this.#find(image, image.digest, rule, logins);
    if (kept !== undefined) return kept;
    // Who joins the run of another namespace would wait where that one waits.
    const key = JSON.stringify([clientOf(signal), rule.name, logins.id, formatImageReference(image)]);
    return this.#running.run(key, signal, (running) =>
      this.#inTurn(running, () =>
        this.#held.during(clientOf(running), running, (held) => this.#look(image, rule, logins, held)),
      ),
    );
  }

  /** Whether the image has its digest tag, and that stands for it. @throws OcicryptError */
  async hasDigestTag(image: RegistryReference, digest: string, logins: Logins, signal: AbortSignal): Promise<boolean> {
    const source = this.#open(image, logins);
    if (!isTagSource(source)) return false;
    return (await this.#inTurn(signal, () => source.resolveTag(formatDigestTag(digest), signal))) === digest;
  }

  close(): void {
    this.#streams.close();
  }

  #find(image: RegistryReference, digest: string, rule: Rule, logins: Logins): Verdict | undefined {
    const kept = this.#verdicts.get(verdictKey(image, digest, rule, logins));
    if (kept !== undefined) this.#options.onVerdict('kept');
    return kept;
  }

  async #look(image: RegistryReference, rule: Rule, logins: Logins, signal: AbortSignal): Promise<Verdict> {
    const source = this.#open(image, logins);
    const root = await source.readRoot(signal);
    const kept = this.#find(image, root.digest, rule, logins);
    if (kept !== undefined) return kept;
    const hold = (bytes: number) => this.#held.hold(bytes);
    const unwrapper = this.#options.unwrapperFor(rule);
    // Without keys to ask, what packets say of themselves is forgotten before anything else is looked at.
    const demands = { ...rule.demands, unwrapper, signal, hold: unwrapper && hold };
    const { ok, reasons } = await verifyImage(new RootedSource(source, root, hold), demands);
    this.#options.onVerdict('made');
    const shown = reasons.slice(0, SHOWN_REASONS).map(({ message }) => message);
    const more = reasons.length - shown.length;
    const problem = `${shown.join(', ')}${more > 0 ? ` (and ${more} more reason${more === 1 ? '' : 's'})` : ''}`;
    const verdict = { digest: root.digest, ok, problem };
    this.#verdicts.set(
      verdictKey(image, root.digest, rule, logins),
      verdict,
      ok ? GOOD_MILLISECONDS : BAD_MILLISECONDS,
    );
    return verdict;
  }

  #open(image: RegistryReference, logins: Logins): ImageSource {
    const key = `${logins.id} ${formatImageReference(image)}`;
    const open = this.#sources.get(key);
    if (open !== undefined) return open;
    const settings = { ...this.#options.registry, streams: this.#connect(), authDocuments: logins.documents };
    const source = openImageSource(image, settings, 'inspect');
    const isLent = logins.documents.length > 0;
    this.#sources.set(key, source, isLent ? LENT_REPOSITORY_MILLISECONDS : REPOSITORY_MILLISECONDS);
    return source;
  }

  /** Connections are given up now and then: pods name hosts as they like, each of which could keep one open for ever. */
  #connect(): HttpStreams {
    if (performance.now() - this.#renewed < REPOSITORY_MILLISECONDS) return this.#streams;
    const old = this.#streams;
    this.#renewed = performance.now();
    this.#streams = this.#createStreams();
    setTimeout(() => old.close(), REPOSITORY_MILLISECONDS + REVIEW_MILLISECONDS).unref();
    return this.#streams;
  }

  #createStreams(): HttpStreams {
    return this.#held.counting(createHttpStreams(this.#options.registry));
  }

  /** A namespace whose registry hangs keeps its own pods waiting, and no others. */
  async #inTurn<Result>(signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const namespace = clientOf(signal);
    const places = this.#namespaces.get(namespace) ?? new Places(PLACES.namespace);
    this.#namespaces.set(namespace, places);
    try {
      return await withPlace(places, signal, () => withPlace(this.#all, signal, work));
    } finally {
      if (places.taken === 0) this.#namespaces.delete(namespace);
    }
  }
}

async function withPlace<Result>(places: Places, signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
  await places.take(signal, { name: 'other images' }, tooMany);
  try {
    return await work();
  } finally {
    places.leave();
  }
}

/** The id of credentials, which does not tell them. */
export function createLogins(documents: readonly AuthDocument[]): Logins {
  if (documents.length === 0) return NO_LOGINS;
  const hash = createHash('sha256');
  for (const { content } of documents) hash.update(`${content.length} `).update(content);
  return { id: hash.digest('hex'), documents };
}

/** What may be known of an image to who has some credentials is nothing for who has others. */
function verdictKey({ host, name }: RegistryReference, digest: string, rule: Rule, logins: Logins): string {
  return `${rule.name} ${logins.id} ${host}/${name}@${digest}`;
}

function tooMany(): OcicryptError {
  return new OcicryptError('throttled', 'too many images are looked at already', { hint: 'try again later' });
}

/** An image whose root has been read, and which says what its manifests take of memory beside what came. */
class RootedSource implements ImageSource {
  readonly name: string;
  readonly transfers: number;
  readonly #source: ImageSource;
  readonly #root: StoredManifest;
  readonly #hold: (bytes: number) => void;

  constructor(source: ImageSource, root: StoredManifest, hold: (bytes: number) => void) {
    this.name = source.name;
    this.transfers = source.transfers;
    this.#source = source;
    this.#root = root;
    this.#hold = hold;
  }

  async readRoot(): Promise<StoredManifest> {
    return this.#weighed(this.#root);
  }

  async readManifest(descriptor: Descriptor, signal?: AbortSignal): Promise<StoredManifest> {
    return this.#weighed(await this.#source.readManifest(descriptor, signal));
  }

  /** The reader has room for the whole of a config before any of it comes. */
  async openBlob(blob: BlobIdentity, signal?: AbortSignal): Promise<BlobReader> {
    this.#hold(blob.size);
    return this.#source.openBlob(blob, signal);
  }

  async close(): Promise<void> {}

  /** Before it is parsed. */
  #weighed(manifest: StoredManifest): StoredManifest {
    this.#hold(memoryOfJson(manifest.bytes));
    return manifest;
  }
}
