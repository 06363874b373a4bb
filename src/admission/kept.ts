// Keeps a bounded number of values, each for a time.

/** Values by name. Those whose time is over go when another is kept; when there are too many, the oldest goes. */
export class Kept<Value> {
  readonly #most: number;
  readonly #now: () => number;
  readonly #values = new Map<string, { readonly value: Value; readonly until: number }>();

  /**
   * @param most how many are kept
   * @param now a clock in milliseconds
   */
  constructor(most: number, now: () => number = () => performance.now()) {
    this.#most = most;
    this.#now = now;
  }

  get size(): number {
    return this.#values.size;
  }

  get(name: string): Value | undefined {
    const entry = this.#values.get(name);
    if (entry === undefined || entry.until > this.#now()) return entry?.value;
    this.#values.delete(name);
    return undefined;
  }

  set(name: string, value: Value, milliseconds: number): void {
    this.#values.delete(name);
    for (const [other, { until }] of this.#values) if (until <= this.#now()) this.#values.delete(other);
    const [oldest] = this.#values.keys();
    if (oldest !== undefined && this.#values.size >= this.#most) this.#values.delete(oldest);
    this.#values.set(name, { value, until: this.#now() + milliseconds });
  }
}
