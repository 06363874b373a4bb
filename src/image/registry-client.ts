// The only code that speaks to a registry: OCI distribution-spec 1.1 with basic and token authentication.

import { setTimeout as sleep } from 'node:timers/promises';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import {
  createHttpStreams,
  type Exchange,
  type HttpStreams,
  type StreamRequest,
  type StreamResponse,
  type StreamSettings,
} from '../base/http-stream.ts';
import type { CredentialSettings } from './credentials.ts';
import type { RegistryReference } from './reference.ts';
import { drain, readBody, refusalOf } from './registry-answers.ts';
import { RegistryLogin } from './registry-login.ts';

export type RegistrySettings = StreamSettings & CredentialSettings;

/** A request below `/v2/NAME/`, or to a `Location` that the registry gave. */
export type RegistryRequest = {
  readonly method: StreamRequest['method'];
  readonly target: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
};

const ATTEMPTS = 4;
const REDIRECTS = 4;
const MAXIMUM_WAIT = 30_000;

/** One repository of one registry, with its credentials, its token and its connections. */
export class RegistryClient {
  readonly #image: RegistryReference;
  readonly #http: HttpStreams;
  readonly #origin: string;
  readonly #login: RegistryLogin;

  constructor(image: RegistryReference, settings: RegistrySettings) {
    this.#image = image;
    this.#http = createHttpStreams(settings);
    this.#login = new RegistryLogin(image, settings, this.#http);
    this.#origin = `https://${image.host === 'docker.io' ? 'registry-1.docker.io' : image.host}`;
  }

  /** Host and repository, for messages. */
  get name(): string {
    return `${this.#image.host}/${this.#image.name}`;
  }

  /**
   * Makes a request; repeats it when the registry is busy or a connection breaks before the answer, asks for a token
   * when one is needed, and follows the redirects of a GET or HEAD without any credential.
   *
   * @returns an answer of 200 to 299, or 404
   * @throws OcicryptError
   */
  async request(request: RegistryRequest): Promise<StreamResponse> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#authorized(request);
      } catch (error) {
        if (!(error instanceof OcicryptError && error.retryable) || attempt === ATTEMPTS) throw error;
        const wait = error.retryAfter ?? 200 * 2 ** attempt * (0.5 + Math.random());
        await sleep(
          Math.min(wait, MAXIMUM_WAIT),
          undefined,
          request.signal === undefined ? {} : { signal: request.signal },
        );
      }
    }
  }

  /** Makes a request and reads its answer of at most `maximum` bytes. */
  async fetch(request: RegistryRequest, maximum: number): Promise<StreamResponse & { readonly bytes: Uint8Array }> {
    for (let attempt = 1; ; attempt++) {
      const response = await this.request(request);
      try {
        return { ...response, bytes: await readBody(response, maximum, this.name) };
      } catch (error) {
        if (!(error instanceof OcicryptError && error.retryable) || attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** Starts a request whose body is streamed, with the credentials that earlier requests have found to be needed. */
  async open(request: Omit<RegistryRequest, 'body'>): Promise<Exchange> {
    const url = this.#resolve(request.target);
    return this.#http.open({
      method: request.method,
      url,
      headers: { ...request.headers, ...this.#authorizationFor(url) },
      signal: request.signal,
    });
  }

  /** Turns an answer that is no success into an error, as {@link request} does. */
  check(response: StreamResponse, accept404 = false): StreamResponse {
    if (response.status >= 200 && response.status < 300) return response;
    if (response.status === 404 && accept404) return response;
    response.discard();
    throw this.#refusal(response);
  }

  /**
   * The same for an answer to {@link open}. Its session may have been lost, or its token have expired in the middle:
   * worth a second try, which begins with requests that renew both.
   */
  checkStreamed(response: StreamResponse): StreamResponse {
    if (response.status !== 401 && response.status !== 404) return this.check(response);
    response.discard();
    const { code, message, hint = '' } = this.#refusal(response);
    throw new OcicryptError(code, message, { hint, retryable: true });
  }

  /** The error of an answer to {@link open} that came before the whole was sent, whatever it says. Ends the exchange. */
  refusalOfPart(response: StreamResponse): OcicryptError {
    try {
      this.checkStreamed(response).discard();
    } catch (error) {
      return asOcicryptError(error);
    }
    return new OcicryptError('unavailable', `${this.name} did not wait for the whole of a blob`, { retryable: true });
  }

  /** Where the answer to a request sends a blob to. On another host than the registry's it is sent no credential. */
  resolveLocation(response: StreamResponse, target: string | URL): URL {
    const location = response.headers.location;
    const url = location === undefined ? undefined : URL.parse(location, this.#resolve(target).href);
    if (url?.protocol === 'https:' && url.username === '') return url;
    throw new OcicryptError('unavailable', `${this.name} did not say where to send a blob`);
  }

  close(): void {
    this.#http.close();
  }

  async #authorized(request: RegistryRequest): Promise<StreamResponse> {
    const url = this.#resolve(request.target);
    const sent = this.#login.authorization;
    const first = await this.#send(request, url, this.#authorizationFor(url));
    if (first.status !== 401 || url.origin !== this.#origin) return this.#finish(request, first, url);
    await drain(first);
    await this.#login.renew(first.headers['www-authenticate'] ?? '', sent, request.signal);
    return this.#finish(request, await this.#send(request, url, this.#authorizationFor(url)), url);
  }

  async #finish(request: RegistryRequest, response: StreamResponse, from: URL): Promise<StreamResponse> {
    let answer = response;
    let url = from;
    for (let hops = 0; answer.status >= 300 && answer.status < 400; hops++) {
      await drain(answer);
      const next = URL.parse(answer.headers.location ?? '', url.href);
      const follows = request.method === 'GET' || request.method === 'HEAD';
      if (!follows || hops === REDIRECTS || next?.protocol !== 'https:') {
        throw new OcicryptError('unavailable', `${url.host} answered with a redirect that is not followed`);
      }
      url = next;
      // A credential is for the host that it was filed under; storage behind a registry has its own in the address.
      answer = await this.#send(request, url, {});
    }
    return this.check(answer, true);
  }

  async #send(
    request: RegistryRequest,
    url: URL,
    authorization: Readonly<Record<string, string>>,
  ): Promise<StreamResponse> {
    const { body } = request;
    const length =
      body === undefined && request.method !== 'POST' ? {} : { 'content-length': String(body?.length ?? 0) };
    const exchange = await this.#http.open({
      method: request.method,
      url,
      headers: { ...request.headers, ...length, ...authorization },
      signal: request.signal,
    });
    if (body !== undefined && body.length > 0) await exchange.write(body);
    return exchange.answer();
  }

  #resolve(target: string | URL): URL {
    return target instanceof URL ? target : new URL(`${this.#origin}/v2/${this.#image.name}/${target}`);
  }

  #authorizationFor(url: URL): Readonly<Record<string, string>> {
    const { authorization } = this.#login;
    return url.origin === this.#origin && authorization !== undefined ? { authorization } : {};
  }

  #refusal(response: StreamResponse): OcicryptError {
    const { status, headers } = response;
    // RFC 6750 section 3.1: the token is good, but not for this.
    const lacks = this.#login.hasCredentials && /error="insufficient_scope"/.test(headers['www-authenticate'] ?? '');
    if (status === 401 && !lacks) return this.#login.refusal();
    if (status === 401 || status === 403) {
      return new OcicryptError('refused', `${this.name} refuses access`, {
        hint: 'check the rights of the account in the registry',
      });
    }
    if (status === 404) return new OcicryptError('not-found', `${this.name} is not there`, { hint: 'check the name' });
    return refusalOf(response, this.name);
  }
}
