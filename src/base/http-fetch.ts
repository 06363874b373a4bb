// Requests by the `fetch` of Bun, with the options that it has beyond the standard.

import { concatBytes, wipe } from './bytes.ts';
import { OcicryptError } from './errors.ts';
import { bareHost, type HttpSettings, type HttpTransport } from './http.ts';
import { answeredTooMuch, brokenOff, deadlineExceeded, networkError } from './http-errors.ts';
import { chooseProxy } from './proxy.ts';
import { readRoots } from './roots.ts';

/** https://bun.com/docs/runtime/networking/fetch */
type BunRequestInit = RequestInit & {
  readonly decompress: false;
  readonly tls: { readonly ca: readonly (Buffer | string)[]; readonly rejectUnauthorized: true };
  readonly proxy?: string;
};

export function createFetchTransport(settings: HttpSettings): HttpTransport {
  const environment = settings.environment ?? process.env;
  let roots: (Buffer | string)[] | undefined;

  return {
    async exchange(url, request) {
      const secure = url.protocol === 'https:';
      const proxy = secure ? chooseProxy(bareHost(url), Number(url.port || 443), environment) : undefined;
      if (secure) roots ??= readRoots(settings.caFiles ?? [], environment);
      const init: BunRequestInit = {
        method: request.method,
        headers: { 'user-agent': 'ocicrypt-kms', ...request.headers },
        signal: request.signal,
        redirect: 'manual',
        decompress: false,
        // Explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes the default.
        tls: { ca: roots ?? [], rejectUnauthorized: true },
        ...(request.body === undefined ? {} : { body: Uint8Array.from(request.body) }),
        ...(proxy === undefined ? {} : { proxy: proxy.href }),
      };
      try {
        const response = await fetch(url, init);
        const body = await readBody(url, response, request.maximumBytes);
        return { status: response.status, headers: Object.fromEntries(response.headers), body };
      } catch (error) {
        if (error instanceof OcicryptError) throw error;
        if (request.signal.aborted) throw deadlineExceeded(url);
        throw networkError(url, error instanceof Error ? error : new Error('fetch failed'));
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
