// Asks a registry what refers to a manifest: signatures, attestations, bills of materials.

import { asObject, asText, readObject } from '../../../base/json.ts';
import { forEachLimited } from '../../concurrency.ts';
import type { Descriptor } from '../../model/descriptor.ts';
import { MAXIMUM_MANIFEST_BYTES, MEDIA_TYPES, parseManifest } from '../../model/manifest.ts';
import { withoutRetries } from '../../retry.ts';
import type { Referrers } from '../store.ts';
import type { RegistryClient } from './client.ts';
import type { LocatedResponse } from './exchange.ts';

const ACCEPT = { accept: [MEDIA_TYPES.index, MEDIA_TYPES.manifest].join(', ') };
/** Questions at a time, and manifests that are looked at below one tag. */
const PARALLEL = 4;
const MAXIMUM_ENTRIES = 32;
const MAXIMUM_DIGESTS = 64;

/**
 * The referrers API, the tag that stands for it in registries without, and cosign's tags, for each digest. None of it is
 * needed: whatever a registry answers, and registries answer this with every kind of refusal, ends nothing.
 *
 * @throws nothing but the signal's reason
 */
export async function listReferrers(
  client: RegistryClient,
  digests: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Referrers> {
  const asked = digests.slice(0, MAXIMUM_DIGESTS);
  return withoutRetries(async (running) => {
    const search = new Search(client, running);
    await forEachLimited(asked, PARALLEL, (digest) => search.lookFor(digest), running);
    running.throwIfAborted();
    return {
      found: asked.flatMap((digest) => search.found.get(digest) ?? []),
      complete: search.complete && asked.length === digests.length,
    };
  }, signal);
}

class Search {
  readonly found = new Map<string, string[]>();
  complete = true;
  /** Registries that know the API answer it with a list, an empty one too. */
  #hasApi = true;
  readonly #client: RegistryClient;
  readonly #signal: AbortSignal;

  constructor(client: RegistryClient, signal: AbortSignal) {
    this.#client = client;
    this.#signal = signal;
  }

  async lookFor(digest: string): Promise<void> {
    const tag = digest.replace(':', '-');
    const listed = this.#hasApi ? await this.#fetch(`referrers/${digest}`, [400, 404, 405, 501]) : undefined;
    if (listed !== undefined && listed.status !== 200) this.#hasApi = false;
    const found =
      listed?.status !== 200
        ? await this.#belowTag(tag, digest)
        : entriesOf(listed.bytes).map((entry) => describe(entry));
    for (const name of ['.sig', '.att', '.sbom'].map((suffix) => tag + suffix)) {
      if (await this.#exists(name)) found.push(`${this.#client.name}:${name}`);
    }
    this.found.set(digest, found);
  }

  /** distribution-spec "Referrers Tag Schema". Some registries answer with the image itself: an entry must name it. */
  async #belowTag(tag: string, digest: string): Promise<string[]> {
    const index = await this.#fetch(`manifests/${tag}`, [404]);
    if (index === undefined || index.status !== 200) return [];
    const entries = entriesOf(index.bytes);
    if (entries.length > MAXIMUM_ENTRIES) this.complete = false;
    const found: string[] = [];
    for (const entry of entries.slice(0, MAXIMUM_ENTRIES)) {
      const manifest = await this.#fetch(`manifests/${entry.digest}`, [404]);
      if (manifest?.status === 200 && subjectOf(manifest.bytes) === digest) found.push(describe(entry));
    }
    return found;
  }

  async #exists(tag: string): Promise<boolean> {
    const target = `manifests/${tag}`;
    const answer = await this.#ask(() =>
      this.#client.request({ method: 'HEAD', target, headers: ACCEPT, accept: [404], signal: this.#signal }),
    );
    return answer !== undefined && answer.status !== 404;
  }

  #fetch(
    target: string,
    accept: readonly number[],
  ): Promise<(LocatedResponse & { readonly bytes: Uint8Array }) | undefined> {
    return this.#ask(() =>
      this.#client.fetch(
        { method: 'GET', target, headers: ACCEPT, accept, signal: this.#signal },
        MAXIMUM_MANIFEST_BYTES,
      ),
    );
  }

  async #ask<Answer>(question: () => Promise<Answer>): Promise<Answer | undefined> {
    try {
      return await question();
    } catch {
      this.complete = false;
      return undefined;
    }
  }
}

/** What is no index names nothing. */
function entriesOf(bytes: Uint8Array): readonly Descriptor[] {
  try {
    const index = parseManifest(bytes, MEDIA_TYPES.index, 'referrers');
    return index.kind === 'index' ? index.manifests : [];
  } catch {
    return [];
  }
}

function subjectOf(bytes: Uint8Array): string | undefined {
  return asText(asObject(readObject(bytes)?.get('subject'))?.get('digest'));
}

/** A type has 255 characters at the most (RFC 6838 section 4.2): a longer text is only sent to be shown. */
function describe({ digest, json }: Descriptor): string {
  const type = asText(json.get('artifactType')) ?? '';
  return `${type === '' || type.length > 255 ? 'referrer' : type} ${digest}`;
}
