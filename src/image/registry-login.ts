// The only code that answers a registry's challenge: with a name and password, or a token of the server that it names.

import { OcicryptError } from '../base/errors.ts';
import type { HttpStreams, StreamRequest } from '../base/http-stream.ts';
import { asObject, asText, parseJson } from '../base/json.ts';
import { type CredentialSettings, findCredentials, type RegistryCredentials } from './credentials.ts';
import type { RegistryReference } from './reference.ts';
import { readBody, refusalOf } from './registry-answers.ts';

const MAXIMUM_TOKEN = 64 * 1024;

/** What one repository has been shown of us. */
export class RegistryLogin {
  readonly #image: RegistryReference;
  readonly #settings: CredentialSettings;
  readonly #http: HttpStreams;
  /** `TYPE:NAME`, or another scope, to actions: all that was asked for. It only grows, or a token for one request would lock out another. */
  readonly #scopes = new Map<string, Set<string>>();
  #credentials: RegistryCredentials | undefined;
  #authorization: string | undefined;
  #renewing: Promise<void> = Promise.resolve();

  constructor(image: RegistryReference, settings: CredentialSettings, http: HttpStreams) {
    this.#image = image;
    this.#settings = settings;
    this.#http = http;
  }

  /** The header's value, once a challenge was answered. */
  get authorization(): string | undefined {
    return this.#authorization;
  }

  /** Whether there are credentials for this repository. Known once a challenge was answered. */
  get hasCredentials(): boolean {
    return this.#credentials !== undefined;
  }

  /**
   * Answers a challenge, one at a time; what another request has renewed meanwhile is as good, if it is for the same.
   *
   * @param challenge `www-authenticate` of the refusal
   * @param sent the authorization that was refused
   * @throws OcicryptError `unauthenticated`, `configuration`, `unavailable`
   */
  renew(challenge: string, sent: string | undefined, signal: AbortSignal | undefined): Promise<void> {
    const parameters = parseChallenge(challenge);
    const renewed = this.#renewing.then(async () => {
      // What the registry asks for, or all that we may come to need.
      const isNew = this.#addScopes(parameters.get('scope') || `repository:${this.#image.name}:pull,push`);
      if (this.#authorization !== sent && !isNew) return;
      this.#credentials ??= await findCredentials(this.#image.host, this.#image.name, this.#settings);
      const scheme = challenge.split(' ')[0]?.toLowerCase();
      if (scheme === 'basic' && this.#credentials?.kind === 'password') this.#authorization = basic(this.#credentials);
      else if (scheme === 'bearer') this.#authorization = `Bearer ${await this.#fetchToken(parameters, signal)}`;
      else throw this.refusal();
    });
    this.#renewing = renewed.catch(() => undefined);
    return renewed;
  }

  /** That what there is of credentials is not enough. */
  refusal(): OcicryptError {
    const { host, name } = this.#image;
    const what = this.hasCredentials ? 'does not take the credentials' : 'asks for credentials';
    return new OcicryptError('unauthenticated', `${host} ${what} for ${host}/${name}`, {
      hint: `run: podman login ${host}`,
    });
  }

  /** Scopes are `TYPE:NAME:ACTION,…` and stand side by side; some registries have scopes of one word. */
  #addScopes(scopes: string): boolean {
    let isNew = false;
    for (const scope of scopes.split(' ')) {
      const [, thing = scope, actions = ''] = /^(.*):([^:]*)$/.exec(scope) ?? [];
      const before = this.#scopes.get(thing);
      const after = new Set([...(before ?? []), ...actions.split(',').filter((action) => action !== '')]);
      this.#scopes.set(thing, after);
      isNew ||= after.size !== before?.size;
    }
    return isNew;
  }

  /** https://distribution.github.io/distribution/spec/auth/token/ and, for identity tokens, …/auth/oauth/ */
  async #fetchToken(parameters: ReadonlyMap<string, string>, signal: AbortSignal | undefined): Promise<string> {
    const realm = URL.parse(parameters.get('realm') ?? '');
    if (realm?.protocol !== 'https:') {
      throw new OcicryptError('unavailable', `${this.#image.host} names no token server with TLS`, {
        hint: 'credentials are not sent in clear: ask the operator of the registry',
      });
    }
    const { body, ...request } = this.#tokenRequest(realm, parameters.get('service'));
    const exchange = await this.#http.open({ ...request, signal });
    if (body !== undefined) await exchange.write(body);
    const response = await exchange.answer();
    if (response.status < 200 || response.status >= 300) {
      response.discard();
      throw [400, 401, 403].includes(response.status) ? this.refusal() : refusalOf(response, realm.host);
    }
    const answer = asObject(parseJson(await readBody(response, MAXIMUM_TOKEN, realm.host), `answer of ${realm.host}`));
    const token = asText(answer?.get('token')) ?? asText(answer?.get('access_token'));
    if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) {
      throw new OcicryptError('unavailable', `${realm.host} answered without a token`);
    }
    return token;
  }

  #tokenRequest(
    realm: URL,
    service: string | undefined,
  ): Omit<StreamRequest, 'signal'> & { readonly body?: Uint8Array } {
    const scopes = [...this.#scopes].map(([thing, actions]) =>
      [thing, [...actions].join(',')].filter(Boolean).join(':'),
    );
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
      const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(body.length) };
      return { method: 'POST', url: realm, headers, body };
    }
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set('service', service);
    for (const scope of scopes) url.searchParams.append('scope', scope);
    return { method: 'GET', url, headers: credentials === undefined ? {} : { authorization: basic(credentials) } };
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
