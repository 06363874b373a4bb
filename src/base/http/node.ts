// Requests by the `node:https` of Node, with its agents and their connections.

import { Agent, type IncomingMessage, request as plainRequest } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { createSecureContext, type SecureContext } from 'node:tls';
import { concatBytes, wipe } from '../bytes.ts';
import { startWait } from '../deadline.ts';
import { OcicryptError } from '../errors.ts';
import { findProxy, type HttpRequest, type HttpResponse, type HttpSettings, type HttpTransport } from './client.ts';
import { answeredTooMuch, brokenOff, deadlineExceeded, networkError, refusedByProxy } from './errors.ts';
import { readClientCertificate, readRoots } from './roots.ts';
import { identityCheck } from './server-identity.ts';

export function createNodeTransport(settings: HttpSettings): HttpTransport {
  const environment = settings.environment ?? process.env;
  const plainAgent = new Agent({ keepAlive: true });
  const tlsAgents = new Map<string, Promise<Agent>>();
  let trust: Trust | undefined;

  /** One agent for each proxy and one for no proxy. */
  async function findRoute(url: URL): Promise<Route> {
    if (url.protocol === 'http:') return { agent: plainAgent };
    const proxy = await findProxy(url, environment);
    // Made once: parsing the roots costs milliseconds, and every connection would do it again.
    if (trust === undefined) {
      const ca = readRoots(settings, environment);
      const own = settings.clientCertificate === undefined ? {} : readClientCertificate(settings.clientCertificate);
      trust = {
        rejectUnauthorized: true,
        secureContext: createSecureContext({ ca, ...own, minVersion: 'TLSv1.2' }),
        checkServerIdentity: identityCheck(settings.serverName),
        ...(settings.serverName === undefined ? {} : { servername: settings.serverName }),
      };
    }
    const agent = tlsAgents.get(proxy?.href ?? '') ?? createTlsAgent(proxy, trust);
    tlsAgents.set(proxy?.href ?? '', agent);
    return { agent: await agent, trust, proxy };
  }

  return {
    async exchange(url, request) {
      return exchange(url, await findRoute(url), request);
    },
    close() {
      plainAgent.destroy();
      for (const agent of tlsAgents.values()) void agent.then((opened) => opened.destroy());
    },
  };
}

/** `rejectUnauthorized` is explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes its default. */
type Trust = {
  readonly rejectUnauthorized: true;
  readonly secureContext: SecureContext;
  readonly checkServerIdentity: ReturnType<typeof identityCheck>;
  readonly servername?: string;
};
type BoundedRequest = HttpRequest & { readonly maximumBytes: number };
type Route = { readonly agent: Agent; readonly trust?: Trust; readonly proxy?: URL | undefined };

async function createTlsAgent(proxy: URL | undefined, trust: Trust): Promise<Agent> {
  if (proxy === undefined) return new TlsAgent({ ...trust, keepAlive: true });
  const { HttpsProxyAgent } = await import('https-proxy-agent');
  return new HttpsProxyAgent(proxy, { ...trust, keepAlive: true });
}

function exchange(url: URL, route: Route, request: BoundedRequest): Promise<HttpResponse> {
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
    const endWait = route.proxy === undefined ? () => {} : waitForProxy(url, route.proxy, signal);
    let isThrough = false;
    const connected = () => {
      isThrough = true;
      endWait();
    };
    const abort = () => end(deadlineExceeded(url));
    function end(outcome: OcicryptError | HttpResponse): void {
      signal.removeEventListener('abort', abort);
      endWait();
      if (outcome instanceof OcicryptError) {
        reject(outcome);
        outgoing.destroy();
      } else {
        resolve(outcome);
      }
    }
    signal.addEventListener('abort', abort);
    outgoing.on('error', (error) => end(networkError(url, error, isThrough ? undefined : route.proxy)));
    // A connection through the proxy that was open already has no other event.
    outgoing.on('socket', connected);
    outgoing.on('proxyConnect', ({ statusCode }: { readonly statusCode: number }) => {
      connected();
      if (statusCode !== 200) end(refusedByProxy(url, route.proxy, statusCode));
    });
    outgoing.on('response', (incoming) => receive(url, request, incoming, end));
    outgoing.end(body);
  });
}

/** Says what is waited for until there is a tunnel; the function that is returned ends that. */
function waitForProxy(url: URL, proxy: URL, signal: AbortSignal): () => void {
  const hint = `check HTTPS_PROXY, or name ${url.hostname} in NO_PROXY to reach it directly`;
  return startWait(signal, { name: `the proxy ${proxy.host} on the way to ${url.host}`, hint }, 'on');
}

function receive(
  url: URL,
  request: BoundedRequest,
  incoming: IncomingMessage,
  end: (outcome: OcicryptError | HttpResponse) => void,
): void {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const cut = (cause?: unknown) => {
    wipe(...chunks);
    end(brokenOff(url, cause));
  };
  incoming.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length <= request.maximumBytes) return;
    wipe(...chunks);
    end(answeredTooMuch(url, request.maximumBytes));
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
    end({ status: incoming.statusCode ?? 0, headers: flattenHeaders(incoming.headers), body });
  });
}

function flattenHeaders(headers: IncomingMessage['headers']): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}
