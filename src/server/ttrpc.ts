// ttrpc's encoding on the wire: headers of frames, requests and responses.
// https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md

import { concatBytes, wipe } from '../base/bytes.ts';
import { type CallStatus, decodeBytesField, decodeNumberField, encodeBytesField } from '../base/grpc.ts';

/** Four bytes of length and four of a stream's number, big end first, a type and flags. */
export const TTRPC_HEADER = 10;

export type TtrpcHeader = {
  readonly length: number;
  readonly stream: number;
  readonly isRequest: boolean;
  /** Whether more than this one message is to come. */
  readonly isOpen: boolean;
};

const [REQUEST, RESPONSE] = [1, 2];
const REMOTE_OPEN = 2;

export function decodeTtrpcHeader(bytes: Uint8Array): TtrpcHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, TTRPC_HEADER);
  return {
    length: view.getUint32(0),
    stream: view.getUint32(4),
    isRequest: view.getUint8(8) === REQUEST,
    isOpen: (view.getUint8(9) & REMOTE_OPEN) !== 0,
  };
}

export type TtrpcRequest = {
  /** As gRPC writes it: `/package.Service/Method`. */
  readonly path: string;
  /** A view of the request. */
  readonly payload: Uint8Array;
  /** Milliseconds, 0 or less if they are over; undefined if the client waits for as long as it takes. */
  readonly timeout: number | undefined;
};

/** @throws OcicryptError `bad-input` */
export function decodeTtrpcRequest(message: Uint8Array): TtrpcRequest {
  const text = (field: number) => new TextDecoder().decode(decodeBytesField(message, field));
  const nanoseconds = decodeNumberField(message, 4);
  const signed = nanoseconds >= 2 ** 63 ? nanoseconds - 2 ** 64 : nanoseconds;
  return {
    path: `/${text(1)}/${text(2)}`,
    payload: decodeBytesField(message, 3),
    timeout: nanoseconds === 0 ? undefined : signed / 1e6,
  };
}

/** The whole frame of a reply. */
export function encodeTtrpcReply(stream: number, reply: Uint8Array): Uint8Array<ArrayBuffer> {
  const message = encodeBytesField(reply, 2);
  try {
    return encodeResponse(stream, message);
  } finally {
    wipe(message);
  }
}

/** The whole frame that says why there is no reply. */
export function encodeTtrpcFailure(stream: number, status: CallStatus, text: string): Uint8Array<ArrayBuffer> {
  const code = new Uint8Array([CODE, status]);
  return encodeResponse(
    stream,
    encodeBytesField(concatBytes(code, encodeBytesField(new TextEncoder().encode(text), 2))),
  );
}

/** Field 1 of a google.rpc.Status, a number. */
const CODE = 0x08;

function encodeResponse(stream: number, message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(TTRPC_HEADER + message.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, message.length);
  view.setUint32(4, stream);
  view.setUint8(8, RESPONSE);
  frame.set(message, TTRPC_HEADER);
  return frame;
}
