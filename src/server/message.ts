// Collects a request's bytes: one length-prefixed message, counted and capped before it is held.

import { wipe } from '../base/bytes.ts';
import { ERROR_STATUS } from '../base/errors.ts';
import { CALL_STATUS, type CallStatus, FRAME_HEADER } from '../base/grpc.ts';
import type { ByteBudget, Holder } from './limits.ts';

/** Why a call ends without a reply, in gRPC's own terms. */
export type CallFailure = { readonly status: CallStatus; readonly message: string };

/** Receives exactly one message of at most `limit` bytes. */
export class MessageReceiver implements Holder {
  readonly #budget: ByteBudget;
  readonly #limit: number;
  readonly #onEvicted: () => void;
  readonly #header = new Uint8Array(FRAME_HEADER);
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #length = 0;
  #received = 0;

  /**
   * @param limit of the message, in bytes
   * @param onEvicted called when the budget takes the bytes away
   */
  constructor(budget: ByteBudget, limit: number, onEvicted: () => void) {
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
    if (rest.length === 0) return undefined;
    const offset = this.#received - FRAME_HEADER;
    if (offset + rest.length > this.#length) return SEVERAL_MESSAGES;
    const buffer = this.#reserve(offset + rest.length);
    if (buffer === undefined) return NO_ROOM;
    buffer.set(rest, offset);
    this.#received += rest.length;
    return undefined;
  }

  /** The whole message, which the caller wipes, or why there is none. The bytes stay counted until {@link release}. */
  finish(): Uint8Array | CallFailure {
    if (this.#received === 0) return NO_MESSAGE;
    if (this.#received < FRAME_HEADER + this.#length) return HALF_MESSAGE;
    return this.#buffer?.subarray(0, this.#length) ?? new Uint8Array();
  }

  release(): void {
    wipe(this.#buffer);
    this.#buffer = undefined;
    this.#budget.release(this);
  }

  evict(): void {
    this.#onEvicted();
  }

  #readHeader(): CallFailure | undefined {
    const [flag] = this.#header;
    if (flag === 1) return COMPRESSED;
    if (flag !== 0) return { status: CALL_STATUS.INTERNAL, message: 'the frame has an unknown flag' };
    this.#length = new DataView(this.#header.buffer).getUint32(1);
    // The same code and text as when the command reads too much.
    if (this.#length > this.#limit) {
      return {
        status: ERROR_STATUS['bad-input'].grpc,
        message: `bad-input: the request has more than ${this.#limit} bytes`,
      };
    }
    return undefined;
  }

  /** Room for what has come, doubled up to the length that the frame announced: a lie costs its author bytes. */
  #reserve(needed: number): Uint8Array | undefined {
    const old = this.#buffer;
    if (old !== undefined && old.length >= needed) return old;
    let capacity = old?.length ?? needed;
    while (capacity < needed) capacity *= 2;
    capacity = Math.min(capacity, this.#length);
    if (!this.#budget.take(this, capacity - (old?.length ?? 0))) return undefined;
    const buffer = new Uint8Array(capacity);
    if (old !== undefined) {
      buffer.set(old);
      wipe(old);
    }
    this.#buffer = buffer;
    return buffer;
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
  message: 'throttled: the server holds too many unfinished requests',
};
