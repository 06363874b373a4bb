// The only code that speaks HTTP to key services, token services and registries: TLS that cannot be turned off,
// no redirects, bounded answers, and every failure as an OcicryptError.

import { Agent, type IncomingMessage, request as plainRequest } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import type { SecureContext } from 'node:tls';
import { concatBytes, wipe } from './bytes.ts';
import { OcicryptError } from './errors.ts';
import { chooseProxy, isLoopback } from './proxy.ts';
import { createTrust } from './roots.ts';

/** What a client trusts and how it reaches others. */
export type HttpSettings = {
  /** PEM files whose certificates are trusted beside the system's roots (`--ca`). */
  readonly caFiles?: readonly string[] | undefined;
  /** Where SSL_CERT_FILE, HTTPS_PROXY and NO_PROXY are read; the process's own where it is left out. */
  readonly environment?: NodeJS.ProcessEnv | undefined;
};

export type HttpRequest = {
  readonly method: 'DELETE' | 'GET' | 'HEAD' | 'PATCH' | 'POST' | 'PUT';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Sent as it is, with its length; the caller may wipe it once the promise is settled. */
  readonly body?: Uint8Array | undefined;
  /** Ends the request at once, wherever it is. */
  readonly signal: AbortSignal;
  /** The longest body that is accepted; 1 MiB where it is left out. */
  readonly maximumBytes?: number | undefined;
  /** Permits `http:` to a host that is not this machine: metadata servers, which have no TLS. */
  readonly insecurePlaintext?: boolean | undefined;
};

export type HttpResponse = {
  /** 200 to 299, or 400 and above. */
  readonly status: number;
  /** Names in lower case; repeated headers are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Undecoded. May hold a key: whoever reads it wipes it. */
  readonly body: Uint8Array<ArrayBuffer>;
};

export interface HttpClient {
  /**
   * Makes one request and reads its whole answer; no retry, no redirect.
   *
   * @throws OcicryptError `unavailable` where no whole answer came, `deadline-exceeded` where the signal ended it,
   * `configuration` for an address that must not be asked or roots that cannot be read
   */
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Closes idle connections. */
  close(): void;
}

/** Enough for every answer of a key or token service. */
const MAXIMUM_BYTES = 1024 * 1024;

/** A client that keeps connections alive, so that a server pays for a handshake once. Opens nothing by itself. */
export function createHttpClient(settings: HttpSettings = {}): HttpClient {
  const environment = settings.environment ?? process.env;
  const plainAgent = new Agent({ keepAlive: true });
  const tlsAgents = new Map<string, Promise<Agent>>();
  let trust: Trust | undefined;

  /** One agent for each proxy and one for no proxy. */
  async function findRoute(url: URL): Promise<Route> {
    if (url.protocol === 'http:') return { agent: plainAgent };
    const proxy = chooseProxy(bareHost(url), Number(url.port || 443), environment);
    // Made once: parsing the roots costs milliseconds, and every connection would do it again.
    trust ??= { rejectUnauthorized: true, secureContext: createTrust(settings.caFiles ?? [], environment) };
    const agent = tlsAgents.get(proxy?.href ?? '') ?? createTlsAgent(proxy, trust);
    tlsAgents.set(proxy?.href ?? '', agent);
    return { agent: await agent, trust, proxy };
  }

  return {
    async request(request) {
      const url = checkUrl(request);
      return exchange(url, await findRoute(url), request);
    },
    close() {
      plainAgent.destroy();
      for (const agent of tlsAgents.values()) void agent.then((opened) => opened.destroy());
    },
  };
}

/** The `Retry-After` of an answer in milliseconds (RFC 9110 section 10.2.3), or undefined where there is none. */
export function parseRetryAfter(headers: HttpResponse['headers'], now = Date.now()): number | undefined {
  const value = headers['retry-after'];
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Errors name a host and never a path or query, which may hold what is nobody's business. */
function checkUrl(request: HttpRequest): URL {
  const url = URL.canParse(request.url) ? new URL(request.url) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw new OcicryptError('configuration', 'not an https address', { hint: 'addresses look like https://HOST:PORT' });
  }
  if (url.protocol === 'http:' && !request.insecurePlaintext && !isLoopback(bareHost(url))) {
    throw new OcicryptError('configuration', `refusing to speak to ${url.host} without TLS`, {
      hint: `use https://${url.host}`,
    });
  }
  return url;
}

/** `rejectUnauthorized` is explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes its default. */
type Trust = { readonly rejectUnauthorized: true; readonly secureContext: SecureContext };
type Route = { readonly agent: Agent; readonly trust?: Trust; readonly proxy?: URL | undefined };

async function createTlsAgent(proxy: URL | undefined, trust: Trust): Promise<Agent> {
  if (proxy === undefined) return new TlsAgent({ ...trust, keepAlive: true });
  const { HttpsProxyAgent } = await import('https-proxy-agent');
  return new HttpsProxyAgent(proxy, { ...trust, keepAlive: true });
}

function exchange(url: URL, route: Route, request: HttpRequest): Promise<HttpResponse> {
  const { signal, body } = request;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(deadlineExceeded(url));
    const send = url.protocol === 'http:' ? plainRequest : tlsRequest;
    const outgoing = send(url, {
      agent: route.agent,
      // Again here, because not every agent hands its own options to the connection.
      ...route.trust,
      method: request.method,
      headers: {
        'user-agent': 'ocicrypt-kms',
        ...request.headers,
        ...(body === undefined ? {} : { 'content-length': String(body.length) }),
      },
    });
    const abort = () => end(deadlineExceeded(url));
    function end(outcome: OcicryptError | HttpResponse): void {
      signal.removeEventListener('abort', abort);
      if (outcome instanceof OcicryptError) {
        reject(outcome);
        outgoing.destroy();
      } else {
        resolve(outcome);
      }
    }
    signal.addEventListener('abort', abort);
    outgoing.on('error', (error) => end(networkError(url, error)));
    outgoing.on('proxyConnect', ({ statusCode }: { readonly statusCode: number }) => {
      if (statusCode !== 200) end(refusedByProxy(url, route.proxy, statusCode));
    });
    outgoing.on('response', (incoming) => receive(url, request, incoming, end));
    outgoing.end(body);
  });
}

function receive(
  url: URL,
  request: HttpRequest,
  incoming: IncomingMessage,
  end: (outcome: OcicryptError | HttpResponse) => void,
): void {
  const maximum = request.maximumBytes ?? MAXIMUM_BYTES;
  const status = incoming.statusCode ?? 0;
  if (status >= 300 && status < 400) {
    end(new OcicryptError('unavailable', `${url.host} answered with a redirect`, { hint: REDIRECT_HINT }));
    return;
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  const cut = (cause?: unknown) => {
    wipe(...chunks);
    end(new OcicryptError('unavailable', `${url.host} broke off its answer`, { cause, retryable: true }));
  };
  incoming.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length <= maximum) return;
    wipe(...chunks);
    end(new OcicryptError('unavailable', `${url.host} answered with more than ${maximum} bytes`));
  });
  incoming.on('error', cut);
  incoming.on('close', cut);
  incoming.on('end', () => {
    const announced = incoming.headers['content-length'];
    // The runtimes' parsers mostly notice; a wrong answer here would be a wrong key later.
    const whole = incoming.complete && (announced === undefined || Number(announced) === length);
    if (!whole && request.method !== 'HEAD') return cut();
    const body = concatBytes(...chunks);
    wipe(...chunks);
    end({ status, headers: flattenHeaders(incoming.headers), body });
  });
}

const REDIRECT_HINT = 'redirects are not followed: name the address that answers';

function flattenHeaders(headers: IncomingMessage['headers']): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}

function deadlineExceeded(url: URL): OcicryptError {
  return new OcicryptError('deadline-exceeded', `${url.host} did not answer in time`, {
    hint: 'check that the host can be reached from here, and its proxy if there is one',
    retryable: true,
  });
}

/** Otherwise the refusal would pass for an answer of the service. */
function refusedByProxy(url: URL, proxy: URL | undefined, status: number): OcicryptError {
  return new OcicryptError('unavailable', `the proxy ${proxy?.host} refuses to connect to ${url.host} (${status})`, {
    hint:
      status === 407
        ? 'HTTPS_PROXY takes credentials as http://USER:PASSWORD@HOST'
        : 'NO_PROXY names hosts to reach directly',
    retryable: status >= 500,
  });
}

/** A name that does not exist, and whatever a certificate may be refused for: trying again changes nothing. */
const NO_SUCH_HOST = /^(?:ENOTFOUND|DNS_ENOTFOUND)$/;
const NOT_TRUSTED = /CERT|ISSUER|SELF_SIGNED|UNABLE_TO_|ERR_TLS|HOSTNAME_MISMATCH|CRL|INVALID_CA|INVALID_PURPOSE/;

function networkError(url: URL, error: Error): OcicryptError {
  const code = 'code' in error ? String(error.code) : '';
  if (NO_SUCH_HOST.test(code)) {
    return new OcicryptError('unavailable', `no host is named ${url.hostname}`, {
      cause: error,
      hint: 'check the address and the name server',
    });
  }
  if (NOT_TRUSTED.test(code)) {
    return new OcicryptError('unavailable', `the certificate of ${url.host} is not trusted (${code})`, {
      cause: error,
      hint: 'if its issuer is your own, name the issuer with --ca FILE',
    });
  }
  return new OcicryptError(
    'unavailable',
    `cannot reach ${url.host}${/^[A-Z_0-9]{2,60}$/.test(code) ? ` (${code})` : ''}`,
    {
      cause: error,
      hint: 'check that the host can be reached from here, and its proxy if there is one',
      retryable: true,
    },
  );
}

function bareHost(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}
