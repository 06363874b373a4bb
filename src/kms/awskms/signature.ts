// Signature Version 4, computed by AWS's own code, which makes no request and reads nothing.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html

import { createHash, createHmac } from 'node:crypto';
import { OcicryptError } from '../../base/errors.ts';
import { missingPeer } from '../peer-package.ts';
import type { AwsIdentity } from './identity.ts';

/** A POST that is to be signed. */
export type UnsignedRequest = {
  readonly url: string;
  readonly region: string;
  readonly service: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
};

/** The headers to send, without `host`, which is signed as the URL has it and sent by the client itself. */
export async function signAwsRequest(request: UnsignedRequest, identity: AwsIdentity): Promise<Record<string, string>> {
  const { SignatureV4 } = await import('@smithy/signature-v4').catch(
    missingPeer('@smithy/signature-v4', 'keys of AWS KMS'),
  );
  const { region, service, body } = request;
  const { protocol, hostname, host, pathname, port } = new URL(request.url);
  const signer = new SignatureV4({ service, region, credentials: identity, sha256: Sha256, applyChecksum: false });
  const signed = await signer.sign({
    method: 'POST',
    protocol,
    hostname,
    ...(port === '' ? {} : { port: Number(port) }),
    path: pathname,
    query: {},
    headers: { ...request.headers, host },
    body,
  });
  const { host: _, ...headers } = signed.headers;
  return headers;
}

/** SHA-256, or HMAC-SHA-256 with a key, as the signing code asks for it. */
class Sha256 {
  readonly #hash: ReturnType<typeof createHash> | ReturnType<typeof createHmac>;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', readSource(secret));
  }

  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(readSource(data));
  }

  async digest(): Promise<Uint8Array> {
    return new Uint8Array(this.#hash.digest());
  }

  reset(): void {
    throw new OcicryptError('internal', 'a hash is used once');
  }
}

function readSource(data: string | ArrayBuffer | ArrayBufferView): string | Uint8Array {
  if (typeof data === 'string' || data instanceof Uint8Array) return data;
  return data instanceof ArrayBuffer
    ? new Uint8Array(data)
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
