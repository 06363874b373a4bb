// The connections of a server for HTTP/1, each for a time, by a clock of ours: the limits of the runtimes' own servers are
// looked at every half minute, or never.

import type { Socket } from 'node:net';

/** What is known of a connection. */
type Slot = { timer: ReturnType<typeof setTimeout> | undefined; isBusy: boolean };

/**
 * A number of places for connections. If all are taken, the oldest that is not busy gives way to a new one, so that those who
 * drip keep out nobody.
 */
export class Slots {
  readonly #places: number;
  /** Insertion order is age. */
  readonly #slots = new Map<Socket, Slot>();
  readonly #outer = new WeakMap<Socket, Socket>();
  #emptied: (() => void) | undefined;

  /** @param places how many connections may be open at the same time */
  constructor(places: number) {
    this.#places = places;
  }

  get size(): number {
    return this.#slots.size;
  }

  /** Takes a connection for so many milliseconds; one for which there is no room is ended. */
  take(socket: Socket, milliseconds: number): void {
    if (this.#slots.size >= this.#places) {
      const oldest = [...this.#slots].find(([, { isBusy }]) => !isBusy);
      this.free(oldest === undefined ? socket : oldest[0]);
      if (oldest === undefined) return;
    }
    this.#slots.set(socket, { timer: undefined, isBusy: false });
    socket.once('close', () => this.free(socket));
    this.limit(socket, milliseconds);
  }

  /** What is inside a connection, of which the runtimes make a socket of its own, has the place of that. */
  enter(inner: Socket, outer: Socket): void {
    this.#outer.set(inner, outer);
  }

  /** Ends the connection after so many milliseconds from now. @param isBusy whether it keeps its place until then */
  limit(inner: Socket, milliseconds: number, isBusy = false): void {
    const socket = this.#placeOf(inner);
    const slot = this.#slots.get(socket);
    if (slot === undefined) return;
    clearTimeout(slot.timer);
    slot.isBusy = isBusy;
    slot.timer = setTimeout(() => this.free(socket), milliseconds);
  }

  /** Ends a connection. */
  free(inner: Socket): void {
    const socket = this.#placeOf(inner);
    clearTimeout(this.#slots.get(socket)?.timer);
    this.#slots.delete(socket);
    socket.destroy();
    if (this.#slots.size === 0) this.#emptied?.();
  }

  /** Ends what is not busy; resolves when no connection is left. */
  drain(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#emptied = resolve;
    for (const [socket, { isBusy }] of [...this.#slots]) if (!isBusy) this.free(socket);
    if (this.#slots.size === 0) resolve();
    return promise;
  }

  /** Ends all. */
  destroy(): void {
    for (const socket of [...this.#slots.keys()]) this.free(socket);
  }

  #placeOf(socket: Socket): Socket {
    return this.#outer.get(socket) ?? socket;
  }
}
