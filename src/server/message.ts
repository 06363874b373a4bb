// Collects a request's bytes: one length-prefixed message, counted and capped before it is held.

import { wipe } from '../base/bytes.ts';
import { ERROR_STATUS } from '../base/errors.ts';
import { CALL_STATUS, type CallStatus, FRAME_HEADER } from '../base/grpc.ts';
import { type Holder, PAGE_BYTES, type PageBudget } from './limits.ts';

/** Why a call ends without a reply, in gRPC's own terms. */
export type CallFailure = { readonly status: CallStatus; readonly message: string };

/** Receives exactly one message of at most `limit` bytes. */
export class MessageReceiver implements Holder {
  readonly pages: Uint8Array[] = [];
  readonly #budget: PageBudget;
  readonly #limit: number;
  readonly #onEvicted: () => void;
  readonly #header = Buffer.alloc(FRAME_HEADER);
  #whole: Buffer | undefined;
  #length = 0;
  #received = 0;

  /**
   * @param limit of the message, in bytes
   * @param onEvicted called when the budget takes the bytes away
   */
  constructor(budget: PageBudget, limit: number, onEvicted: () => void) {
    this.#budget = budget;
    this.#limit = limit;
    this.#onEvicted = onEvicted;
  }

  /** Takes the next bytes of the stream; returns why the call fails where it does. */
  push(chunk: Uint8Array): CallFailure | undefined {
    let rest = chunk;
    if (this.#received < FRAME_HEADER) {
      const part = rest.subarray(0, FRAME_HEADER - this.#received);
      this.#header.set(part, this.#received);
      this.#received += part.length;
      rest = rest.subarray(part.length);
      if (this.#received < FRAME_HEADER) return undefined;
      const failure = this.#readHeader();
      if (failure !== undefined) return failure;
    }
    let offset = this.#received - FRAME_HEADER;
    if (offset + rest.length > this.#length) return SEVERAL_MESSAGES;
    this.#received += rest.length;
    while (rest.length > 0) {
      const start = offset % PAGE_BYTES;
      const page = start === 0 ? this.#budget.take(this) : this.pages.at(-1);
      if (page === undefined) return NO_ROOM;
      const part = rest.subarray(0, PAGE_BYTES - start);
      page.set(part, start);
      offset += part.length;
      rest = rest.subarray(part.length);
    }
    return undefined;
  }

  /**
   * The whole message, in a buffer of its own that {@link release} wipes, or why there is none. Its pages stay counted
   * until then, and are taken away no more.
   */
  finish(): Uint8Array | CallFailure {
    if (this.#received === 0) return NO_MESSAGE;
    if (this.#received < FRAME_HEADER + this.#length) return HALF_MESSAGE;
    this.#budget.settle(this);
    this.#whole = Buffer.alloc(this.#length);
    for (const [index, page] of this.pages.entries()) {
      const start = index * PAGE_BYTES;
      this.#whole.set(page.subarray(0, this.#length - start), start);
    }
    return this.#whole;
  }

  release(): void {
    wipe(this.#whole);
    this.#whole = undefined;
    this.#budget.release(this);
  }

  evict(): void {
    this.#onEvicted();
  }

  #readHeader(): CallFailure | undefined {
    const [flag] = this.#header;
    if (flag === 1) return COMPRESSED;
    if (flag !== 0) return { status: CALL_STATUS.INTERNAL, message: 'the frame has an unknown flag' };
    this.#length = this.#header.readUInt32BE(1);
    // The same code and text as when the command reads too much.
    if (this.#length > this.#limit) {
      return {
        status: ERROR_STATUS['bad-input'].grpc,
        message: `bad-input: the request has more than ${this.#limit} bytes`,
      };
    }
    return undefined;
  }
}

// Statuses as https://grpc.github.io/grpc/core/md_doc_statuscodes.html has them for the library's own faults.
const COMPRESSED: CallFailure = { status: CALL_STATUS.UNIMPLEMENTED, message: 'compressed messages are not supported' };
const NO_MESSAGE: CallFailure = { status: CALL_STATUS.UNIMPLEMENTED, message: 'the call has no message' };
const SEVERAL_MESSAGES: CallFailure = { status: CALL_STATUS.UNIMPLEMENTED, message: 'the call has several messages' };
const HALF_MESSAGE: CallFailure = { status: CALL_STATUS.INTERNAL, message: 'the message ends too early' };
/** Also for a request whose bytes were taken away. */
export const NO_ROOM: CallFailure = {
  status: ERROR_STATUS.throttled.grpc,
  message: 'throttled: the server holds too many requests',
};
