// Bounds what images take of memory that are looked at side by side: if all take too much, the namespace with the most gives way.

import { AsyncLocalStorage } from 'node:async_hooks';
import { eitherSignal } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import type { Client } from '../base/fair-queue.ts';
import type { HttpStreams, StreamResponse } from '../base/http/stream.ts';

/** Several times what the largest image takes, and a quarter of what the webhook's container has. */
const MAXIMUM_BYTES = 128 * 1024 * 1024;

type Image = { readonly client: Client; readonly controller: AbortController; bytes: number };

/** Bytes that are held, by the image for which they are. */
export class HeldMemory {
  readonly #maximum: number;
  readonly #images = new Set<Image>();
  readonly #current = new AsyncLocalStorage<Image>();
  #bytes = 0;

  constructor(maximum = MAXIMUM_BYTES) {
    this.#maximum = maximum;
  }

  /**
   * Looks at an image. All that is held meanwhile counts until the end.
   *
   * @throws what the work throws; OcicryptError `throttled`, by the signal too, if the image has given way
   */
  async during<Result>(
    client: Client,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const image: Image = { client, controller: new AbortController(), bytes: 0 };
    this.#images.add(image);
    try {
      return await this.#current.run(image, () => work(eitherSignal(signal, image.controller.signal)));
    } finally {
      this.#forget(image);
    }
  }

  /** Counts bytes for the image that the caller is looking at. @throws OcicryptError `throttled` if it has given way */
  hold(bytes: number): void {
    const image = this.#current.getStore();
    if (image !== undefined) this.#add(image, bytes);
  }

  /** The same connections; what comes of an answer counts as it comes, whatever was announced. */
  counting(streams: HttpStreams): HttpStreams {
    return {
      open: async (request) => {
        const image = this.#current.getStore();
        const exchange = await streams.open(request);
        if (image === undefined) return exchange;
        return {
          write: (bytes) => exchange.write(bytes),
          answer: async () => this.#counted(await exchange.answer(), image),
          discard: () => exchange.discard(),
        };
      },
      close: () => streams.close(),
    };
  }

  #counted(response: StreamResponse, image: Image): StreamResponse {
    const add = (bytes: number) => this.#add(image, bytes);
    async function* count(): AsyncGenerator<Uint8Array> {
      for await (const chunk of response.body) {
        add(chunk.length);
        yield chunk;
      }
    }
    return { ...response, body: count() };
  }

  #add(image: Image, bytes: number): void {
    image.controller.signal.throwIfAborted();
    if (!this.#images.has(image)) return;
    image.bytes += bytes;
    this.#bytes += bytes;
    while (this.#bytes > this.#maximum) this.#giveWay();
    image.controller.signal.throwIfAborted();
  }

  /** The largest image of the namespace that has the most: who has little loses nothing to who has much. */
  #giveWay(): void {
    const held = new Map<Client, number>();
    for (const { client, bytes } of this.#images) held.set(client, (held.get(client) ?? 0) + bytes);
    const [most] = [...held].toSorted(([, a], [, b]) => b - a)[0] ?? [];
    const [largest] = [...this.#images].filter(({ client }) => client === most).toSorted((a, b) => b.bytes - a.bytes);
    if (largest === undefined) return;
    this.#forget(largest);
    largest.controller.abort(tooMuch());
  }

  #forget(image: Image): void {
    if (this.#images.delete(image)) this.#bytes -= image.bytes;
  }
}

function tooMuch(): OcicryptError {
  return new OcicryptError('throttled', 'images that are looked at already take too much memory', {
    hint: 'try again later',
  });
}
