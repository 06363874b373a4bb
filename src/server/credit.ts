// What one connection may make the server do without a useful call, whatever protocol it speaks.

/** So many frames, streams, pings and settings may come without a useful call between them. */
const MAXIMUM_CREDIT = 200;
/** What a new connection may cause, beside twice the calls it may have open: a stream of HTTP/2 costs Node 6 KB. */
const FIRST_CREDIT = 8;
const CREDIT_FOR_CALL = 5;
const CREDIT_FOR_SWEEP = 1;

export class Credit {
  #left: number;

  /** @param streams calls that the connection may have open */
  constructor(streams: number) {
    this.#left = FIRST_CREDIT + 2 * streams;
  }

  /** Whether there was any left. */
  spend(): boolean {
    return --this.#left >= 0;
  }

  /** A useful call has ended. */
  earn(): void {
    this.#add(CREDIT_FOR_CALL);
  }

  /** A sweep has come by. */
  refresh(): void {
    this.#add(CREDIT_FOR_SWEEP);
  }

  #add(amount: number): void {
    this.#left = Math.min(MAXIMUM_CREDIT, this.#left + amount);
  }
}
