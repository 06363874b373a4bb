// Keeps keys open between calls, and closes those that make room for others.

import { outdatedNode } from '../base/errors.ts';
import { formatEntry, type KeyUri } from '../base/key-uri.ts';
import { decorate, type Kek } from './kek.ts';
import { type BackendSettings, openKek } from './open.ts';

/** Opens keys and keeps them open: a second request for one key finds its credentials and connections ready. */
export interface KekStore {
  /** @throws OcicryptError `bad-input` if no backend has such keys; `configuration` and others by backend */
  open(uri: KeyUri): Promise<Kek>;
  /** Closes every key that was opened, once no call uses it. */
  close(): Promise<void>;
}

/** More keys than any operator lists; a prefix lets packets name as many as they like. */
const MAXIMUM_OPEN = 256;

/**
 * Makes a store; it loads and opens nothing until it is asked.
 *
 * @throws OcicryptError `configuration` on a Node that is too old
 * @example
 * const keks = createKekStore({ gcpkms: { environment: process.env } });
 */
export function createKekStore(settings: BackendSettings): KekStore {
  const outdated = outdatedNode(process.versions);
  if (outdated !== undefined) throw outdated;
  /** Those that were asked for longest ago come first. */
  const keks = new Map<string, Promise<Kek>>();

  function drop(name: string, held: Promise<Kek>): void {
    keks.delete(name);
    // One that could not be opened needs no closing.
    held.then(
      (kek) => kek.close?.(),
      () => {},
    );
  }

  return {
    open(uri) {
      const name = formatEntry(uri);
      let held = keks.get(name);
      keks.delete(name);
      held ??= openKek(uri, settings).then((kek) => decorate(kek, new Use(kek, () => openKek(uri, settings)).calls));
      keks.set(name, held);
      const opening = held;
      held.catch(() => {
        if (keks.get(name) === opening) keks.delete(name);
      });
      const [oldest] = keks;
      if (keks.size > MAXIMUM_OPEN && oldest !== undefined) drop(...oldest);
      return held;
    },
    async close() {
      const all = [...keks];
      for (const one of all) drop(...one);
      await Promise.allSettled(all.map(([, held]) => held));
    },
  };
}

/**
 * The use of a key, whose closing waits for the calls in progress. Who was given it before it was closed may still call
 * it: it is then opened anew, for as long as that takes.
 */
class Use {
  readonly calls: Pick<Kek, 'wrap' | 'unwrap' | 'close'> = {
    wrap: (...call) => this.#use((kek) => kek.wrap(...call)),
    unwrap: (...call) => this.#use((kek) => kek.unwrap(...call)),
    close: () => this.#close(),
  };
  readonly #reopen: () => Promise<Kek>;
  #kek: Promise<Kek> | undefined;
  #calls = 0;
  #isClosed = false;

  constructor(kek: Kek, reopen: () => Promise<Kek>) {
    this.#kek = Promise.resolve(kek);
    this.#reopen = reopen;
  }

  #close(): void {
    this.#isClosed = true;
    if (this.#calls > 0) return;
    this.#kek?.then(
      (kek) => kek.close?.(),
      () => {},
    );
    this.#kek = undefined;
  }

  async #use<Result>(call: (kek: Kek) => Promise<Result>): Promise<Result> {
    this.#calls++;
    try {
      this.#kek ??= this.#reopen();
      return await call(await this.#kek);
    } finally {
      this.#calls--;
      if (this.#isClosed) this.#close();
    }
  }
}
