// The only code that loads Google's authentication library: for subject tokens of an executable or of AWS, and for
// workforce identities.

import type { AuthClient, GoogleAuth, gaxios } from 'google-auth-library';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { showPath } from '../../base/shown.ts';
import { LibraryHttp } from '../library-http.ts';
import { missingPeer } from '../peer-package.ts';
import { TokenCache } from '../token-cache.ts';
import { type CredentialsJson, invalidFile } from './credentials-file.ts';
import { findExecutable, readSubjectToken } from './executable.ts';
import { noToken, RESERVE_MILLISECONDS, refusedBy, roleOf, SCOPE } from './token-service.ts';

/** The library makes "Bearer undefined" of an answer without a token. */
const BEARER = /^Bearer (?!(?:undefined|null)$)[!-~]+$/;

/**
 * Opens credentials of a file of any type that Google's library knows.
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
  return new TokenCache(async (signal) => {
    const library = await import('google-auth-library').catch(
      missingPeer('google-auth-library', 'Google credentials of this kind'),
    );
    const transport = new LibraryHttp(http, signal);
    // Anew each time: the library's own cache goes by the time of day, and keeps a renewal that has failed.
    const client = await createClient(path, library.GoogleAuth);
    useTransport(
      client,
      new library.gaxios.Gaxios({
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
    throw failure ?? transport.failure ?? noToken(path);
  }, now);
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
async function createClient(path: string, Library: typeof GoogleAuth): Promise<AuthClient> {
  try {
    // Called a project, so that the library runs no gcloud and asks no server for one.
    const library = new Library({ scopes: [SCOPE], projectId: 'none' });
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
  const answer = await http.send(
    {
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      body: body.length === 0 && request.method === 'GET' ? undefined : body,
      ...roleOf(url),
    },
    (refused) => (refused.status >= 400 ? refusedBy(url, refused) : undefined),
  );
  return new Response(answer.body, { status: answer.status, headers: answer.headers });
}
