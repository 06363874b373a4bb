// The only code that loads Google's authentication library: credentials whose tokens another service issues.

import { readFileSync } from 'node:fs';
import { type AuthClient, GoogleAuth, gaxios } from 'google-auth-library';
import { OcicryptError, showSystemCode } from '../../base/errors.ts';
import type { HttpClient, HttpResponse } from '../../base/http/client.ts';
import { showPath } from '../../base/shown.ts';
import { notNow } from '../answers.ts';
import { LibraryHttp } from '../library-http.ts';
import { TokenCache } from '../token-cache.ts';
import { type CredentialsJson, invalidFile } from './credentials.ts';
import { findExecutable, readSubjectToken } from './executable.ts';

/** Impersonation and token exchange need this one, whatever the token is used for afterwards. */
const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';

/** As long before their end as the library renews tokens by itself. */
const RESERVE_MILLISECONDS = 5 * 60 * 1000;

/** The library makes "Bearer undefined" of an answer without a token. */
const BEARER = /^Bearer (?!(?:undefined|null)$)[!-~]+$/;

/** Hosts without TLS that federated credentials name: the metadata services of AWS and Azure. */
const METADATA_HOSTS = ['169.254.169.254', '[fd00:ec2::254]', '169.254.170.2', '169.254.170.23'];

/**
 * Opens credentials of a file: authorized_user, impersonated_service_account, external_account (subject tokens from a
 * file, a URL, an executable or AWS) and external_account_authorized_user.
 *
 * @param path of the file, for errors
 * @param json what the file holds
 * @throws OcicryptError `configuration` for sources that cannot be used
 */
export function openLibraryCredentials(
  path: string,
  json: CredentialsJson,
  http: HttpClient,
  environment: NodeJS.ProcessEnv,
  now?: () => number,
): TokenCache<string> {
  refuseUnsupported(path, json, environment);
  const executable = findExecutable(path, json);
  const subjectFile = findSubjectFile(json);
  return new TokenCache(async (signal) => {
    const transport = new LibraryHttp(http, signal);
    // Anew each time: the library's own cache goes by the time of day, and keeps a renewal that has failed.
    const client = await createClient(path);
    useTransport(
      client,
      new gaxios.Gaxios({
        fetchImplementation: (url, init) => carry(transport, new Request(url, { ...init, signal: null })),
        // Retries are the caller's, under the caller's deadline.
        retryConfig: { retry: 0, noResponseRetries: 0 },
      }),
    );
    let failure: unknown;
    if (executable !== undefined) {
      const supply = () =>
        readSubjectToken(executable, signal).catch((error: unknown) => {
          failure = error;
          throw error;
        });
      Reflect.set(client, 'retrieveSubjectToken', supply);
    }
    try {
      const token = (await client.getRequestHeaders()).get('authorization');
      if (token !== null && BEARER.test(token)) {
        const end = client.credentials.expiry_date ?? Number.POSITIVE_INFINITY;
        return { token, lifetime: end - Date.now(), reserve: RESERVE_MILLISECONDS };
      }
    } catch {
      // Without a cause: the library's errors hold requests and answers with everything in them.
    }
    throw failure ?? transport.failure ?? noSubject(subjectFile) ?? noToken(path);
  }, now);
}

/** The file of subject tokens that federated credentials name. */
function findSubjectFile({ credential_source: source }: CredentialsJson): string | undefined {
  if (typeof source !== 'object' || source === null || !('file' in source)) return undefined;
  return typeof source.file === 'string' ? source.file : undefined;
}

/** Why there is no subject token, if that is so: the library does not say. */
function noSubject(file: string | undefined): OcicryptError | undefined {
  if (file === undefined) return undefined;
  const fail = (what: string) =>
    new OcicryptError('configuration', `the subject token file ${showPath(file)} ${what}`, {
      hint: 'the file of credentials names it, and Kubernetes or a CI service writes it: check the volume and its permissions',
    });
  try {
    return readFileSync(file).length === 0 ? fail('is empty') : undefined;
  } catch (error) {
    return fail(`cannot be read${showSystemCode(error)}`);
  }
}

/** Where the library would say no late, or not at all. */
function refuseUnsupported(path: string, json: CredentialsJson, environment: NodeJS.ProcessEnv): void {
  const source = json.type === 'external_account' ? json.credential_source : undefined;
  if (typeof source !== 'object' || source === null) return;
  if ('certificate' in source) {
    throw new OcicryptError('configuration', `${showPath(path)} names a client certificate, which is not supported`, {
      hint: 'federate with a token from a file, a URL, an executable or AWS',
    });
  }
  if ('executable' in source && environment.GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES !== '1') {
    throw new OcicryptError('configuration', `${showPath(path)} names an executable, which is not permitted to run`, {
      hint: 'GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 permits it',
    });
  }
}

/**
 * By the library's own way to a file of application default credentials: the other ways warn on stderr about files
 * from strangers, and this file is the operator's. It is read again for a new client, and may have been renewed.
 */
async function createClient(path: string): Promise<AuthClient> {
  try {
    // Called a project, so that the library runs no gcloud and asks no server for one.
    const library = new GoogleAuth({ scopes: [SCOPE], projectId: 'none' });
    return await library._getApplicationCredentialsFromFilePath(path);
  } catch {
    throw invalidFile(path);
  }
}

/**
 * Gives the client and whatever it asks on its own behalf one transport. The library takes one only for some of them:
 * not for the exchange of tokens, nor for the credentials that it impersonates with.
 */
function useTransport(client: object, transport: gaxios.Gaxios): void {
  if ('transporter' in client) Reflect.set(client, 'transporter', transport);
  for (const name of [
    'sourceClient',
    'stsCredential',
    'externalAccountAuthorizedUserHandler',
    'supplierContext',
    'gtoken',
  ]) {
    const part: unknown = Reflect.get(client, name);
    if (typeof part === 'object' && part !== null) useTransport(part, transport);
  }
}

/** One request of the library's. Its signal is left out: that comes from time limits of its own. */
async function carry(http: LibraryHttp, request: Request): Promise<Response> {
  const body = new Uint8Array(await request.arrayBuffer());
  const url = new URL(request.url);
  const isMetadata = METADATA_HOSTS.includes(url.hostname);
  const answer = await http.send(
    {
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      body: body.length === 0 && request.method === 'GET' ? undefined : body,
      role: isMetadata ? 'metadata server' : 'token service',
      insecurePlaintext: isMetadata,
    },
    (refused) => (refused.status >= 400 ? refusedBy(url, refused) : undefined),
  );
  return new Response(answer.body, { status: answer.status, headers: answer.headers });
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

function refusedBy({ host }: URL, answer: HttpResponse): OcicryptError {
  const passing = notNow(`the token service ${host}`, 'token', answer);
  if (passing !== undefined) return passing;
  return new OcicryptError('unauthenticated', `the token service ${host} refuses a token (${answer.status})`, {
    hint:
      HINTS.find(([service]) => host.startsWith(service))?.[1] ??
      'check the file of credentials, which names this service',
  });
}

function noToken(path: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the Google credentials in ${showPath(path)} give no token`, {
    hint: 'see why with: gcloud auth application-default print-access-token',
  });
}
