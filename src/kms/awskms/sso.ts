// Sessions of IAM Identity Center that `aws sso login` has opened: renewed as the CLI does, and exchanged for a role's keys.
// https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html
// https://docs.aws.amazon.com/singlesignon/latest/OIDCAPIReference/API_CreateToken.html
//
// Not by AWS's SDK, which remembers a renewal that failed for half a minute and asks for none meanwhile.

import { createHash, randomUUID } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asObject, asText, type JsonObject, readObject } from '../../base/json.ts';
import { type AwsIdentity, type AwsSso, checkIdentity } from './identity.ts';
import { refused } from './metadata.ts';
import { homeOf } from './profiles.ts';

/** Where both of its services are in a region. */
export type SsoEndpoints = { readonly portal: string; readonly oidc: string };

/** As long before its end as AWS's tools renew a session. */
const RENEW_MILLISECONDS = 5 * 60 * 1000;

/** @throws OcicryptError `unauthenticated` with the login to run, `unavailable` */
export async function readSsoCredentials(
  sso: AwsSso,
  { portal, oidc }: SsoEndpoints,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const token = await findToken(sso, oidc, environment, http, signal);
  const query = new URLSearchParams({ role_name: sso.role, account_id: sso.account });
  const answer = await http.request({
    method: 'GET',
    url: `${portal}/federation/credentials?${query}`,
    headers: { 'x-amz-sso_bearer_token': token, accept: 'application/json' },
    signal,
    role: 'token service',
  });
  if (answer.status === 401) throw ended(sso, 'is not valid any more');
  const source = `the token service ${new URL(portal).host}`;
  if (answer.status !== 200) {
    throw refused(
      source,
      answer,
      `check sso_account_id and sso_role_name of profile ${sso.profile}: the role must be assigned to you`,
    );
  }
  const keys = asObject(readObject(answer.body)?.get('roleCredentials'));
  const end = keys?.get('expiration');
  return checkIdentity(source, {
    accessKeyId: asText(keys?.get('accessKeyId')),
    secretAccessKey: asText(keys?.get('secretAccessKey')),
    sessionToken: asText(keys?.get('sessionToken')),
    expiration: typeof end === 'number' ? new Date(end).toISOString() : undefined,
  });
}

/** The session's token; one that ends soon is renewed if the session can be. */
async function findToken(
  sso: AwsSso,
  oidc: string,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<string> {
  const file = cacheFile(sso, environment);
  const cached = readCache(file);
  const token = asText(cached?.get('accessToken'));
  const end = Date.parse(asText(cached?.get('expiresAt')) ?? '');
  if (cached === undefined || token === undefined || Number.isNaN(end) || !/^[!-~]{1,16384}$/.test(token)) {
    throw ended(sso, 'was never opened here');
  }
  const remaining = end - Date.now();
  const proof = ['clientId', 'clientSecret', 'refreshToken'].map((name) => asText(cached.get(name)));
  const [clientId, clientSecret, refreshToken] = proof;
  if (remaining > RENEW_MILLISECONDS) return token;
  if (sso.session === undefined || !clientId || !clientSecret || !refreshToken) {
    if (remaining > 0) return token;
    throw ended(sso, 'has expired');
  }
  try {
    return await renew(sso, { file, cached, oidc, form: { clientId, clientSecret, refreshToken } }, http, signal);
  } catch (error) {
    if (remaining > 0 && !signal.aborted) return token;
    throw error;
  }
}

type Renewal = {
  readonly file: string;
  readonly cached: JsonObject;
  readonly oidc: string;
  readonly form: Readonly<Record<string, string>>;
};

async function renew(sso: AwsSso, { file, cached, oidc, form }: Renewal, http: HttpClient, signal: AbortSignal) {
  const answer = await http.request({
    method: 'POST',
    url: `${oidc}/token`,
    headers: { 'content-type': 'application/json' },
    body: new TextEncoder().encode(JSON.stringify({ ...form, grantType: 'refresh_token' })),
    signal,
    role: 'token service',
  });
  if (answer.status === 400 || answer.status === 401) throw ended(sso, 'has expired and cannot be renewed');
  if (answer.status !== 200) throw refused(`the token service ${new URL(oidc).host}`, answer, loginHint(sso));
  return keep(sso, file, cached, answer);
}

/** A session's old token to renew with may end with its use: the CLI must find the new one. */
function keep(sso: AwsSso, file: string, cached: JsonObject, { body }: HttpResponse): string {
  const message = readObject(body);
  const token = asText(message?.get('accessToken'));
  const seconds = message?.get('expiresIn');
  if (token === undefined || !/^[!-~]{1,16384}$/.test(token) || typeof seconds !== 'number') {
    throw ended(sso, 'cannot be renewed');
  }
  const texts = [...cached].flatMap(([name, value]) => (asText(value) === undefined ? [] : [[name, asText(value)]]));
  const renewed = {
    ...Object.fromEntries(texts),
    accessToken: token,
    expiresAt: new Date(Date.now() + seconds * 1000).toISOString().replace(/\.\d+Z$/, 'Z'),
    refreshToken: asText(message?.get('refreshToken')) ?? asText(cached.get('refreshToken')),
  };
  try {
    const temporary = `${file}.${randomUUID()}`;
    writeFileSync(temporary, JSON.stringify(renewed), { mode: 0o600, flag: 'wx' });
    renameSync(temporary, file);
  } catch {
    // A home that cannot be written to: the token is good for this process.
  }
  return token;
}

/** Named by the session, or by the address in profiles of the older form, as all of AWS's tools name it. */
function cacheFile({ session, startUrl }: AwsSso, environment: NodeJS.ProcessEnv): string {
  const name = createHash('sha1')
    .update(session ?? startUrl)
    .digest('hex');
  return join(homeOf(environment), '.aws', 'sso', 'cache', `${name}.json`);
}

function readCache(file: string): JsonObject | undefined {
  try {
    return readObject(readFileSync(file));
  } catch {
    return undefined;
  }
}

function ended(sso: AwsSso, how: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the single sign-on session of profile ${sso.profile} ${how}`, {
    hint: loginHint(sso),
  });
}

function loginHint({ profile }: AwsSso): string {
  return `aws sso login --profile ${profile}`;
}
