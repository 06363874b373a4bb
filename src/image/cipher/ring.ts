// The ring of chunks that threads share: who may touch which slot, and how a thread waits for another.

/** Bytes of one slot. With 1 MiB the cost of waking threads disappears. */
export const SLOT_BYTES = 1024 * 1024;

/** Where the counters are in the control block: one for each party, then the length of each slot. */
const COUNTERS = 8;
const STOPPED = -1;

/** What one thread sends another so that both see the same ring. */
export type SharedRing = { readonly slots: SharedArrayBuffer; readonly control: SharedArrayBuffer };

/** Memory for a ring of so many slots. */
export function createSharedRing(slots: number): SharedRing {
  return {
    slots: new SharedArrayBuffer(SLOT_BYTES * slots),
    control: new SharedArrayBuffer((COUNTERS + slots) * Int32Array.BYTES_PER_ELEMENT),
  };
}

/**
 * Chunk number n lies in slot n modulo the number of slots and passes through the parties in order: party 0 fills it, parties 1, 2, …
 * work on it in place, the last empties it. Each party counts the chunks that it is done with; it may touch chunk n
 * when the party before has counted beyond n, and party 0 when the last has emptied
 * the chunk that was in the slot before.
 * A chunk of length 0 is the end. A party that stops early says so, and all after it stop when they get there.
 */
export class Ring {
  readonly #slots: Uint8Array;
  readonly #count: number;
  readonly #control: Int32Array;

  constructor(shared: SharedRing) {
    this.#slots = new Uint8Array(shared.slots);
    this.#count = shared.slots.byteLength / SLOT_BYTES;
    this.#control = new Int32Array(shared.control);
  }

  /** Makes the ring ready for the next layer. No layer may be using it still. */
  reset(): void {
    this.#control.fill(0);
  }

  /** The whole slot of a chunk. */
  slot(chunk: number): Uint8Array {
    const start = (chunk % this.#count) * SLOT_BYTES;
    return this.#slots.subarray(start, start + SLOT_BYTES);
  }

  /** The bytes of a chunk that has been filled. */
  chunk(chunk: number): Uint8Array {
    return this.slot(chunk).subarray(0, Atomics.load(this.#control, this.#lengthAt(chunk)));
  }

  /** Says how many bytes of the chunk's slot are used, before {@link pass}. */
  setLength(chunk: number, length: number): void {
    Atomics.store(this.#control, this.#lengthAt(chunk), length);
  }

  /** Says that `party` is done with `chunk` and all before it. */
  pass(party: number, chunk: number): void {
    this.#store(party, chunk + 1);
  }

  /** Says that `party` will pass no further chunk. */
  stop(party: number): void {
    this.#store(party, STOPPED);
  }

  /** Says so of every party: the layer is given up. */
  stopAll(): void {
    for (let party = 0; party < COUNTERS; party++) this.stop(party);
  }

  /** Blocks the thread until `party` has passed `chunk`; false when it never will. Not for a thread with an event loop. */
  waitSync(party: number, chunk: number): boolean {
    for (;;) {
      const passed = Atomics.load(this.#control, party);
      if (passed === STOPPED) return false;
      if (passed > chunk) return true;
      Atomics.wait(this.#control, party, passed);
    }
  }

  /** Resolves when `party` has passed `chunk` (true) or never will (false). */
  async wait(party: number, chunk: number): Promise<boolean> {
    for (;;) {
      const passed = Atomics.load(this.#control, party);
      if (passed === STOPPED) return false;
      if (passed > chunk) return true;
      await Atomics.waitAsync(this.#control, party, passed).value;
    }
  }

  /** Resolves when the slot that `chunk` needs has been emptied by `party`. */
  waitEmpty(party: number, chunk: number): Promise<boolean> {
    return this.wait(party, chunk - this.#count);
  }

  #lengthAt(chunk: number): number {
    return COUNTERS + (chunk % this.#count);
  }

  #store(party: number, value: number): void {
    Atomics.store(this.#control, party, value);
    Atomics.notify(this.#control, party);
  }
}
