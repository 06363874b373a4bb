// Speaks to a registry: OCI distribution-spec 1.1 with basic and token authentication.

import { bareHost, isLoopback } from '../../../base/address.ts';
import { asOcicryptError, OcicryptError } from '../../../base/errors.ts';
import { isPlaintextAnswer } from '../../../base/http/errors.ts';
import {
  createHttpStreams,
  type Exchange,
  type HttpStreams,
  type StreamRequest,
  type StreamResponse,
  type StreamSettings,
} from '../../../base/http/stream.ts';
import { DOCKER_HUB, type RegistryReference } from '../../model/reference.ts';
import { retry } from '../../retry.ts';
import { drain, errorOf, type Refusal, readBody, readRefusal } from './answers.ts';
import type { CredentialSettings } from './credentials.ts';
import { exchange, type LocatedResponse, resolveAddress } from './exchange.ts';
import { RegistryLogin } from './login.ts';

/** How registries are reached, and with which logins. */
export type RegistrySettings = StreamSettings &
  CredentialSettings & {
    /** Connections that several images share, which stay open; the settings of how they are made are of no effect then. */
    readonly streams?: HttpStreams | undefined;
  };

/** A request below `/v2/NAME/`, or to an address that the registry gave. */
export type RegistryRequest = Pick<StreamRequest, 'method' | 'patience'> & {
  readonly target: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** Statuses of 400 and above that are no error to the caller. */
  readonly accept?: readonly number[];
};

/** For one request: what another has got meanwhile, and then what this one needs. */
const LOGINS = 2;

/** One repository of one registry, with its credentials, its token and its connections. */
export class RegistryClient {
  readonly #image: RegistryReference;
  readonly #http: HttpStreams;
  readonly #isShared: boolean;
  readonly #login: RegistryLogin;
  /** Of the registry; `http:` once a host of this machine has answered without TLS. */
  #base: URL;

  constructor(image: RegistryReference, settings: RegistrySettings) {
    this.#image = image;
    this.#isShared = settings.streams !== undefined;
    this.#http = settings.streams ?? createHttpStreams(settings);
    this.#login = new RegistryLogin(image, settings, this.#http, (signal) => this.#askForChallenges(signal));
    this.#base = new URL(`https://${image.host === DOCKER_HUB ? 'registry-1.docker.io' : image.host}/v2/`);
  }

  /** Host and repository, for messages. */
  get name(): string {
    return `${this.#image.host}/${this.#image.name}`;
  }

  /**
   * Makes a request; repeats it when the registry is busy or a connection breaks before the answer, logs in when that is
   * asked for, and follows redirects.
   *
   * @returns an answer of 200 to 299, or one that is accepted
   * @throws OcicryptError
   */
  request(request: RegistryRequest): Promise<LocatedResponse> {
    return retry((signal) => this.requestOnce({ ...request, signal }), request.signal);
  }

  /** The same without repetition. */
  async requestOnce(request: RegistryRequest): Promise<LocatedResponse> {
    const answer = await this.#send(request);
    if ('refusal' in answer) throw this.#errorOf(answer.refusal, isWrite(request));
    return answer;
  }

  /** Makes a request and reads its answer of at most `maximum` bytes. */
  fetch(request: RegistryRequest, maximum: number): Promise<LocatedResponse & { readonly bytes: Uint8Array }> {
    return retry(async (signal) => {
      const response = await this.request({ ...request, signal });
      return { ...response, bytes: await readBody(response, maximum, this.name) };
    }, request.signal);
  }

  /** Starts a request whose body is streamed, with the credentials that earlier requests have found to be needed. */
  async open(
    request: Pick<RegistryRequest, 'method' | 'headers' | 'signal'> & { readonly target: URL },
  ): Promise<Exchange> {
    const { method, target: url, headers, signal } = request;
    const authorization = this.#authorizationFor(url);
    return this.#http.open({
      method,
      url,
      headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
      signal,
    });
  }

  /**
   * The answer to {@link open}. Its session may have been lost, or its token have expired in the middle: worth a second
   * try, which begins with requests that renew both.
   */
  async checkStreamed<Response extends StreamResponse>(response: Response): Promise<Response> {
    if (isSuccess(response)) return response;
    const error = this.#errorOf(await readRefusal(response, this.#login.secrets), true);
    throw [401, 404].includes(response.status) ? error.with({ retryable: true }) : error;
  }

  /** The error of an answer to {@link open} that came before the whole was sent, whatever it says. Ends the exchange. */
  async refusalOfPart(response: StreamResponse): Promise<OcicryptError> {
    try {
      await this.checkStreamed(response);
    } catch (error) {
      return asOcicryptError(error);
    } finally {
      response.discard();
    }
    return new OcicryptError('unavailable', `${this.name} did not wait for the whole of a blob`, { retryable: true });
  }

  /** Where the answer to a request sends a blob to. On another host than the registry's it is sent no credential. */
  resolveLocation(response: StreamResponse, from: URL): URL {
    return resolveAddress(response.headers.location, from);
  }

  close(): void {
    if (!this.#isShared) this.#http.close();
  }

  /** An answer that the caller wants, or a refusal by which no login helps. */
  async #send(request: RegistryRequest): Promise<LocatedResponse | { readonly refusal: Refusal }> {
    for (let logins = 0; ; logins++) {
      const sent = this.#login.authorization;
      const response = await this.#reach(request);
      if (isSuccess(response)) return response;
      const refusal = await readRefusal(response, this.#login.secrets);
      const { status, url } = response;
      // Another host is shown nothing: not a word of its is a question to us.
      const asks = [401, 403, 404].includes(status) && url.origin === this.#base.origin && logins < LOGINS;
      const refused = { refusal, sent, isWrite: isWrite(request), url, signal: request.signal };
      if (asks && (await this.#login.answer(refused))) continue;
      return request.accept?.includes(status) ? response : { refusal };
    }
  }

  /** With TLS; a host of this machine may do without it, as key services there may. */
  async #reach(request: RegistryRequest): Promise<LocatedResponse> {
    const base = this.#base;
    try {
      return await this.#exchange(request);
    } catch (error) {
      const mayBePlain = base.protocol === 'https:' && isLoopback(bareHost(base)) && !(request.target instanceof URL);
      if (!mayBePlain || !isPlaintextAnswer(error)) throw error;
      this.#base = new URL(base.href.replace('https:', 'http:'));
      return this.#exchange(request);
    }
  }

  #exchange({ method, target, headers = {}, body, patience, signal }: RegistryRequest): Promise<LocatedResponse> {
    const url = target instanceof URL ? target : new URL(`${this.#image.name}/${target}`, this.#base);
    const authorization = this.#authorizationFor(url);
    return exchange(this.#http, { method, url, headers, body, patience, signal, authorization });
  }

  async #askForChallenges(signal: AbortSignal | undefined): Promise<string> {
    const response = await exchange(this.#http, { method: 'GET', url: this.#base, headers: {}, signal });
    await drain(response);
    const isAsking = response.status === 401 && response.url.origin === this.#base.origin;
    return isAsking ? (response.headers['www-authenticate'] ?? '') : '';
  }

  #authorizationFor(url: URL): string | undefined {
    return url.origin === this.#base.origin ? this.#login.authorization : undefined;
  }

  #errorOf(refusal: Refusal, write: boolean): OcicryptError {
    return refusal.status === 401 ? this.#login.error(refusal) : errorOf(refusal, this.name, write);
  }
}

function isSuccess({ status }: StreamResponse): boolean {
  return status >= 200 && status < 300;
}

function isWrite({ method }: RegistryRequest): boolean {
  return method !== 'GET' && method !== 'HEAD';
}
