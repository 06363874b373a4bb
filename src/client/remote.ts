// Forwards a client's request to our own server, rebuilt with our own provider's parameters alone: the private keys of
// other schemes, which ocicrypt puts into every request, never leave this machine.

import { type Address, parseHostPort, parseUnix } from '../base/address.ts';
import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { decodeBytesField, encodeBytesField, messageLimit } from '../base/grpc.ts';
import { showValue } from '../base/shown.ts';
import { type NameOptions, namedKeys } from '../provider/parameters.ts';
import { decodeRequest, encodeRequest, type KeyRequest, MAXIMUM_PACKET_BYTES } from '../provider/protocol.ts';
import { callOnce, type GrpcTls } from './grpc-client.ts';

export type RemoteOptions = {
  readonly target: Address;
  readonly tls: GrpcTls | undefined;
  readonly names: NameOptions;
  /** Milliseconds for the whole call. */
  readonly timeout: number;
};

/**
 * Reads where the server is: `unix:///PATH` or `tls://HOST:PORT`.
 *
 * @throws OcicryptError `configuration`; clear text is no choice here, since a server on this machine has a socket
 */
export function parseRemote(text: string): Address {
  const path = parseUnix(text);
  if (path !== undefined && /^\/[^/]/.test(path)) return { kind: 'unix', path };
  const place = text.startsWith('tls://') ? parseHostPort(text.slice('tls://'.length)) : undefined;
  if (place !== undefined && place.port > 0) return { kind: 'tls', ...place };
  throw new OcicryptError('configuration', `not the address of a server: ${showValue(text)}`, {
    hint: 'addresses look like unix:///run/ocicrypt-kms/ocicrypt-kms.sock or tls://HOST:PORT',
  });
}

/**
 * Has the server answer one key-provider request.
 *
 * @param request as a client gave it; untrusted
 * @returns the server's reply, to be wiped by the caller
 * @throws OcicryptError what is wrong with the request, before anything is sent; what the server answered
 */
export async function forwardRequest(
  request: Uint8Array,
  options: RemoteOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const decoded = decodeRequest(request);
  const forwarded = encodeRequest(withOwnParameters(decoded, options.names));
  const message = encodeBytesField(forwarded);
  try {
    const reply = await callOnce(options.target, options.tls, {
      method: `/keyprovider.KeyProviderService/${decoded.operation === 'wrap' ? 'WrapKey' : 'UnWrapKey'}`,
      message,
      timeout: options.timeout,
      // Base64 makes four bytes of three, an array of numbers four of one.
      maximumReply: messageLimit(4 * MAXIMUM_PACKET_BYTES + 1024),
      signal,
    });
    return decodeBytesField(reply);
  } finally {
    wipe(forwarded, message);
  }
}

/** Our values alone, each of which has been read as a key URI; other members of the request are gone with the rest. */
function withOwnParameters(request: KeyRequest, names: NameOptions): KeyRequest {
  const { provider } = namedKeys(request.parameters, names);
  const values = provider === undefined ? undefined : request.parameters.get(provider);
  return {
    ...request,
    parameters: new Map(provider === undefined || values === undefined ? [] : [[provider, values]]),
  };
}
