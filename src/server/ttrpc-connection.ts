// One connection of ttrpc, as agents of Confidential Containers call: requests in, and a reply or a status for each.
// https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md

import type { Socket } from 'node:net';
import { wipe } from '../base/bytes.ts';
import { markCall, withDeadline } from '../base/deadline.ts';
import { asOcicryptError, describeError, describeForCaller, ERROR_STATUS, OcicryptError } from '../base/errors.ts';
import { CALL_STATUS, type CallStatus, FRAME_HEADER } from '../base/grpc.ts';
import { releaseBytes } from '../base/memory.ts';
import type { Peer } from './call.ts';
import type { CloseReason, Connection, ConnectionHolder } from './connection.ts';
import { Credit } from './credit.ts';
import { LEAVE_MILLISECONDS, MAXIMUM_UNSENT_BYTES } from './limits.ts';
import { type CallFailure, MessageReceiver, NO_ROOM } from './message.ts';
import {
  decodeTtrpcHeader,
  decodeTtrpcRequest,
  encodeTtrpcFailure,
  encodeTtrpcReply,
  TTRPC_HEADER,
  type TtrpcHeader,
  type TtrpcRequest,
} from './ttrpc.ts';

/** A frame whose header has come in. */
type Frame = {
  readonly header: TtrpcHeader;
  readonly receiver: MessageReceiver;
  /** Bytes that are still to come. */
  rest: number;
};

/** A call that ends without a reply; `problem` is the whole line, of which the caller may have only a part. */
type Failure = CallFailure & { readonly problem?: string };

/** What is known of a call while it is at work. */
type Called = {
  /** The path of a method that exists, or "unknown". */
  method: string;
  queued: number;
  handled: number;
  /** Its method, which may go on after the deadline; undefined if none was called. */
  work?: Promise<Uint8Array>;
};

/** Of names and metadata beside the message of a method. */
const ENVELOPE_BYTES = 16 * 1024;
/** What calls say of the client: only ocicrypt-rs calls key providers over ttrpc. */
const USER_AGENT = 'ttrpc';

export class TtrpcConnection implements Connection {
  readonly socket: Socket;
  readonly since = performance.now();
  readonly #holder: ConnectionHolder;
  readonly #peer: Peer;
  readonly #credit: Credit;
  readonly #calls = new Set<AbortController>();
  readonly #head = new Uint8Array(TTRPC_HEADER);
  #headed = 0;
  #frame: Frame | undefined;
  /** Why no more frames are read, if none are. */
  #retired: CloseReason | undefined;
  /** When the frame began that is coming in. */
  #frameSince = this.since;
  #lastStream = 0;
  #proved = false;
  #restingSince = this.since;

  constructor(socket: Socket, peer: Peer, holder: ConnectionHolder) {
    this.socket = socket;
    this.#holder = holder;
    this.#peer = peer;
    this.#credit = new Credit(holder.options.limits.streams);
    socket.on('data', (chunk: Uint8Array) => this.#read(chunk));
    socket.once('close', () => this.#closed());
  }

  isBusy(): boolean {
    return this.#calls.size > 0;
  }

  sweep(now: number): void {
    const { idle, request } = this.#holder.options.limits;
    this.#credit.refresh();
    if (this.socket.writableLength > MAXIMUM_UNSENT_BYTES) this.close('unread');
    else if (this.#headed > 0 && now - this.#frameSince > request) this.#retire('slow');
    else if (now - this.#restingSince > idle) this.leave('idle');
  }

  leave(reason: CloseReason): void {
    if (this.isBusy() || this.socket.destroyed || this.socket.writableEnded) return;
    this.#holder.options.closedBecause(reason);
    this.socket.end();
    setTimeout(() => this.socket.destroy(), LEAVE_MILLISECONDS).unref();
  }

  close(reason: CloseReason): void {
    this.#holder.options.closedBecause(reason);
    this.socket.destroy();
    this.#holder.forget(this);
  }

  #read(chunk: Uint8Array): void {
    let rest = chunk;
    while (rest.length > 0 && this.#retired === undefined && !this.socket.destroyed && !this.socket.writableEnded) {
      const frame = this.#frame;
      rest = frame === undefined ? this.#readHeader(rest) : this.#readMessage(frame, rest);
    }
    wipe(chunk);
    releaseBytes(chunk);
  }

  /** Returns what follows the header. What is no request of a new stream ends the connection, and so does one too many. */
  #readHeader(bytes: Uint8Array): Uint8Array {
    if (this.#headed === 0) this.#frameSince = performance.now();
    const part = bytes.subarray(0, TTRPC_HEADER - this.#headed);
    this.#head.set(part, this.#headed);
    this.#headed += part.length;
    const rest = bytes.subarray(part.length);
    if (this.#headed < TTRPC_HEADER) return rest;
    const header = decodeTtrpcHeader(this.#head);
    const isNext = header.isRequest && header.stream % 2 === 1 && header.stream > this.#lastStream;
    // Paid back where the call turns out to be one.
    if (!isNext || !this.#credit.spend()) {
      this.close('nuisance');
      return rest;
    }
    this.#lastStream = header.stream;
    const { budget, maximumMessage } = this.#holder.options;
    const receiver = new MessageReceiver(budget, maximumMessage + ENVELOPE_BYTES, () =>
      this.#fail(frame, NO_ROOM, 'slow'),
    );
    const frame: Frame = { header, receiver, rest: header.length };
    this.#frame = frame;
    // The receiver knows gRPC's header, which says the same.
    const head = new Uint8Array(FRAME_HEADER);
    new DataView(head.buffer).setUint32(1, header.length);
    this.#received(frame, receiver.push(head));
    return rest;
  }

  #readMessage(frame: Frame, bytes: Uint8Array): Uint8Array {
    const part = bytes.subarray(0, frame.rest);
    frame.rest -= part.length;
    this.#received(frame, frame.receiver.push(part));
    return bytes.subarray(part.length);
  }

  /** After each part of a frame: a whole one becomes a call, and one that fails is the last of its connection. */
  #received(frame: Frame, failure: CallFailure | undefined): void {
    const message = failure ?? (frame.rest === 0 ? frame.receiver.finish() : undefined);
    if (message === undefined) return;
    if (!(message instanceof Uint8Array)) {
      this.#fail(frame, message, 'nuisance');
      return;
    }
    this.#frame = undefined;
    this.#headed = 0;
    void this.#work(frame, message);
  }

  #fail(frame: Frame, failure: CallFailure, reason: CloseReason): void {
    this.#conclude(frame, failure, { method: 'unknown', queued: 0, handled: 0 });
    this.#retire(reason);
  }

  /** Drops what is coming in and all that follows, and leaves as soon as the open calls have ended. */
  #retire(reason: CloseReason): void {
    this.#retired = reason;
    this.#frame?.receiver.release();
    this.#frame = undefined;
    this.#headed = 0;
    this.leave(reason);
  }

  async #work(frame: Frame, message: Uint8Array): Promise<void> {
    const controller = new AbortController();
    this.#calls.add(controller);
    const started = performance.now();
    const called: Called = { method: 'unknown', queued: 0, handled: 0 };
    let outcome: Uint8Array | Failure;
    try {
      const request = decodeTtrpcRequest(message);
      if (this.#holder.options.methods.has(request.path)) called.method = request.path;
      outcome = this.#refusal(frame, request) ?? (await this.#handle(request, controller.signal, called));
    } catch (error) {
      const { code } = asOcicryptError(error);
      outcome = {
        status: controller.signal.aborted ? CALL_STATUS.CANCELLED : ERROR_STATUS[code].grpc,
        message: describeForCaller(error),
        problem: describeError(error),
      };
    }
    // A method reads its request until it ends, which may be after the caller has got its answer.
    void Promise.allSettled([called.work]).then(() => frame.receiver.release());
    if (called.work !== undefined) this.#credit.earn();
    called.handled = performance.now() - started - called.queued;
    this.#calls.delete(controller);
    this.#conclude(frame, outcome, called);
    this.#restingSince = performance.now();
    if (this.isBusy() || this.socket.destroyed) return;
    if (this.#retired !== undefined) this.leave(this.#retired);
    this.#holder.rest(this);
  }

  #refusal({ header }: Frame, { path }: TtrpcRequest): Failure | undefined {
    const { draining, limits, methods } = this.#holder.options;
    if (draining()) return failureOf('unavailable', 'the server is shutting down');
    if (this.#calls.size > limits.streams) return failureOf('throttled', 'the connection has too many open calls');
    if (header.isOpen) return { status: CALL_STATUS.UNIMPLEMENTED, message: 'streams are not supported' };
    return methods.has(path) ? undefined : { status: CALL_STATUS.UNIMPLEMENTED, message: 'no such method' };
  }

  #handle({ path, payload, timeout }: TtrpcRequest, ended: AbortSignal, called: Called): Promise<Uint8Array> {
    const { gate, limits, methods } = this.#holder.options;
    const limit = Math.min(timeout ?? limits.call, limits.call);
    // Timers count whole milliseconds, from one on.
    if (limit < 1) throw new OcicryptError('deadline-exceeded', 'the time of the call is over');
    if (!this.#proved) this.#holder.prove(this);
    this.#proved = true;
    markCall(ended, limit, this);
    const started = performance.now();
    const work = async (signal: AbortSignal) => {
      await gate.enter(signal);
      try {
        called.queued = performance.now() - started;
        const method = methods.get(path);
        if (method === undefined) throw new OcicryptError('internal', 'no such method');
        const reply = await method(payload, { peer: this.#peer, signal, userAgent: USER_AGENT });
        if (signal.aborted) wipe(reply);
        return reply;
      } finally {
        gate.leave();
      }
    };
    return withDeadline(limit, ended, 'the call', (signal) => {
      called.work = work(signal);
      return called.work;
    });
  }

  #conclude({ header }: Frame, outcome: Uint8Array | Failure, { method, queued, handled }: Called): void {
    const { failed, report } = this.#holder.options;
    let status: CallStatus = CALL_STATUS.OK;
    if (outcome instanceof Uint8Array) {
      this.#send(encodeTtrpcReply(header.stream, outcome));
      wipe(outcome);
    } else {
      ({ status } = outcome);
      const problem = outcome.problem ?? outcome.message;
      failed({ method, status, caller: this.#peer.caller, problem });
      this.#send(encodeTtrpcFailure(header.stream, status, outcome.message));
    }
    report({ method, queued, handled, status, received: 0 });
  }

  #send(frame: Uint8Array): void {
    if (!this.socket.writable) {
      wipe(frame);
      return;
    }
    this.socket.write(frame, () => wipe(frame));
    if (this.socket.writableLength > MAXIMUM_UNSENT_BYTES) this.close('unread');
  }

  #closed(): void {
    this.#frame?.receiver.release();
    for (const call of this.#calls) call.abort(new OcicryptError('deadline-exceeded', 'ended by the caller'));
    this.#holder.forget(this);
  }
}

function failureOf(code: 'throttled' | 'unavailable', text: string): Failure {
  const error = new OcicryptError(code, text, { hint: 'try again' });
  return { status: ERROR_STATUS[code].grpc, message: describeForCaller(error), problem: describeError(error) };
}
