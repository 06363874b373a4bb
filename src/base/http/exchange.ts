// Sends whole requests of HTTP/1.1, each once, over connections that are kept for the next: through a
// proxy if there is one.

import { bareHost } from '../address.ts';
import { eitherSignal, startWait } from '../deadline.ts';
import { AnswerReader } from './answer.ts';
import type { Connection, Dialer, Trust } from './connection.ts';
import type { BoundedRequest, CheckedHeaders, HttpResponse, HttpSettings, HttpTransport } from './contract.ts';
import { brokenOff, deadlineExceeded, networkError, notHttp, refusedByProxy } from './errors.ts';
import { IdleConnections } from './idle.ts';
import { readClientCertificate, readRoots } from './roots.ts';

/** Gives a dialer for a proxy, or for hosts that are reached without one. */
export type FindDialer = (proxy: URL | undefined) => Promise<Dialer>;

/** A way to carry requests that reads certificates and opens connections when they are needed first. */
export function createTransport(settings: HttpSettings, findDialer: FindDialer): HttpTransport {
  const environment = settings.environment ?? process.env;
  const idle = new IdleConnections();
  let trust: Trust | undefined;
  let proxies: typeof import('./proxy.ts') | undefined;

  /** Loads nothing where the environment names no proxy. */
  async function findProxy(url: URL): Promise<URL | undefined> {
    if (url.protocol === 'http:' || !(environment.HTTPS_PROXY || environment.https_proxy)) return undefined;
    proxies ??= await import('./proxy.ts');
    return proxies.chooseProxy(bareHost(url), portOf(url), environment);
  }

  function readTrust(): Trust {
    const { clientCertificate, serverName } = settings;
    trust ??= {
      ca: readRoots(settings, environment),
      own: clientCertificate === undefined ? undefined : readClientCertificate(clientCertificate),
      serverName,
    };
    return trust;
  }

  async function open(url: URL, proxy: URL | undefined, signal: AbortSignal): Promise<Connection> {
    const dialer = await findDialer(proxy);
    if (url.protocol === 'http:') return attempt(url, signal, () => dialer.reach(bareHost(url), portOf(url), signal));
    const roots = readTrust();
    if (proxy === undefined) {
      return attempt(url, signal, () => dialer.reachSecurely(bareHost(url), portOf(url), roots, signal));
    }
    const tunnel = await openTunnel(dialer, url, proxy, roots, signal);
    return attempt(url, signal, () => dialer.secure(tunnel, bareHost(url), roots, signal));
  }

  /** While they are waited for, a connection is opened and kept, for this request or another. */
  async function readHeaders(
    { headers, signal }: BoundedRequest,
    url: URL,
    proxy: URL | undefined,
    route: string,
  ): Promise<CheckedHeaders> {
    if (typeof headers !== 'function') return headers;
    if (idle.has(route)) return headers();
    const unneeded = new AbortController();
    const opening = open(url, proxy, eitherSignal(signal, unneeded.signal)).then((connection) =>
      idle.keep(route, connection),
    );
    // What is wrong with the headers is said first, and then no connection is waited for.
    opening.catch(() => undefined);
    try {
      const ready = await headers();
      await opening;
      return ready;
    } finally {
      unneeded.abort();
    }
  }

  return {
    async exchange(url, request) {
      const proxy = await findProxy(url);
      const route = `${url.origin} ${proxy?.href ?? ''}`;
      const headers = await readHeaders(request, url, proxy, route);
      const connection = idle.take(route) ?? (await open(url, proxy, request.signal));
      const reader = new AnswerReader(url, request);
      const answer = await converse(connection, url, encodeRequest(url, request, headers), reader, request.signal);
      if (reader.isReusable && !connection.isSending) idle.keep(route, connection, answer);
      else connection.destroy();
      return answer;
    },
    close: () => idle.close(),
  };
}

/** RFC 9110 section 9.3.6. */
async function openTunnel(
  dialer: Dialer,
  url: URL,
  proxy: URL,
  { ca }: Trust,
  signal: AbortSignal,
): Promise<Connection> {
  const hint = `check HTTPS_PROXY, or name ${url.hostname} in NO_PROXY to reach it directly`;
  const endWait = startWait(signal, { name: `the proxy ${proxy.host} on the way to ${url.host}`, hint }, 'on');
  try {
    const [host, port] = [bareHost(proxy), portOf(proxy)] as const;
    const connection = await attempt(
      url,
      signal,
      () =>
        proxy.protocol === 'http:'
          ? dialer.reach(host, port, signal)
          : dialer.reachSecurely(host, port, { ca, own: undefined, serverName: undefined }, signal),
      proxy,
    );
    const authority = `${url.hostname}:${portOf(url)}`;
    const { proxyAuthorization } = await import('./proxy.ts');
    const credentials = proxyAuthorization(proxy);
    const request = encodeHead(`CONNECT ${authority}`, [
      ['host', authority],
      ...(credentials === undefined ? [] : [['proxy-authorization', credentials] as const]),
    ]);
    const reader = new AnswerReader(proxy, { method: 'CONNECT', maximumBytes: 0 });
    const { status } = await converse(connection, url, request, reader, signal, proxy);
    if (status >= 200 && status < 300 && reader.isClean) return connection;
    connection.destroy();
    throw status < 300 ? notHttp(proxy) : refusedByProxy(url, proxy, status);
  } finally {
    endWait();
  }
}

/** Opens a connection, with the runtime's error as ours. @param proxy if this is the way to the proxy */
async function attempt(
  url: URL,
  signal: AbortSignal,
  open: () => Promise<Connection>,
  proxy?: URL,
): Promise<Connection> {
  try {
    return await open();
  } catch (error) {
    if (signal.aborted) throw deadlineExceeded(url);
    throw networkError(url, error instanceof Error ? error : new Error('no connection'), proxy);
  }
}

/** A copy of the whole request, in one piece, so that it leaves in one. */
function encodeRequest(url: URL, { method, body }: BoundedRequest, headers: CheckedHeaders): Uint8Array {
  const fields = new Map([
    ['host', url.host],
    ['user-agent', 'ocicrypt-kms'],
  ]);
  for (const [name, value] of Object.entries(headers)) fields.set(name.toLowerCase(), value);
  // RFC 9110 section 8.6: a method that has a body says so if that is empty.
  if (body !== undefined || /^P/.test(method)) fields.set('content-length', String(body?.length ?? 0));
  return encodeHead(`${method} ${url.pathname}${url.search}`, fields, body);
}

function encodeHead(
  target: string,
  fields: Iterable<readonly [string, string]>,
  body: Uint8Array = new Uint8Array(),
): Uint8Array {
  let head = `${target} HTTP/1.1\r\n`;
  for (const [name, value] of fields) head += `${name}: ${value}\r\n`;
  head += '\r\n';
  const bytes = Buffer.alloc(head.length + body.length);
  bytes.write(head, 'latin1');
  bytes.set(body, head.length);
  return bytes;
}

/**
 * Sends a request and reads its answer. A connection on which that goes wrong is destroyed.
 *
 * @param proxy if the proxy is asked, whose fault it is then
 */
function converse(
  connection: Connection,
  url: URL,
  request: Uint8Array,
  reader: AnswerReader,
  signal: AbortSignal,
  proxy?: URL,
): Promise<HttpResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpResponse>();
  const abort = () => fail(deadlineExceeded(url));
  const fail = (error: unknown) => {
    signal.removeEventListener('abort', abort);
    reader.discard();
    connection.destroy();
    reject(error);
  };
  const settle = (read: () => HttpResponse | undefined) => {
    try {
      const answer = read();
      if (answer === undefined) return;
      signal.removeEventListener('abort', abort);
      resolve(answer);
    } catch (error) {
      fail(error);
    }
  };
  if (signal.aborted) {
    abort();
    return promise;
  }
  signal.addEventListener('abort', abort);
  connection.hear({
    received: (bytes) => settle(() => reader.push(bytes)),
    ended(error) {
      if (!reader.isUnanswered) settle(() => reader.end(error));
      else fail(error === undefined ? brokenOff(proxy ?? url) : networkError(url, error, proxy));
    },
  });
  connection.send(request);
  return promise;
}

function portOf({ port, protocol }: URL): number {
  return port === '' ? (protocol === 'http:' ? 80 : 443) : Number(port);
}
