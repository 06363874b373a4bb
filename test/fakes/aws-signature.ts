/**
 * Signature Version 4 as a service checks it, written from its definition: whoever signs by other code than this must
 * come to the same 32 bytes. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { WireRequest } from './wire.ts';

export type Signature = {
  readonly id: string;
  readonly day: string;
  readonly region: string;
  readonly service: string;
  /** Headers that are signed, in lower case. */
  readonly names: readonly string[];
  readonly hex: string;
};

/** As far as AWS lets clocks differ. */
const SKEW_MILLISECONDS = 5 * 60 * 1000;

const HEADER =
  /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([a-z0-9-]+)\/([a-z0-9]+)\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/;

/** What `Authorization` says, or undefined where it is not of this scheme. */
export function readSignature(request: WireRequest): Signature | undefined {
  const match = HEADER.exec(request.headers.authorization ?? '');
  if (match === null) return undefined;
  const [, id = '', day = '', region = '', service = '', names = '', hex = ''] = match;
  return { id, day, region, service, names: names.split(';'), hex };
}

/** Whether `secret` made the signature, over the host and a date that is not far from `now` (milliseconds). */
export function isSignedBy(request: WireRequest, signature: Signature, secret: string, now: number): boolean {
  const { day, region, service, names } = signature;
  const date = request.headers['x-amz-date'] ?? '';
  if (!names.includes('host') || !names.includes('x-amz-date') || !isNear(date, day, now)) return false;
  const [path = '', query = ''] = request.path.split('?');
  const canonical = [
    request.method,
    path,
    query,
    ...names.map((name) => `${name}:${(request.headers[name] ?? '').trim().replace(/ +/g, ' ')}`),
    '',
    names.join(';'),
    sha256(request.body),
  ].join('\n');
  const scope = [day, region, service, 'aws4_request'];
  const text = ['AWS4-HMAC-SHA256', date, scope.join('/'), sha256(canonical)].join('\n');
  const key = scope.reduce<Buffer>((secretSoFar, part) => hmac(secretSoFar, part), Buffer.from(`AWS4${secret}`));
  return timingSafeEqual(hmac(key, text), Buffer.from(signature.hex, 'hex'));
}

function isNear(date: string, day: string, now: number): boolean {
  const [, y, month, d, h, minute, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date) ?? [];
  const time = Date.parse(`${y}-${month}-${d}T${h}:${minute}:${s}Z`);
  return date.startsWith(day) && Math.abs(time - now) <= SKEW_MILLISECONDS;
}

function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function hmac(key: Buffer, data: string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}
