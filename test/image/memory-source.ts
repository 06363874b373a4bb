// An image in memory for tests, which counts what is read of it.
import { OcicryptError } from '../../src/base/errors.ts';
import type { Descriptor } from '../../src/image/model/descriptor.ts';
import { checkContent, createStoredManifest, type ImageSource } from '../../src/image/transports/store.ts';
import { digestOf } from './harness.ts';

/** What a descriptor says of content, without annotations. */
export type Named = { readonly mediaType: string; readonly digest: string; readonly size: number };

/** Blobs by their digests, and the name that stands for one of them. */
export class MemorySource implements ImageSource {
  readonly name = 'memory';
  readonly transfers = 1;
  /** How often each was read. */
  readonly reads = new Map<string, number>();
  readonly #blobs = new Map<string, Uint8Array>();
  #root: Named | undefined;

  /** Stores bytes, or a value as JSON, and says how it is named. */
  put(content: unknown, mediaType: string): Named {
    const bytes = content instanceof Uint8Array ? content : Buffer.from(JSON.stringify(content));
    const digest = digestOf(bytes);
    this.#blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  }

  /** Stores what has one digest under another one, too. */
  alias(digest: string, lie: string): void {
    this.#blobs.set(lie, this.#blobs.get(digest) ?? new Uint8Array(0));
  }

  /** Lets the name stand for content. */
  putRoot(content: unknown, mediaType: string): this {
    this.#root = this.put(content, mediaType);
    return this;
  }

  async readRoot() {
    const { digest, mediaType } = this.#root ?? { digest: '', mediaType: '' };
    return createStoredManifest(this.#read(digest), mediaType);
  }

  async readManifest(descriptor: Descriptor) {
    const bytes = this.#read(descriptor.digest);
    checkContent(bytes, descriptor, 'manifest');
    return createStoredManifest(bytes, descriptor.mediaType);
  }

  async openBlob({ digest }: { readonly digest: string }) {
    let rest = this.#read(digest);
    return {
      read: async (into: Uint8Array) => {
        const part = rest.subarray(0, into.length);
        into.set(part);
        rest = rest.subarray(part.length);
        return part.length;
      },
      close: async () => undefined,
    };
  }

  async close() {}

  #read(digest: string): Uint8Array {
    this.reads.set(digest, (this.reads.get(digest) ?? 0) + 1);
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) throw new OcicryptError('not-found', `no ${digest}`);
    return bytes;
  }
}
