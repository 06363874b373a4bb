/**
 * The gRPC surface of the fake Google Cloud KMS, `Encrypt` and `Decrypt`, before its REST surface: each call becomes the
 * REST request that means the same, so that both work with the same keys, permissions and refusals.
 * https://github.com/googleapis/googleapis/blob/master/google/cloud/kms/v1/service.proto
 */
import { createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { encodeFrame, encodeStatusMessage, FRAME_HEADER } from '../../src/base/grpc.ts';
import type { WireAnswer, WireRequest } from './wire.ts';

type Rest = (request: WireRequest) => WireAnswer;

/** How a field is written in JSON, by its number. `checksum` is an Int64Value, a message of its own. */
type Field = readonly [number: number, kind: 'bytes' | 'checksum' | 'flag' | 'text', member: string];

type Method = {
  readonly verb: string;
  /** Fields of the request beside its name, and of the answer. */
  readonly request: readonly Field[];
  readonly answer: readonly Field[];
};

const METHODS: Readonly<Record<string, Method>> = {
  '/google.cloud.kms.v1.KeyManagementService/Encrypt': {
    verb: 'encrypt',
    request: [
      [2, 'bytes', 'plaintext'],
      [3, 'bytes', 'additionalAuthenticatedData'],
      [7, 'checksum', 'plaintextCrc32c'],
      [8, 'checksum', 'additionalAuthenticatedDataCrc32c'],
    ],
    answer: [
      [1, 'text', 'name'],
      [2, 'bytes', 'ciphertext'],
      [4, 'checksum', 'ciphertextCrc32c'],
      [5, 'flag', 'verifiedPlaintextCrc32c'],
      [6, 'flag', 'verifiedAdditionalAuthenticatedDataCrc32c'],
    ],
  },
  '/google.cloud.kms.v1.KeyManagementService/Decrypt': {
    verb: 'decrypt',
    request: [
      [2, 'bytes', 'ciphertext'],
      [3, 'bytes', 'additionalAuthenticatedData'],
      [5, 'checksum', 'ciphertextCrc32c'],
      [6, 'checksum', 'additionalAuthenticatedDataCrc32c'],
    ],
    answer: [
      [1, 'bytes', 'plaintext'],
      [2, 'checksum', 'plaintextCrc32c'],
      [3, 'flag', 'usedPrimary'],
    ],
  },
};

/** https://grpc.io/docs/guides/status-codes/ */
const STATUS: Readonly<Record<string, number>> = {
  INVALID_ARGUMENT: 3,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  FAILED_PRECONDITION: 9,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
};
const UNKNOWN = 2;
const UNIMPLEMENTED = 12;

/** Takes connections on which TLS has agreed on HTTP/2. */
export function createGrpcSurface(rest: Rest): (socket: Duplex) => void {
  const server = createServer();
  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => answer(stream, headers, Buffer.concat(chunks), rest));
  });
  server.on('sessionError', () => {});
  return (socket) => server.emit('connection', socket);
}

function answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, frame: Buffer, rest: Rest): void {
  const method = METHODS[headers[':path'] ?? ''];
  if (method === undefined) {
    refuse(stream, UNIMPLEMENTED, 'no such method');
    return;
  }
  const { status, body } = rest(readRequest(method, headers, frame.subarray(FRAME_HEADER)));
  const members: Readonly<Record<string, unknown>> = JSON.parse(body);
  if (status !== 200) {
    const { error } = JSON.parse(body);
    refuse(stream, STATUS[error.status] ?? UNKNOWN, error.message);
    return;
  }
  const message = method.answer.flatMap((field) => writeField(field, members[field[2]]));
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(encodeFrame(Buffer.concat(message)));
}

function refuse(stream: ServerHttp2Stream, status: number, message: string): void {
  const head = { ':status': 200, 'content-type': 'application/grpc' };
  const trailers = { 'grpc-status': String(status), 'grpc-message': encodeStatusMessage(message) };
  stream.respond({ ...head, ...trailers }, { endStream: true });
}

function readRequest(method: Method, headers: IncomingHttpHeaders, message: Buffer): WireRequest {
  const values = readFields(message);
  const members = method.request.flatMap(([number, kind, member]) => {
    const value = values.get(number);
    if (value === undefined) return [];
    return [[member, kind === 'checksum' ? readChecksum(value) : value.toString('base64')] as const];
  });
  return {
    method: 'POST',
    path: `/v1/${values.get(1) ?? ''}:${method.verb}`,
    headers: { authorization: headers.authorization ?? '' },
    body: Buffer.from(JSON.stringify(Object.fromEntries(members))),
  };
}

/** Fields that have a length, by number, which are all that these messages have. */
function readFields(message: Buffer): ReadonlyMap<number, Buffer> {
  const fields = new Map<number, Buffer>();
  for (let offset = 0; offset < message.length; ) {
    const [tag, afterTag] = readVarint(message, offset);
    const [length, start] = readVarint(message, afterTag);
    if (tag % 8 !== 2) throw new Error('a field of another type');
    offset = start + length;
    fields.set(Math.floor(tag / 8), message.subarray(start, offset));
  }
  return fields;
}

/** A protobuf message of one number, which is left out where it is zero. */
function readChecksum(message: Buffer): string {
  return String(message.length === 0 ? 0 : readVarint(message, 1)[0]);
}

function writeField([number, kind, member]: Field, value: unknown): readonly Buffer[] {
  if (value === undefined) return [];
  if (kind === 'flag') return value === true ? [Buffer.from([number * 8, 1])] : [];
  if (typeof value !== 'string') throw new Error(`${member} is no text`);
  const bytes =
    kind === 'checksum'
      ? Buffer.concat([Buffer.from([8]), writeVarint(Number(value))])
      : Buffer.from(value, kind === 'bytes' ? 'base64' : 'utf8');
  return [Buffer.from([number * 8 + 2]), writeVarint(bytes.length), bytes];
}

/** The number at `offset`, and the offset behind it. By multiplication, since shifts have 32 bits. */
function readVarint(bytes: Buffer, offset: number): readonly [value: number, end: number] {
  let value = 0;
  for (let index = 0; ; index++) {
    const byte = bytes[offset + index];
    if (byte === undefined) throw new Error('a message that is cut off');
    value += (byte & 0x7f) * 128 ** index;
    if (byte < 0x80) return [value, offset + index + 1];
  }
}

function writeVarint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    bytes.push(rest > 0x7f ? (rest % 128) + 0x80 : rest);
    if (rest <= 0x7f) return Buffer.from(bytes);
  }
}
