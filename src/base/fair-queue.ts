// A queue in which clients take turns: a client that asks for much waits behind itself, and the others do not.

/** What a client is known by: one value for all of its calls. */
export type Client = unknown;

export class FairQueue<Item> {
  /** The first client's turn is next; what one client has waiting is served in its order. */
  readonly #waiting = new Map<Client, Set<Item>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(client: Client, item: Item): void {
    const items = this.#waiting.get(client) ?? new Set();
    this.#waiting.set(client, items.add(item));
    this.#size++;
  }

  /** Takes an item out that waits no longer. */
  remove(client: Client, item: Item): void {
    const items = this.#waiting.get(client);
    if (items?.delete(item) !== true) return;
    this.#size--;
    if (items.size === 0) this.#waiting.delete(client);
  }

  /** Takes the next item out, and passes the turn on. */
  next(): Item | undefined {
    for (const [client, items] of this.#waiting) {
      for (const item of items) {
        this.remove(client, item);
        this.#waiting.delete(client);
        if (items.size > 0) this.#waiting.set(client, items);
        return item;
      }
    }
    return undefined;
  }

  /** How many are served before an item that `client` adds now, unless others come who have waited less. */
  ahead(client: Client): number {
    const own = this.#waiting.get(client)?.size ?? 0;
    let ahead = own;
    for (const [other, items] of this.#waiting) if (other !== client) ahead += Math.min(items.size, own + 1);
    return ahead;
  }

  /**
   * Makes room for `client`: takes out the last item of the client that has most waiting, if it would still have no less
   * than `client` then.
   */
  giveWay(client: Client): Item | undefined {
    let [most, items] = [client, this.#waiting.get(client) ?? new Set<Item>()];
    const own = items.size;
    for (const [other, waiting] of this.#waiting) if (waiting.size > items.size) [most, items] = [other, waiting];
    const last = [...items].at(-1);
    if (last === undefined || items.size <= own + 1) return undefined;
    this.remove(most, last);
    return last;
  }
}
