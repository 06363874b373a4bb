// Requests whose bodies are too large for memory, both ways: what registries need beside client.ts. Same trust, same proxies,
// same errors; redirects are handed to the caller, who alone knows what may follow them.

import { Agent, type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SecureContext } from 'node:tls';
import { OcicryptError } from '../errors.ts';
import { releaseBytes } from '../memory.ts';
import { checkHeaders } from './client.ts';
import { trustingContext } from './client-context.ts';
import type { HttpSettings } from './contract.ts';
import { brokenOff, deadlineExceeded, networkError, refusedByProxy } from './errors.ts';
import { chooseProxy } from './proxy.ts';
import { readRoots } from './roots.ts';
import { identityCheck } from './server-identity.ts';

/** What a client that streams trusts, how it reaches others, and when it gives a connection up. */
export type StreamSettings = HttpSettings & {
  /**
   * Milliseconds after which a connection is dead: without the head of an answer, or with less of its body than 1 KiB for
   * each second. 60 seconds if it is left out.
   */
  readonly idle?: number | undefined;
};

/** The head of a request whose body is sent in parts. */
export type StreamRequest = {
  readonly method: 'GET' | 'HEAD' | 'PATCH' | 'POST' | 'PUT';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Milliseconds to wait for the head of the answer, if that is not `idle`. */
  readonly patience?: number | undefined;
  readonly signal: AbortSignal | undefined;
};

/** The head of an answer, and its body as it comes. */
export type StreamResponse = {
  /** The status of HTTP, 100 to 599. */
  readonly status: number;
  /** Names in lower case; repeated headers are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /**
   * To be read to its end or given up with {@link discard}. A chunk is only there until the next is asked for. Throws
   * when the connection ends before the body does.
   */
  readonly body: AsyncIterable<Uint8Array>;
  /** Ends the exchange wherever it is. */
  discard(): void;
};

/** A request that is being sent. */
export interface Exchange {
  /**
   * Sends part of the body, of which a copy is made; resolves when more may come, or with an answer where the other side
   * did not wait for the whole: nothing more is sent then.
   */
  write(bytes: Uint8Array): Promise<StreamResponse | undefined>;
  /** Ends the body and waits for the head of the answer. */
  answer(): Promise<StreamResponse>;
  /** Ends the exchange wherever it is. */
  discard(): void;
}

/** Connections to registries, which stay open between requests. */
export interface HttpStreams {
  /** Starts a request; with `content-length` in its headers the body has that length, else it is sent in chunks. */
  open(request: StreamRequest): Promise<Exchange>;
  close(): void;
}

const IDLE_MILLISECONDS = 60_000;
/** Bytes a second, below which a body never ends: a drip of single bytes would keep a command for ever. */
const MINIMUM_RATE = 1024;
/** A server that answers for the whole body has it: what was sent of it counts as sent at once. */
const EARLY_MILLISECONDS = 250;

/**
 * Bun copies what a connection brings into memory of its own, and once more for the body, and sees late that it needs
 * none of it. Measured for 512 MiB: 118 MiB at the most and 0.51 s of processor time without giving it back at once, 54
 * and 0.39 with it; forced collections gave 65 and 1.15. Node reads into memory that it uses again.
 */
const RELEASES = 'bun' in process.versions;

/** A client that keeps connections alive. Opens nothing by itself. */
export function createHttpStreams(settings: StreamSettings = {}): HttpStreams {
  const environment = settings.environment ?? process.env;
  const plainAgent = new Agent({ keepAlive: true });
  const agents = new Map<string, Promise<Agent>>();
  let trust: Trust | undefined;

  async function findRoute(url: URL): Promise<Route> {
    if (url.protocol === 'http:') return { agent: plainAgent, proxy: undefined, trust: undefined };
    const proxy = chooseProxy(url.hostname.replace(/^\[(.*)\]$/, '$1'), Number(url.port || 443), environment);
    trust ??= createTrust(settings, environment);
    const agent = agents.get(proxy?.href ?? '') ?? createAgent(proxy, trust);
    agents.set(proxy?.href ?? '', agent);
    return { agent: await agent, trust, proxy };
  }

  return {
    async open(request) {
      request.signal?.throwIfAborted();
      checkHeaders(request.headers);
      return new RunningExchange(request, await findRoute(request.url), settings.idle ?? IDLE_MILLISECONDS);
    },
    close() {
      plainAgent.destroy();
      for (const agent of agents.values()) void agent.then((opened) => opened.destroy());
    },
  };
}

function createTrust(settings: HttpSettings, environment: NodeJS.ProcessEnv): Trust {
  const ca = readRoots(settings, environment);
  return {
    rejectUnauthorized: true,
    secureContext: trustingContext(ca),
    checkServerIdentity: identityCheck(),
  };
}

type Trust = {
  readonly rejectUnauthorized: true;
  readonly secureContext: SecureContext;
  readonly checkServerIdentity: ReturnType<typeof identityCheck>;
};
type Route = { readonly agent: Agent; readonly trust: Trust | undefined; readonly proxy: URL | undefined };

async function createAgent(proxy: URL | undefined, trust: Trust): Promise<Agent> {
  if (proxy === undefined) return new TlsAgent({ ...trust, keepAlive: true });
  const { HttpsProxyAgent } = await import('https-proxy-agent');
  return new HttpsProxyAgent(proxy, { ...trust, keepAlive: true });
}

class RunningExchange implements Exchange {
  readonly #url: URL;
  readonly #method: string;
  readonly #outgoing: ClientRequest;
  readonly #response: Promise<IncomingMessage>;
  readonly #fail: (error: unknown) => void;
  readonly #failed: Promise<never>;
  readonly #clean: () => void;
  readonly #idle: number;
  readonly #patience: number;
  #timer: NodeJS.Timeout | undefined;
  #sending = new Uint8Array(0);
  #answered: IncomingMessage | undefined;
  #early: Promise<StreamResponse> | undefined;

  constructor(request: StreamRequest, route: Route, idle: number) {
    const { url, signal } = request;
    const response = Promise.withResolvers<IncomingMessage>();
    const failed = Promise.withResolvers<never>();
    // A caller that waits hears of it; without one there is nothing to tell.
    failed.promise.catch(() => undefined);
    response.promise.catch(() => undefined);
    this.#idle = idle;
    this.#patience = request.patience ?? idle;
    this.#url = url;
    this.#method = request.method;
    this.#response = response.promise;
    this.#failed = failed.promise;
    this.#outgoing = (url.protocol === 'http:' ? plainRequest : tlsRequest)(url, {
      agent: route.agent,
      // Again here, because not every agent hands its own options to the connection.
      ...route.trust,
      method: request.method,
      headers: { 'user-agent': 'ocicrypt-kms', ...request.headers },
    });
    let isThrough = false;
    const abort = () => this.#fail(signal?.reason);
    this.#clean = () => {
      clearTimeout(this.#timer);
      signal?.removeEventListener('abort', abort);
    };
    this.#fail = (error) => {
      this.#clean();
      response.reject(error);
      failed.reject(error);
      this.#outgoing.destroy();
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#outgoing.on('error', (error) =>
      this.#fail(
        error instanceof OcicryptError ? error : networkError(url, error, isThrough ? undefined : route.proxy),
      ),
    );
    // A connection through the proxy that was open already has no other event.
    this.#outgoing.on('socket', () => {
      isThrough = true;
    });
    this.#outgoing.on('proxyConnect', ({ statusCode }: { readonly statusCode: number }) => {
      isThrough = true;
      if (statusCode !== 200) this.#fail(refusedByProxy(url, route.proxy, statusCode));
    });
    this.#outgoing.on('response', (incoming) => {
      this.#answered = incoming;
      response.resolve(incoming);
    });
  }

  async write(bytes: Uint8Array): Promise<StreamResponse | undefined> {
    if (this.#answered !== undefined) return this.#describe(this.#answered);
    // What is lent here may be where plaintext comes next, and when a runtime is done with bytes is its own business: it
    // gets memory that never holds anything but what is sent. Node and Bun call back when they are done with it.
    if (this.#sending.length < bytes.length) this.#sending = new Uint8Array(bytes.length);
    this.#sending.set(bytes);
    const sent = new Promise<undefined>((resolve) => {
      this.#outgoing.write(this.#sending.subarray(0, bytes.length), () => resolve(undefined));
    });
    // An answer in the middle of a body is a refusal: who would wait for the rest waits for ever.
    this.#early ??= this.#response.then((incoming) =>
      sleep(EARLY_MILLISECONDS, this.#describe(incoming), { ref: false }),
    );
    this.#wait(this.#idle);
    return Promise.race([sent, this.#early, this.#failed]).finally(() => clearTimeout(this.#timer));
  }

  async answer(): Promise<StreamResponse> {
    this.#wait(this.#patience);
    this.#outgoing.end();
    const incoming = await this.#response;
    clearTimeout(this.#timer);
    return this.#describe(incoming);
  }

  discard(): void {
    this.#clean();
    this.#outgoing.destroy();
  }

  #describe(incoming: IncomingMessage): StreamResponse {
    return {
      status: incoming.statusCode ?? 0,
      headers: flattenHeaders(incoming.headers),
      body: this.#read(incoming),
      discard: () => this.discard(),
    };
  }

  async *#read(incoming: IncomingMessage): AsyncGenerator<Uint8Array> {
    const announced = this.#method === 'HEAD' ? undefined : incoming.headers['content-length'];
    let length = 0;
    const { socket } = incoming;
    // What the connection has brought has been parsed and copied when this hears of it, unless it is of a later answer:
    // once this one is complete the connection may serve another, however slow the reader here is.
    const release = (received: Uint8Array) => {
      if (!incoming.complete) releaseBytes(received);
    };
    if (RELEASES) socket.on('data', release);
    const due = (MINIMUM_RATE * this.#idle) / 1000;
    let left = this.#idle;
    let received = 0;
    let since = this.#wait(left);
    try {
      for await (const chunk of incoming) {
        // Only waiting counts: how long the reader here takes for a chunk is not the other side's fault.
        clearTimeout(this.#timer);
        left -= performance.now() - since;
        length += chunk.length;
        received += chunk.length;
        if (received >= due) [left, received] = [this.#idle, 0];
        yield chunk;
        if (RELEASES) releaseBytes(chunk);
        since = this.#wait(left);
      }
    } catch (error) {
      await Promise.race([this.#failed, Promise.resolve()]);
      throw brokenOff(this.#url, error);
    } finally {
      socket.off('data', release);
      this.#clean();
    }
    await Promise.race([this.#failed, Promise.resolve()]);
    if (announced !== undefined && Number(announced) !== length) throw brokenOff(this.#url);
  }

  /** Gives the other side so many milliseconds from now, which it returns. */
  #wait(milliseconds: number): number {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(deadlineExceeded(this.#url)), milliseconds);
    return performance.now();
  }
}

function flattenHeaders(headers: IncomingMessage['headers']): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return flat;
}
