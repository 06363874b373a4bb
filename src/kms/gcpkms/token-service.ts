// What the token services of Google are asked, and what it means that they refuse.

import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient, HttpRequest, HttpResponse } from '../../base/http/contract.ts';
import { type JsonObject, readObject } from '../../base/json.ts';
import { showPath } from '../../base/shown.ts';
import { notNow } from '../answers.ts';

/** Impersonation and token exchange need this one, whatever the token is used for afterwards. */
export const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';

/** As long before their end as Google's libraries renew tokens by themselves. */
export const RESERVE_MILLISECONDS = 5 * 60 * 1000;

/** Hosts without TLS that federated credentials name: the metadata services of AWS and Azure. */
const METADATA_HOSTS = ['169.254.169.254', '[fd00:ec2::254]', '169.254.170.2', '169.254.170.23'];

/** What a host is to credentials that name it. */
export function roleOf({ hostname }: URL): Pick<HttpRequest, 'insecurePlaintext' | 'role'> {
  const isMetadata = METADATA_HOSTS.includes(hostname);
  return { role: isMetadata ? 'metadata server' : 'token service', insecurePlaintext: isMetadata };
}

/**
 * Asks a service for a token, or for what leads to one.
 *
 * @throws OcicryptError `unauthenticated` where it refuses, `unavailable` where it may not do so later
 */
export async function askTokenService(
  http: HttpClient,
  url: URL,
  request: Pick<HttpRequest, 'body' | 'headers' | 'method' | 'signal'>,
): Promise<HttpResponse> {
  const answer = await http.request({ ...request, url: url.href, ...roleOf(url) });
  if (answer.status >= 400) throw refusedBy(url, answer);
  return answer;
}

/** As {@link askTokenService}, for a form as OAuth 2.0 has them; undefined where the answer is no JSON object. */
export async function postForm(
  http: HttpClient,
  url: URL,
  form: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<JsonObject | undefined> {
  const answer = await askTokenService(http, url, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json', ...headers },
    body: Buffer.from(new URLSearchParams(form).toString()),
    signal,
  });
  return readObject(answer.body);
}

/** What to do if one of them refuses, by the beginning of its name: each has one part in the way to a token. */
const HINTS: readonly (readonly [service: string, hint: string])[] = [
  ['oauth2.', 'log in again: gcloud auth application-default login'],
  [
    'sts.',
    'the workload identity pool does not take the subject token: compare its issuer, audience and attribute condition with: gcloud iam workload-identity-pools providers describe',
  ],
  [
    'iamcredentials.',
    'grant roles/iam.serviceAccountTokenCreator, or to a workload roles/iam.workloadIdentityUser, on the service account that is impersonated',
  ],
];

/** The error for an answer of 400 and above. */
export function refusedBy({ host }: URL, answer: HttpResponse): OcicryptError {
  const passing = notNow(`the token service ${host}`, 'token', answer);
  if (passing !== undefined) return passing;
  return new OcicryptError('unauthenticated', `the token service ${host} refuses a token (${answer.status})`, {
    hint:
      HINTS.find(([service]) => host.startsWith(service))?.[1] ??
      'check the file of credentials, which names this service',
  });
}

/** The error where all have answered, and no token is in what they said. */
export function noToken(path: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the Google credentials in ${showPath(path)} give no token`, {
    hint: 'see why with: gcloud auth application-default print-access-token',
  });
}
