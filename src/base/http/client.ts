// Speaks HTTP to key services, token services and registries: TLS that cannot be turned off,
// no redirects, bounded answers, and every failure as an OcicryptError.

import { bareHost, isLoopback } from '../address.ts';
import { type Wait, type WaitClock, waitFor } from '../deadline.ts';
import { OcicryptError } from '../errors.ts';
import { setting } from '../setting.ts';
import type { Dialer } from './connection.ts';
import type {
  CheckedHeaders,
  CredentialRole,
  HttpClient,
  HttpRequest,
  HttpResponse,
  HttpSettings,
} from './contract.ts';
import { createBunDialer } from './dial-bun.ts';
import { answeredRedirect, deadlineExceeded } from './errors.ts';
import { createTransport, type FindDialer } from './exchange.ts';

/** Enough for every answer of a key or token service. */
const MAXIMUM_BYTES = 1024 * 1024;

/**
 * A client that keeps connections alive, so that a server pays for a handshake once. Opens nothing by itself.
 *
 * Not by `node:https`, of which a request takes five times the processor's time under Bun, nor by Bun's `fetch`, which
 * keeps no connection if it is told how to check a certificate's names, is handed all roots with each request, and takes
 * a proxy from the environment by rules of its own.
 */
export function createHttpClient(settings: HttpSettings = {}): HttpClient {
  const transport = createTransport(settings, createFindDialer());
  const answered = new Set<string>();
  return {
    async request(request) {
      const url = checkUrl(request);
      const { headers: given = {} } = request;
      const headers = typeof given === 'function' ? async () => readHeaders(await given()) : readHeaders(given);
      if (request.signal.aborted) throw deadlineExceeded(url);
      const complete = { ...request, headers, maximumBytes: request.maximumBytes ?? MAXIMUM_BYTES };
      const answer = await waitFor(request.signal, ...describeWait(url, request.role), () =>
        transport.exchange(url, complete).catch((error: unknown) => {
          // An address that has answered is right: the host is out of order for a while.
          const isAway = answered.has(url.host) && error instanceof OcicryptError && error.unreached;
          throw isAway ? error.with({ unreached: false }) : error;
        }),
      );
      answered.add(url.host);
      if (answer.status >= 300 && answer.status < 400) throw answeredRedirect(url);
      return answer;
    },
    close: () => transport.close(),
  };
}

/** Bun's own connections are the quicker ones, but do not lead through a proxy that itself is reached by TLS. */
function createFindDialer(): FindDialer {
  const quick = createBunDialer();
  let usual: Promise<Dialer> | undefined;
  return async (proxy) => {
    if (quick !== undefined && proxy?.protocol !== 'https:') return quick;
    usual ??= import('./dial-node.ts').then(({ createNodeDialer }) => createNodeDialer());
    return usual;
  };
}

/** The `Retry-After` of an answer in milliseconds (RFC 9110 section 10.2.3), or undefined if there is none. */
export function parseRetryAfter(headers: HttpResponse['headers'], now = Date.now()): number | undefined {
  const value = headers['retry-after'];
  if (value === undefined) return undefined;
  // Whole seconds; some services send a fraction.
  if (/^\d{1,9}(?:\.\d{1,9})?$/.test(value)) return Math.ceil(Number(value) * 1000);
  // Dates begin with the name of a day. Runtimes take much else for one.
  const date = /^[A-Z]/i.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function describeWait(url: URL, role: CredentialRole | undefined): [Wait, WaitClock] {
  if (role === undefined) return [{ name: url.host }, 'on'];
  const hint =
    role === 'metadata server'
      ? `check that ${url.host} can be reached from here, and which credentials this machine should have`
      : `check that ${url.host} can be reached from here, and the proxy if there is one; ${setting('limits.total')} allows more time`;
  return [{ name: `the ${role} ${url.host}`, hint }, 'anew'];
}

/** Errors name a host and never a path or query, which may hold secrets. */
function checkUrl(request: HttpRequest): URL {
  const url = URL.parse(request.url);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw new OcicryptError('configuration', 'not an https address', { hint: 'addresses look like https://HOST:PORT' });
  }
  if (url.protocol === 'http:' && !request.insecurePlaintext && !isLoopback(bareHost(url))) {
    throw new OcicryptError('configuration', `refusing to speak to ${url.host} without TLS`, {
      hint: `use https://${url.host}`,
    });
  }
  return url;
}

function readHeaders(given: Readonly<Record<string, string | undefined>>): CheckedHeaders {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) if (value !== undefined) headers[name] = value;
  checkHeaders(headers);
  return headers;
}

/** Refuses what cannot be sent: each transport would fail on its own with an error that quotes the value. */
export function checkHeaders(headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) {
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
      throw new OcicryptError('configuration', 'the name of a header holds a character that cannot be sent', {
        hint: 'look for it in the file or option that names headers',
      });
    }
    if (/^[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$|^$/.test(value)) continue;
    throw new OcicryptError(
      'configuration',
      `what belongs into the header ${name} holds a character that cannot be sent`,
      {
        hint: 'look for a line end or a blank in the option, variable or file that holds it',
      },
    );
  }
}
