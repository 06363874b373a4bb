// gRPC's encoding on the wire: frames, the one `bytes` field, time-outs and status messages.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

import { GRPC_STATUS, OcicryptError } from './errors.ts';

/** Every status in use: those of our errors, and those that calls have by themselves. */
export const CALL_STATUS = { ...GRPC_STATUS, OK: 0, CANCELLED: 1, UNIMPLEMENTED: 12 } as const;
export type CallStatus = (typeof CALL_STATUS)[keyof typeof CALL_STATUS];

/** A frame begins with the compressed flag and four bytes of length, big end first. */
export const FRAME_HEADER = 5;

/** The media type of requests and replies. */
export const CONTENT_TYPE = 'application/grpc';

/** Of the standard health service. */
export const HEALTH_METHOD = '/grpc.health.v1.Health/Check';

/** Its reply, a HealthCheckResponse: field 1, a varint, which is 1 for what serves and 2 for what does not. */
export function encodeHealth(isServing: boolean): Uint8Array<ArrayBuffer> {
  return new Uint8Array([0x08, isServing ? 1 : 2]);
}

/** Whether such a reply says that what was asked for serves. */
export function decodeHealth(reply: Uint8Array): boolean {
  return reply[0] === 0x08 && reply[1] === 1;
}

/** `message` as one uncompressed frame. */
export function encodeFrame(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = Buffer.alloc(FRAME_HEADER + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, FRAME_HEADER);
  return frame;
}

/** The bytes of the longest protobuf message whose one field holds `bytes` bytes. */
export function messageLimit(bytes: number): number {
  // A tag and at most five bytes of length for the field.
  return 6 + bytes;
}

const BYTES_FIELD_1 = 0x0a;

/** A protobuf message whose field 1 is `value`; an empty value is left out, as proto3 does. */
export function encodeBytesField(value: Uint8Array): Uint8Array<ArrayBuffer> {
  if (value.length === 0) return new Uint8Array();
  const head = [BYTES_FIELD_1];
  for (let rest = value.length; ; rest >>>= 7) {
    head.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest);
    if (rest <= 0x7f) break;
  }
  const message = new Uint8Array(head.length + value.length);
  message.set(head);
  message.set(value, head.length);
  return message;
}

/**
 * Field 1 of a protobuf message, or another one, as a view of it: the last one if there are several, empty if
 * there is none. Other fields are skipped, groups are refused.
 *
 * @throws OcicryptError `bad-input`
 */
export function decodeBytesField(message: Uint8Array, wanted = 1): Uint8Array {
  const reader = new Reader(message);
  let value = message.subarray(0, 0);
  while (!reader.done()) {
    const tag = reader.varint();
    const field = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (field === 0 || field > MAXIMUM_FIELD) throw malformed();
    if (wireType === 2) {
      const bytes = reader.take(reader.varint());
      if (field === wanted) value = bytes;
    } else if (field === wanted) throw malformed();
    else if (wireType === 0) reader.varint();
    else if (wireType === 1) reader.take(8);
    else if (wireType === 5) reader.take(4);
    else throw malformed();
  }
  return value;
}

/**
 * The milliseconds of a `grpc-timeout` header ("10S", "200m"), or undefined if it is malformed.
 * A minimum of 1 ms is not given: "0n" is a call that has ended already.
 */
export function parseTimeout(text: string): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(text);
  const unit = UNIT_MILLISECONDS.get(match?.[2] ?? '');
  return unit === undefined ? undefined : Number(match?.[1]) * unit;
}

/** `milliseconds` as a `grpc-timeout` header. */
export function formatTimeout(milliseconds: number): string {
  return `${Math.max(1, Math.min(99_999_999, Math.ceil(milliseconds)))}m`;
}

/** A status message as a header value: everything but printable ASCII, and `%` itself, percent-encoded as UTF-8. */
export function encodeStatusMessage(text: string): string {
  return text.replace(/[^ -$&-~]+/gu, (part) =>
    [...new TextEncoder().encode(part)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}

/** The text of a `grpc-message` header; what is not percent-encoded UTF-8 stays as it is. */
export function decodeStatusMessage(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

const UNIT_MILLISECONDS: ReadonlyMap<string, number> = new Map([
  ['H', 3_600_000],
  ['M', 60_000],
  ['S', 1000],
  ['m', 1],
  ['u', 1e-3],
  ['n', 1e-6],
]);

/** https://protobuf.dev/programming-guides/proto3/#assigning */
const MAXIMUM_FIELD = 2 ** 29 - 1;

class Reader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  done(): boolean {
    return this.#offset === this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    // Ten bytes at the most, of which what we use fits in five; by multiplication, since shifts have 32 bits.
    for (let index = 0; index < 10; index++) {
      const byte = this.#bytes[this.#offset++];
      if (byte === undefined) throw malformed();
      value += (byte & 0x7f) * 2 ** (7 * index);
      if (byte < 0x80) return value;
    }
    throw malformed();
  }

  take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.#offset) throw malformed();
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }
}

function malformed(): OcicryptError {
  return new OcicryptError('bad-input', 'the message is not the protobuf message of this method');
}
