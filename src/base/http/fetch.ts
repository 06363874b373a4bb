// Requests by the `fetch` of Bun, with the options that it has beyond the standard; never through a proxy.

import { concatBytes, wipe } from '../bytes.ts';
import { OcicryptError } from '../errors.ts';
import type { HttpSettings, HttpTransport } from './client.ts';
import { answeredTooMuch, brokenOff, deadlineExceeded, networkError } from './errors.ts';
import { readClientCertificate, readRoots } from './roots.ts';
import { identityCheck } from './server-identity.ts';

/** https://bun.com/docs/runtime/networking/fetch */
type BunRequestInit = RequestInit & {
  readonly decompress: false;
  readonly tls: {
    readonly ca: readonly (Buffer | string)[];
    readonly cert?: string;
    readonly key?: Buffer;
    readonly serverName?: string;
    readonly rejectUnauthorized: true;
    readonly checkServerIdentity: ReturnType<typeof identityCheck>;
  };
};

export function createFetchTransport(settings: HttpSettings): HttpTransport {
  const environment = settings.environment ?? process.env;
  const { clientCertificate, serverName } = settings;
  const checkServerIdentity = identityCheck(serverName);
  let roots: (Buffer | string)[] | undefined;
  let own: ReturnType<typeof readClientCertificate> | undefined;

  return {
    async exchange(url, request) {
      if (url.protocol === 'https:') {
        roots ??= readRoots(settings, environment);
        if (clientCertificate !== undefined) own ??= readClientCertificate(clientCertificate);
      }
      // A copy, because only that is surely not shared memory.
      const body = request.body === undefined ? undefined : Uint8Array.from(request.body);
      const init: BunRequestInit = {
        method: request.method,
        headers: { 'user-agent': 'ocicrypt-kms', ...request.headers },
        signal: request.signal,
        redirect: 'manual',
        decompress: false,
        // Explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes the default.
        tls: {
          ...{ ca: roots ?? [], ...own },
          ...(serverName === undefined ? {} : { serverName }),
          ...{ rejectUnauthorized: true, checkServerIdentity },
        },
        ...(body === undefined ? {} : { body }),
      };
      try {
        const response = await fetch(url, init);
        const headers = Object.fromEntries(response.headers);
        return { status: response.status, headers, body: await readBody(url, response, request.maximumBytes) };
      } catch (error) {
        if (error instanceof OcicryptError) throw error;
        if (request.signal.aborted) throw deadlineExceeded(url);
        throw networkError(url, error instanceof Error ? error : new Error('fetch failed'));
      } finally {
        wipe(body);
      }
    },
    close() {},
  };
}

async function readBody(url: URL, response: Response, maximumBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of response.body ?? []) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > maximumBytes) throw answeredTooMuch(url, maximumBytes);
    }
    const announced = response.headers.get('content-length');
    if (announced !== null && Number(announced) !== length) throw brokenOff(url);
    return concatBytes(...chunks);
  } finally {
    wipe(...chunks);
  }
}
