// The only code that speaks to a registry: OCI distribution-spec 1.1 with basic and token authentication.

import { setTimeout as sleep } from 'node:timers/promises';
import { OcicryptError } from '../base/errors.ts';
import { type HttpSettings, parseRetryAfter } from '../base/http.ts';
import {
  createHttpStreams,
  type Exchange,
  type HttpStreams,
  type StreamRequest,
  type StreamResponse,
} from '../base/http-stream.ts';
import { asObject, asText, parseJson } from '../base/json.ts';
import { type CredentialSettings, findCredentials, type RegistryCredentials } from './credentials.ts';
import type { RegistryReference } from './reference.ts';
import { drain, readBody } from './registry-answers.ts';

export type RegistrySettings = HttpSettings & CredentialSettings;

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
const MAXIMUM_TOKEN = 64 * 1024;
const MAXIMUM_WAIT = 30_000;

/** One repository of one registry, with its credentials, its token and its connections. */
export class RegistryClient {
  readonly #image: RegistryReference;
  readonly #settings: RegistrySettings;
  readonly #http: HttpStreams;
  readonly #origin: string;
  #authorization: string | undefined;
  #authorizing: Promise<string> | undefined;
  #credentials: Promise<RegistryCredentials | undefined> | undefined;

  constructor(image: RegistryReference, settings: RegistrySettings) {
    this.#image = image;
    this.#settings = settings;
    this.#http = createHttpStreams(settings);
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

  /** A `Location` that the registry gave. On another host than the registry's it is sent no credential. */
  resolveLocation(response: StreamResponse, what: string): URL {
    const location = response.headers.location;
    const url = location === undefined ? undefined : URL.parse(location, `${this.#origin}/`);
    if (url?.protocol === 'https:' && url.username === '') return url;
    throw new OcicryptError('unavailable', `${this.name} did not say where to send ${what}`);
  }

  close(): void {
    this.#http.close();
  }

  async #authorized(request: RegistryRequest): Promise<StreamResponse> {
    const url = this.#resolve(request.target);
    const sent = this.#authorization;
    const first = await this.#send(request, url, this.#authorizationFor(url));
    if (first.status !== 401 || url.origin !== this.#origin) return this.#finish(request, first, url);
    await drain(first);
    const challenge = first.headers['www-authenticate'] ?? '';
    // Somebody else may have renewed the token while this request was under way, or be at it.
    if (this.#authorization === sent) {
      this.#authorizing ??= this.#authorize(challenge, request.signal).finally(() => {
        this.#authorizing = undefined;
      });
      this.#authorization = await this.#authorizing;
    }
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
    return url.origin === this.#origin && this.#authorization !== undefined
      ? { authorization: this.#authorization }
      : {};
  }

  async #authorize(challenge: string, signal: AbortSignal | undefined): Promise<string> {
    this.#credentials ??= findCredentials(this.#image.host, this.#image.name, this.#settings);
    const credentials = await this.#credentials;
    const [scheme = ''] = challenge.split(' ');
    if (scheme.toLowerCase() === 'basic' && credentials?.kind === 'password') return basic(credentials);
    if (scheme.toLowerCase() === 'bearer') return `Bearer ${await this.#fetchToken(challenge, credentials, signal)}`;
    throw this.#unauthenticated(credentials !== undefined);
  }

  /** https://distribution.github.io/distribution/spec/auth/token/ and, for identity tokens, …/auth/oauth/ */
  async #fetchToken(
    challenge: string,
    credentials: RegistryCredentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const parameters = parseChallenge(challenge);
    const realm = URL.parse(parameters.get('realm') ?? '');
    if (realm?.protocol !== 'https:') {
      throw new OcicryptError('unavailable', `${this.name} names no token server with TLS`, {
        hint: 'credentials are not sent in clear: ask the operator of the registry',
      });
    }
    const asked = new URLSearchParams();
    const service = parameters.get('service');
    if (service !== undefined) asked.set('service', service);
    // What the registry asks for, or all that we may come to need.
    asked.set('scope', parameters.get('scope') ?? `repository:${this.#image.name}:pull,push`);
    let request: StreamRequest;
    let body: Uint8Array | undefined;
    if (credentials?.kind === 'identity-token') {
      asked.set('grant_type', 'refresh_token');
      asked.set('refresh_token', credentials.token);
      asked.set('client_id', 'ocicrypt-kms');
      body = new TextEncoder().encode(asked.toString());
      const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(body.length) };
      request = { method: 'POST', url: realm, headers, signal };
    } else {
      for (const [name, value] of asked) realm.searchParams.set(name, value);
      const headers: Record<string, string> = credentials === undefined ? {} : { authorization: basic(credentials) };
      request = { method: 'GET', url: realm, headers, signal };
    }
    const exchange = await this.#http.open(request);
    if (body !== undefined) await exchange.write(body);
    const response = await exchange.answer();
    if (response.status === 401 || response.status === 403 || response.status === 400) {
      response.discard();
      throw this.#unauthenticated(credentials !== undefined);
    }
    this.check(response);
    const answer = asObject(parseJson(await readBody(response, MAXIMUM_TOKEN, realm.host), `answer of ${realm.host}`));
    const token = asText(answer?.get('token')) ?? asText(answer?.get('access_token'));
    if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) {
      throw new OcicryptError('unavailable', `${realm.host} answered without a token`);
    }
    return token;
  }

  #refusal(response: StreamResponse): OcicryptError {
    const { status } = response;
    if (status === 401) return this.#unauthenticated(true);
    if (status === 403) {
      return new OcicryptError('refused', `${this.name} refuses access`, {
        hint: 'check the rights of the account in the registry',
      });
    }
    if (status === 404) return new OcicryptError('not-found', `${this.name} is not there`, { hint: 'check the name' });
    const retryAfter = parseRetryAfter(response.headers);
    const details = { retryable: true, ...(retryAfter === undefined ? {} : { retryAfter }) };
    if (status === 429)
      return new OcicryptError('throttled', `${this.name} is being asked too often`, {
        ...details,
        hint: 'try again later',
      });
    if (status >= 500)
      return new OcicryptError('unavailable', `${this.name} fails (${status})`, {
        ...details,
        hint: 'try again later',
      });
    return new OcicryptError('unavailable', `${this.name} does not take this request (${status})`);
  }

  #unauthenticated(had: boolean): OcicryptError {
    const { host } = this.#image;
    return new OcicryptError(
      'unauthenticated',
      `${host} ${had ? 'does not take the credentials' : 'asks for credentials'} for ${this.name}`,
      {
        hint: `run: podman login ${host}`,
      },
    );
  }
}

function basic(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}

/** RFC 9110 section 11.6.1, as far as registries use it. */
function parseChallenge(challenge: string): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  for (const [, name = '', value = ''] of challenge.matchAll(/([a-zA-Z_]+)="([^"]*)"/g))
    parameters.set(name.toLowerCase(), value);
  return parameters;
}
