// Answers a registry's challenge: with a name and password, or a token of the server that it names.

import { bareHost, isLoopback } from '../../../base/address.ts';
import { asOcicryptError, OcicryptError } from '../../../base/errors.ts';
import type { HttpStreams, StreamResponse } from '../../../base/http/stream.ts';
import { asObject, asText, parseJson } from '../../../base/json.ts';
import { findMember } from '../../../base/json-members.ts';
import type { RegistryReference } from '../../model/reference.ts';
import { errorOf, quote, type Refusal, readBody, readRefusal } from './answers.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type CredentialSettings, findCredentials, type RegistryCredentials } from './credentials.ts';
import { exchange, type HeldRequest } from './exchange.ts';

const MAXIMUM_TOKEN_BYTES = 64 * 1024;

/** A refusal, and what was asked. */
export type RefusedRequest = {
  readonly refusal: Refusal;
  /** The authorization that was refused. */
  readonly sent: string | undefined;
  readonly isWrite: boolean;
  /** The address that refused. */
  readonly url: URL;
  readonly signal: AbortSignal | undefined;
};

/** What one repository has been shown of us. */
export class RegistryLogin {
  readonly #image: RegistryReference;
  readonly #settings: CredentialSettings;
  readonly #http: HttpStreams;
  readonly #askForChallenges: (signal: AbortSignal | undefined) => Promise<string>;
  /** All that was granted. It only grows, or a token for one request would lock out another. */
  #scopes: Scopes = new Map();
  #found: { readonly credentials: RegistryCredentials | undefined } | undefined;
  /** Why none can be found. */
  #failed: OcicryptError | undefined;
  #credentials: RegistryCredentials | undefined;
  #authorization: string | undefined;
  /** The one that was answered last. */
  #answered: Challenge | undefined;
  /** By `/v2/`, once it was asked. */
  #offered: readonly Challenge[] | undefined;
  #renewing: Promise<unknown> = Promise.resolve();

  /** @param askForChallenges the `www-authenticate` of `/v2/`, empty if it asks for nothing */
  constructor(
    image: RegistryReference,
    settings: CredentialSettings,
    http: HttpStreams,
    askForChallenges: (signal: AbortSignal | undefined) => Promise<string>,
  ) {
    this.#image = image;
    this.#settings = settings;
    this.#http = http;
    this.#askForChallenges = askForChallenges;
  }

  /** The header's value, once a challenge was answered. */
  get authorization(): string | undefined {
    return this.#authorization;
  }

  /** What must not be shown where a server repeats it. */
  get secrets(): readonly string[] {
    const credentials = this.#credentials;
    const own = credentials?.kind === 'password' ? [credentials.password, basic(credentials)] : [credentials?.token];
    return [...own, this.#authorization]
      .flatMap((secret) => secret?.replace(/^(?:Basic|Bearer) /, '') ?? [])
      .filter((secret) => secret !== '');
  }

  /**
   * Answers a refusal, one at a time; what another request has renewed meanwhile is as good, if it is for the same.
   * Registries hide what they have behind 403 and 404 too, and let everybody read what not everybody may write: what
   * `/v2/` asks for is shown to them then, and a token for more than reading if the registry refuses to store.
   *
   * @returns whether there is something else to show now
   * @throws OcicryptError `unauthenticated`, `configuration`, `unavailable`, `deadline-exceeded`
   */
  answer(refused: RefusedRequest): Promise<boolean> {
    const answered = this.#renewing.then(() => this.#answer(refused));
    this.#renewing = answered.catch(() => undefined);
    return answered;
  }

  /** That what there is of credentials is not enough. */
  error(refusal: Refusal): OcicryptError {
    const { host, name } = this.#image;
    const what = this.#credentials === undefined ? 'asks for credentials' : 'does not take the credentials';
    const challenges = parseChallenges(refusal.headers['www-authenticate'] ?? '');
    const schemes = challenges.map(({ scheme }) => scheme).filter((scheme) => !/^(?:basic|bearer)$/.test(scheme));
    if (schemes.length > 0 && schemes.length === challenges.length) {
      return new OcicryptError('unauthenticated', `${host} asks for a login by ${schemes.join(', ').slice(0, 80)}`, {
        hint: 'only Basic and Bearer are known here',
      });
    }
    // RFC 6750 section 3.1: the token is good, but not for this.
    const lacks = challenges.some(({ parameters }) => parameters.get('error') === 'insufficient_scope');
    if (this.#credentials !== undefined && lacks) {
      return new OcicryptError('refused', `${host}/${name} refuses access ${quote(refusal)}`, {
        hint: 'check the rights of the account in the registry',
      });
    }
    return new OcicryptError('unauthenticated', `${host} ${what} for ${host}/${name} ${quote(refusal)}`, {
      hint: `run: podman login ${host}`,
    });
  }

  async #answer(refused: RefusedRequest): Promise<boolean> {
    const { refusal, sent, isWrite, url, signal } = refused;
    const isChallenge = refusal.status === 401;
    const challenges = isChallenge ? parseChallenges(refusal.headers['www-authenticate'] ?? '') : [];
    if (!isChallenge && this.#authorization !== sent) return true;
    if (challenges.length === 0) challenges.push(...(await this.#whatElse(refused)));
    if (challenges.length === 0 && !isChallenge) return false;
    this.#credentials = await this.#find(signal);
    if (this.#credentials === undefined && !isChallenge) return false;
    const challenge = challenges.find((one) => this.#canAnswer(one, url)) ?? this.#refuse(challenges, refusal);
    const named = isChallenge ? challenge.parameters.get('scope') : undefined;
    const wanted = named || `repository:${this.#image.name}:${isWrite ? 'pull,push' : 'pull'}`;
    const scopes = addScopes(this.#scopes, wanted);
    if (this.#authorization !== sent && scopes === this.#scopes) return true;
    const authorization = await this.#authorize(challenge, scopes, signal);
    this.#scopes = scopes;
    this.#answered = challenge;
    this.#authorization = authorization;
    // A password that was refused is refused again.
    return authorization !== sent;
  }

  /** What could be answered if the refusal itself asks for nothing. */
  async #whatElse({ refusal, sent, isWrite, signal }: RefusedRequest): Promise<readonly Challenge[]> {
    if (refusal.status !== 401 && sent !== undefined) {
      const lacksPush = isWrite && this.#scopes.get(`repository:${this.#image.name}`)?.has('push') !== true;
      return lacksPush && this.#answered?.scheme === 'bearer' ? [this.#answered] : [];
    }
    try {
      this.#offered ??= parseChallenges(await this.#askForChallenges(signal));
      return this.#offered;
    } catch {
      // The refusal itself says more than this.
      return [];
    }
  }

  /**
   * Looks once, also if that fails: a helper that hangs would do so for each request. Again only if the request was ended
   * before, or the failure says that it may pass.
   */
  async #find(signal: AbortSignal | undefined): Promise<RegistryCredentials | undefined> {
    if (this.#failed !== undefined) throw this.#failed;
    try {
      this.#found ??= {
        credentials: await findCredentials(this.#image.host, this.#image.name, this.#settings, signal),
      };
      return this.#found.credentials;
    } catch (error) {
      const known = asOcicryptError(error);
      if (!known.retryable && signal?.aborted !== true) this.#failed = known;
      throw known;
    }
  }

  async #authorize(challenge: Challenge, scopes: Scopes, signal: AbortSignal | undefined): Promise<string> {
    const credentials = this.#credentials;
    if (credentials?.kind === 'registry-token') return `Bearer ${credentials.token}`;
    if (challenge.scheme === 'basic' && credentials?.kind === 'password') return basic(credentials);
    return `Bearer ${await this.#fetchToken(challenge, scopes, signal)}`;
  }

  #canAnswer({ scheme, parameters }: Challenge, registry: URL): boolean {
    if (scheme === 'basic') return this.#credentials?.kind === 'password';
    if (scheme === 'bearer' && this.#credentials?.kind === 'registry-token') return true;
    return scheme === 'bearer' && isTokenServer(URL.parse(parameters.get('realm') ?? ''), registry);
  }

  #refuse(challenges: readonly Challenge[], refusal: Refusal): never {
    if (challenges.some(({ scheme }) => scheme === 'bearer')) {
      throw new OcicryptError('unavailable', `${this.#image.host} names no token server with TLS`, {
        hint: 'credentials are not sent in clear: ask the operator of the registry',
      });
    }
    throw this.error(refusal);
  }

  /** https://distribution.github.io/distribution/spec/auth/token/ and, for identity tokens, …/auth/oauth/ */
  async #fetchToken({ parameters }: Challenge, scopes: Scopes, signal: AbortSignal | undefined): Promise<string> {
    const realm = new URL(parameters.get('realm') ?? '');
    const request = this.#tokenRequest(realm, parameters.get('service'), formatScopes(scopes));
    const response = await exchange(this.#http, { ...request, signal });
    if (response.status < 200 || response.status >= 300) {
      const refusal = await readRefusal(response, this.secrets);
      const isLogin = this.#credentials === undefined ? [400, 401, 403] : [400, 401];
      throw isLogin.includes(refusal.status) ? this.error(refusal) : errorOf(refusal, realm.host, false);
    }
    return readToken(response, realm.host);
  }

  #tokenRequest(realm: URL, service: string | undefined, scopes: readonly string[]): Omit<HeldRequest, 'signal'> {
    const credentials = this.#credentials;
    if (credentials?.kind === 'identity-token') {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        refresh_token: credentials.token,
        client_id: 'ocicrypt-kms',
        scope: scopes.join(' '),
        ...(service === undefined ? {} : { service }),
      });
      const body = new TextEncoder().encode(form.toString());
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      return { method: 'POST', url: realm, headers, body, isSecret: true };
    }
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set('service', service);
    for (const scope of scopes) url.searchParams.append('scope', scope);
    return {
      method: 'GET',
      url,
      headers: {},
      authorization: credentials?.kind === 'password' ? basic(credentials) : undefined,
    };
  }
}

/** @throws OcicryptError `unavailable`, for a page of a proxy too: of the image nothing is known by it */
async function readToken(response: StreamResponse, host: string): Promise<string> {
  let token: string | undefined;
  try {
    const answer = asObject(parseJson(await readBody(response, MAXIMUM_TOKEN_BYTES, host), 'answer'));
    token = answer && (asText(findMember(answer, 'token')) || asText(findMember(answer, 'access_token')));
  } catch (error) {
    if (asOcicryptError(error).code !== 'bad-input') throw error;
  }
  if (token !== undefined && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new OcicryptError('unavailable', `${host} answered without a token`, {
    hint: 'perhaps a proxy answered in its place: ask the operator of the registry',
  });
}

/** `TYPE:NAME`, or a scope of one word, as some registries have, to actions. */
type Scopes = ReadonlyMap<string, ReadonlySet<string>>;

/** With those of a challenge, which stand side by side; the same object if all are there. */
function addScopes(scopes: Scopes, added: string): Scopes {
  const all = new Map(scopes);
  for (const scope of added.split(' ')) {
    const [, thing = scope, actions = ''] = /^(.*):([^:]*)$/.exec(scope) ?? [];
    all.set(thing, new Set([...(all.get(thing) ?? []), ...actions.split(',').filter((action) => action !== '')]));
  }
  const isSame = [...all].every(([thing, actions]) => scopes.get(thing)?.size === actions.size);
  return isSame ? scopes : all;
}

function formatScopes(scopes: Scopes): readonly string[] {
  return [...scopes].map(([thing, actions]) => [thing, [...actions].join(',')].filter(Boolean).join(':'));
}

/** Credentials go to it: it has TLS, or is on this machine as the registry itself. */
function isTokenServer(realm: URL | null, registry: URL): boolean {
  if (realm === null || realm.username !== '' || realm.password !== '') return false;
  if (realm.protocol === 'https:') return true;
  return realm.protocol === 'http:' && registry.protocol === 'http:' && isLoopback(bareHost(realm));
}

function basic(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}
