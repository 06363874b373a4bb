// Bounds what the manifests of images take of memory that are looked at side by side: one image may have 16 MiB of them.

import { OcicryptError } from '../base/errors.ts';
import type { Client } from '../base/fair-queue.ts';
import { Places } from './places.ts';

const MIB = 1024 * 1024;
/** Two of the largest images of a namespace, or a hundred of those that there are. */
const BYTES = { namespace: 32 * MIB, all: 128 * MIB } as const;

/** Bytes that are held, for each namespace and for all. */
export class HeldBytes {
  readonly #namespaces = new Places(BYTES.namespace);
  readonly #all = new Places(BYTES.all);

  /**
   * Runs `work`, which says before it reads something how much that is. All of it counts until the end.
   *
   * @throws what the work throws; to the work, OcicryptError `throttled` for what is too much
   */
  async during<Result>(client: Client, work: (hold: (bytes: number) => void) => Promise<Result>): Promise<Result> {
    const held: (() => void)[] = [];
    const take = (places: Places, owner: Client, bytes: number) => {
      const leave = places.take(owner, bytes);
      if (leave === undefined) throw tooMuch();
      held.push(leave);
    };
    try {
      return await work((bytes) => {
        take(this.#namespaces, client, bytes);
        take(this.#all, 'all', bytes);
      });
    } finally {
      for (const leave of held) leave();
    }
  }
}

function tooMuch(): OcicryptError {
  return new OcicryptError('throttled', 'images with too many bytes of manifests are looked at already', {
    hint: 'try again later',
  });
}
