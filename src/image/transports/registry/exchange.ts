// Follows redirects of a registry and of its token server, with a credential only for the origin that it belongs to.

import { bareHost, isLoopback } from '../../../base/address.ts';
import { OcicryptError } from '../../../base/errors.ts';
import type { HttpStreams, StreamRequest, StreamResponse } from '../../../base/http/stream.ts';
import { drain } from './answers.ts';

/** A request that can be made again at another address, because its body is held. */
export type HeldRequest = StreamRequest & {
  readonly body?: Uint8Array | undefined;
  /** Sent to the origin of `url` alone. */
  readonly authorization?: string | undefined;
  /** Whether the body holds a credential, too. */
  readonly isSecret?: boolean;
};

/** An answer, and the address that it came from. */
export type LocatedResponse = StreamResponse & { readonly url: URL };

const REDIRECTS = 4;

/**
 * Makes a request and follows redirects: of GET and HEAD all, of other methods those that keep method and body (RFC 9110
 * section 15.4). Storage behind a registry has its own credentials in its addresses.
 *
 * @returns the answer, of whatever status, that is no redirect
 * @throws OcicryptError `unavailable`
 */
export async function exchange(http: HttpStreams, request: HeldRequest): Promise<LocatedResponse> {
  const { origin } = request.url;
  let { url } = request;
  for (let hops = 0; ; hops++) {
    const response = await sendOnce(http, request, url, url.origin === origin);
    if (![301, 302, 303, 307, 308].includes(response.status)) return { ...response, url };
    await drain(response);
    const next = resolveAddress(response.headers.location, url);
    const keeps = response.status >= 307;
    const isAllowed = keeps || request.method === 'GET' || request.method === 'HEAD';
    const leaks = request.isSecret === true && next.origin !== origin;
    if (!isAllowed || leaks || hops === REDIRECTS) {
      throw new OcicryptError('unavailable', `${url.host} answered with a redirect that is not followed`, {
        hint: leaks ? 'it would take a credential to another host' : 'ask the operator of the registry',
      });
    }
    url = next;
  }
}

/**
 * The address that a `Location` names. It has TLS, unless the request itself had none.
 *
 * @param from the address of the request
 * @throws OcicryptError `unavailable`
 */
export function resolveAddress(location: string | undefined, from: URL): URL {
  const url = location === undefined ? undefined : (URL.parse(location, from.href) ?? undefined);
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw new OcicryptError('unavailable', `${from.host} did not say where to go on`, {
      hint: 'its answer has no usable Location: ask the operator of the registry',
    });
  }
  if (url.protocol === 'https:' || (from.protocol === 'http:' && isLoopback(bareHost(url)))) return url;
  throw new OcicryptError('unavailable', `${from.host} has TLS but sends us on to http://${url.host}, without it`, {
    hint: 'its operator lets the proxy before it set X-Forwarded-Proto: https, or the registry use relative addresses',
  });
}

async function sendOnce(
  http: HttpStreams,
  { method, headers, body, authorization, patience, signal }: HeldRequest,
  url: URL,
  isSameOrigin: boolean,
): Promise<StreamResponse> {
  const hasLength = body !== undefined || method === 'POST' || method === 'PUT';
  const running = await http.open({
    method,
    url,
    headers: {
      ...headers,
      ...(hasLength ? { 'content-length': String(body?.length ?? 0) } : {}),
      ...(isSameOrigin && authorization !== undefined ? { authorization } : {}),
    },
    patience,
    signal,
  });
  if (body !== undefined && body.length > 0) await running.write(body);
  return running.answer();
}
