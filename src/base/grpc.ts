// gRPC's encoding on the wire: frames, fields of protobuf messages, time-outs and status messages.
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

/** A protobuf message whose field 1, or another one below 16, is `value`; an empty value is left out, as proto3 does. */
export function encodeBytesField(value: Uint8Array, field = 1): Uint8Array<ArrayBuffer> {
  if (value.length === 0) return new Uint8Array();
  const head = [field * 8 + 2];
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
  let value = message.subarray(0, 0);
  for (const [field, found] of fieldsOf(message)) {
    if (field !== wanted) continue;
    if (!(found instanceof Uint8Array)) throw malformed();
    value = found;
  }
  return value;
}

/**
 * The number of a field, as its varint reads without a sign; rounded above 2⁵³, and 0 if there is none.
 *
 * @throws OcicryptError `bad-input`
 */
export function decodeNumberField(message: Uint8Array, wanted: number): number {
  let value = 0;
  for (const [field, found] of fieldsOf(message)) {
    if (field !== wanted) continue;
    if (typeof found !== 'number') throw malformed();
    value = found;
  }
  return value;
}

/** Each field in turn; what has a fixed length is undefined. */
function* fieldsOf(message: Uint8Array): Generator<readonly [field: number, value: Uint8Array | number | undefined]> {
  const reader = new Reader(message);
  while (!reader.done()) {
    const tag = reader.varint();
    const field = Math.floor(tag / 8);
    if (field === 0 || field > MAXIMUM_FIELD) throw malformed();
    switch (tag % 8) {
      case 0:
        yield [field, reader.varint()];
        break;
      case 1:
        reader.take(8);
        yield [field, undefined];
        break;
      case 2:
        yield [field, reader.take(reader.varint())];
        break;
      case 5:
        reader.take(4);
        yield [field, undefined];
        break;
      default:
        throw malformed();
    }
  }
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
