// The only code that loads Microsoft's identity library: managed identities and client certificates.
// All of its HTTP goes through our client, so that CA files, proxy, time limits and refusals hold there too.

import { createHttpHeaders, type PipelineRequest, type PipelineResponse } from '@azure/core-rest-pipeline';
import { ClientCertificateCredential, ManagedIdentityCredential, type TokenCredential } from '@azure/identity';
import { OcicryptError } from '../base/errors.ts';
import { type HttpClient, parseRetryAfter } from '../base/http.ts';
import type { AzurePlace } from './azure-cloud.ts';
import { type AzureLibraryIdentity, type AzureToken, noToken, refusedBy } from './azure-credentials.ts';

/**
 * Asks for one token. The library's object is made anew, because its memory would outlive the signal.
 *
 * @throws OcicryptError
 */
export async function requestLibraryToken(
  name: AzureLibraryIdentity,
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AzureToken> {
  const transport = new Transport(http, place, signal);
  try {
    const credential = createCredential(name, place, environment, transport);
    const token = await credential.getToken(`${place.audience}/.default`, { abortSignal: signal });
    if (token !== null) return { access: token.token, end: token.expiresOnTimestamp };
  } catch {
    // Without a cause: the library's errors hold requests and answers with everything in them.
  }
  throw transport.failure ?? noToken(place, '');
}

function createCredential(
  name: AzureLibraryIdentity,
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  httpClient: Transport,
): TokenCredential {
  const { AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_CLIENT_CERTIFICATE_PASSWORD } =
    environment;
  // Retries are the caller's, under the caller's deadline.
  const options = { httpClient, retryOptions: { maxRetries: 0 }, authorityHost: place.authority };
  switch (name) {
    case 'certificate':
      return new ClientCertificateCredential(
        AZURE_TENANT_ID ?? '',
        AZURE_CLIENT_ID ?? '',
        {
          certificatePath: AZURE_CLIENT_CERTIFICATE_PATH ?? '',
          ...(AZURE_CLIENT_CERTIFICATE_PASSWORD ? { certificatePassword: AZURE_CLIENT_CERTIFICATE_PASSWORD } : {}),
        },
        // Otherwise another request asks Microsoft whether the authority is Microsoft's.
        { ...options, disableInstanceDiscovery: true },
      );
    default:
      return AZURE_CLIENT_ID
        ? new ManagedIdentityCredential({ clientId: AZURE_CLIENT_ID, ...options })
        : new ManagedIdentityCredential(options);
  }
}

/** Hosts that speak without TLS: the metadata service and the local agents of App Service, Arc and others. */
const LINK_LOCAL = /^169\.254\.\d{1,3}\.\d{1,3}$/;

/** Our HTTP client as the library's, for one token; it remembers what went wrong, because the library obscures it. */
class Transport {
  failure: OcicryptError | undefined;
  readonly #http: HttpClient;
  readonly #place: AzurePlace;
  readonly #signal: AbortSignal;

  constructor(http: HttpClient, place: AzurePlace, signal: AbortSignal) {
    this.#http = http;
    this.#place = place;
    this.#signal = signal;
  }

  async sendRequest(request: PipelineRequest): Promise<PipelineResponse> {
    const isMetadata = LINK_LOCAL.test(new URL(request.url).hostname);
    try {
      const answer = await this.#http.request({
        method: readMethod(request.method),
        url: request.url,
        headers: readHeaders(request),
        body: readBody(request.body),
        signal: this.#signal,
        role: isMetadata ? 'metadata server' : 'token service',
        insecurePlaintext: isMetadata,
      });
      const { status, headers } = answer;
      if (status >= 400) this.failure = refusedBy(this.#place, status, undefined, parseRetryAfter(headers));
      return {
        request,
        status,
        headers: createHttpHeaders({ ...headers }),
        bodyAsText: new TextDecoder().decode(answer.body),
      };
    } catch (error) {
      if (error instanceof OcicryptError) this.failure = error;
      throw error;
    }
  }
}

/** Our client counts the bytes itself. */
function readHeaders(request: PipelineRequest): Record<string, string> {
  const { 'content-length': _, ...headers } = request.headers.toJSON();
  return headers;
}

function readMethod(method: string): 'GET' | 'POST' {
  if (method === 'GET' || method === 'POST') return method;
  throw new OcicryptError('internal', 'the identity library made an unexpected request');
}

function readBody(body: PipelineRequest['body']): Uint8Array | undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body === 'string') return new TextEncoder().encode(body);
  throw new OcicryptError('internal', 'the identity library made an unexpected request');
}
