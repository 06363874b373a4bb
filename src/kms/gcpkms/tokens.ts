// Tokens that Google's token services give: for the login of a user, for a workload of another cloud, and for service
// accounts that these impersonate. One or two requests each, so that Google's library, which takes as long to load as
// all of them, is for the sources that are left.

import type { HttpClient } from '../../base/http/contract.ts';
import { asNumber, asText, type JsonObject, readObject } from '../../base/json.ts';
import { type NewToken, TokenCache } from '../token-cache.ts';
import { type CredentialsJson, invalidFile, isCredentialsJson, readCredentials, UNIVERSE } from './credentials-file.ts';
import { readServiceAccount } from './service-account.ts';
import { readSubject, readSubjectSource } from './subject-token.ts';
import { askTokenService, noToken, postForm, RESERVE_MILLISECONDS, SCOPE } from './token-service.ts';

/** Asks for a token, as the value of `authorization`. */
type Ask = (http: HttpClient, signal: AbortSignal) => Promise<NewToken<string>>;

/**
 * Opens the credentials of a file whose tokens come from somebody else.
 *
 * @param path of the file, for errors, and to read it again for each token: it may have been renewed
 * @param json what the file holds
 * @throws OcicryptError `configuration` for what Google's tools would not write, and sources that cannot be used
 */
export async function openTokens(
  path: string,
  json: CredentialsJson,
  http: HttpClient,
  environment: NodeJS.ProcessEnv,
  now?: () => number,
): Promise<TokenCache<string>> {
  if (isForLibrary(json)) {
    const { openLibraryCredentials } = await import('./library-tokens.ts');
    return openLibraryCredentials(path, json, http, environment, now);
  }
  let known: Ask | undefined = readSource(path, json);
  return new TokenCache((signal) => {
    const ask = known ?? readSource(path, readCredentials(path));
    known = undefined;
    return ask(http, signal);
  }, now);
}

/** Whether the subject token comes from an executable, from AWS or from a certificate, or is that of a person. */
function isForLibrary({
  type,
  credential_source: source,
  source_credentials: inner,
  ...more
}: CredentialsJson): boolean {
  if (type === 'impersonated_service_account') return isCredentialsJson(inner) && isForLibrary(inner);
  if (type !== 'external_account') return type === 'external_account_authorized_user';
  if ('workforce_pool_user_project' in more || typeof source !== 'object' || source === null) return true;
  return ['certificate', 'environment_id', 'executable'].some((member) => member in source);
}

/** @throws OcicryptError `configuration` */
function readSource(path: string, json: CredentialsJson): Ask {
  const source = isForLibrary(json) ? undefined : SOURCES[json.type]?.(path, json);
  if (source === undefined) throw invalidFile(path);
  return source;
}

const SOURCES: Readonly<Record<string, (path: string, json: CredentialsJson) => Ask | undefined>> = {
  service_account: (_, json) => readServiceAccount(json, SCOPE),
  authorized_user: readUser,
  external_account: readWorkload,
  impersonated_service_account(path, { source_credentials: inner, ...json }) {
    const target = readTarget(json);
    return isCredentialsJson(inner) && target !== undefined
      ? impersonate(path, target, readSource(path, inner))
      : undefined;
  },
};

/** RFC 6749 section 6. */
function readUser(path: string, json: CredentialsJson): Ask | undefined {
  const { client_id: client, client_secret: secret, refresh_token: refresh } = json;
  if (typeof client !== 'string' || typeof secret !== 'string' || typeof refresh !== 'string') return undefined;
  const form = { grant_type: 'refresh_token', client_id: client, client_secret: secret, refresh_token: refresh };
  const service = new URL('https://oauth2.googleapis.com/token');
  return async (http, signal) => readGrant(path, await postForm(http, service, form, {}, signal));
}

/** RFC 8693, and https://google.aip.dev/auth/4117. */
function readWorkload(path: string, json: CredentialsJson): Ask | undefined {
  const { audience, subject_token_type: type, universe_domain: universe = UNIVERSE, client_id: client } = json;
  const subject = readSubjectSource(json.credential_source);
  const { token_url: service = `https://sts.${universe}/v1/token`, client_secret: secret = '' } = json;
  if (subject === undefined || typeof audience !== 'string' || typeof type !== 'string' || !isAddress(service)) {
    return undefined;
  }
  const headers =
    typeof client === 'string'
      ? { authorization: `Basic ${Buffer.from(`${client}:${secret}`).toString('base64')}` }
      : {};
  const ask: Ask = async (http, signal) => {
    const token = await readSubject(subject, http, signal);
    if (token === undefined) throw noToken(path);
    const form = {
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      ...{ audience, scope: SCOPE },
      requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      ...{ subject_token: token, subject_token_type: type },
    };
    return readGrant(path, await postForm(http, new URL(service), form, headers, signal));
  };
  if (json.service_account_impersonation_url === undefined) return ask;
  const target = readTarget(json);
  return target && impersonate(path, target, ask);
}

type Target = { readonly url: URL; readonly body: Readonly<Record<string, unknown>> };

/** Who is impersonated, and for how long. */
function readTarget({
  service_account_impersonation_url: url,
  ...json
}: Readonly<Record<string, unknown>>): Target | undefined {
  if (!isAddress(url) || !/\/[^/]+:generateAccessToken$/.test(url)) return undefined;
  const { delegates, service_account_impersonation: options } = json;
  const seconds =
    typeof options === 'object' && options !== null && 'token_lifetime_seconds' in options
      ? options.token_lifetime_seconds
      : undefined;
  const body = {
    ...(Array.isArray(delegates) && delegates.length > 0 ? { delegates } : {}),
    scope: [SCOPE],
    lifetime: `${typeof seconds === 'number' ? seconds : 3600}s`,
  };
  return { url: new URL(url), body };
}

/** https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken */
function impersonate(path: string, { url, body }: Target, source: Ask): Ask {
  return async (http, signal) => {
    const { token: authorization } = await source(http, signal);
    const headers = { authorization, 'content-type': 'application/json', accept: 'application/json' };
    const answer = await askTokenService(http, url, {
      ...{ method: 'POST', headers, signal },
      body: Buffer.from(JSON.stringify(body)),
    });
    const said = readObject(answer.body);
    const end = Date.parse(asText(said?.get('expireTime')) ?? '');
    return newToken(path, asText(said?.get('accessToken')), Number.isNaN(end) ? undefined : end - Date.now());
  };
}

/** RFC 6749 section 5.1. */
function readGrant(path: string, said: JsonObject | undefined): NewToken<string> {
  const seconds = said?.get('expires_in');
  const lifetime = asNumber(seconds) ?? Number.parseInt(asText(seconds) ?? '', 10);
  return newToken(path, asText(said?.get('access_token')), Number.isNaN(lifetime) ? undefined : lifetime * 1000);
}

function newToken(path: string, token: string | undefined, lifetime = Number.POSITIVE_INFINITY): NewToken<string> {
  if (token === undefined || !/^[!-~]+$/.test(token)) throw noToken(path);
  return { token: `Bearer ${token}`, lifetime, reserve: RESERVE_MILLISECONDS };
}

function isAddress(value: unknown): value is string {
  return typeof value === 'string' && URL.canParse(value);
}
