// Who we are to Azure: the first identity that the environment configures, in the order of DefaultAzureCredential.
// The two that are one request are made here; for the rest Microsoft's library is loaded.

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { type HttpClient, parseRetryAfter } from '../base/http.ts';
import { asArray, asNumber, asText, type JsonObject } from '../base/json.ts';
import { readPublicFile } from '../base/secret-file.ts';
import { share } from '../base/share.ts';
import { showPath } from '../base/shown.ts';
import { readObject } from './answers.ts';
import type { AzurePlace } from './azure-cloud.ts';
import type { AzureTool } from './azure-tools.ts';

/** Tokens for one audience, kept until shortly before they end. */
export interface AzureCredentials {
  /**
   * The value of `authorization`.
   *
   * @throws OcicryptError `unauthenticated`, `configuration`, `unavailable`, `deadline-exceeded`
   */
  authorization(signal: AbortSignal): Promise<string>;
  /** Throws the token away, because the service did not take it. */
  forget(): void;
}

/** An access token and when it ends, in milliseconds since 1970. */
export type AzureToken = { readonly access: string; readonly end: number };

/** Asks for a token; its signal ends it. */
export type AzureTokenSource = (signal: AbortSignal) => Promise<AzureToken>;

/** Identities are chosen by what is configured, never by what fails: a wrong secret must not end in another identity. */
export type AzureIdentityName = AzureLibraryIdentity | AzureTool | 'dev' | 'secret' | 'workload';

/** Those that Microsoft's library asks for. */
export type AzureLibraryIdentity = 'certificate' | 'managed-identity';

const REFRESH_MILLISECONDS = 5 * 60 * 1000;
const MAXIMUM_ASSERTION_BYTES = 16 * 1024;

/**
 * Opens the identity that the environment configures: AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH with
 * AZURE_TENANT_ID and AZURE_CLIENT_ID, else AZURE_FEDERATED_TOKEN_FILE (workload identity), else the managed identity
 * of the machine. AZURE_TOKEN_CREDENTIALS narrows as in Microsoft's libraries, and is `prod` where it is not set:
 * a server must not become whoever last ran `az login` on it.
 *
 * @throws OcicryptError `configuration`
 */
export function openAzureCredentials(
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
): AzureCredentials {
  const name = chooseIdentity(environment);
  const source = openSource(name, place, environment, http);
  let token: AzureToken | undefined;
  const refresh = share(async (signal) => {
    token = await source(signal);
    return `Bearer ${token.access}`;
  });
  return {
    async authorization(signal) {
      if (token !== undefined && Date.now() < token.end - REFRESH_MILLISECONDS) return `Bearer ${token.access}`;
      const previous = token;
      try {
        return await refresh(signal);
      } catch (error) {
        // What cannot be renewed now is good until it ends.
        if (previous !== undefined && Date.now() < previous.end) return `Bearer ${previous.access}`;
        throw error;
      }
    },
    forget() {
      token = undefined;
    },
  };
}

function chooseIdentity(environment: NodeJS.ProcessEnv): AzureIdentityName {
  const wanted = (environment.AZURE_TOKEN_CREDENTIALS ?? '').trim().toLowerCase() || 'prod';
  const { AZURE_CLIENT_SECRET: secret, AZURE_CLIENT_CERTIFICATE_PATH: certificate } = environment;
  const fromEnvironment = secret ? 'secret' : certificate ? 'certificate' : undefined;
  switch (wanted) {
    case 'prod':
      return fromEnvironment ?? (environment.AZURE_FEDERATED_TOKEN_FILE ? 'workload' : 'managed-identity');
    case 'environmentcredential':
      if (fromEnvironment !== undefined) return fromEnvironment;
      throw incomplete('AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH');
    case 'workloadidentitycredential':
      return 'workload';
    case 'managedidentitycredential':
      return 'managed-identity';
    case 'dev':
      return 'dev';
    case 'azureclicredential':
      return 'az';
    case 'azurepowershellcredential':
      return 'pwsh';
    case 'azuredeveloperclicredential':
      return 'azd';
    default:
      throw new OcicryptError('configuration', 'AZURE_TOKEN_CREDENTIALS has a value that is not supported', {
        hint: 'it may be prod, dev, EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential, AzureCliCredential, AzurePowerShellCredential or AzureDeveloperCliCredential',
      });
  }
}

function openSource(
  name: AzureIdentityName,
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
): AzureTokenSource {
  switch (name) {
    case 'secret':
      return clientSource(place, environment, http, () => ({ client_secret: environment.AZURE_CLIENT_SECRET ?? '' }));
    case 'workload':
      return clientSource(place, environment, http, () => ({
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: readAssertion(environment.AZURE_FEDERATED_TOKEN_FILE),
      }));
    case 'az':
    case 'azd':
    case 'pwsh':
      return (signal) => toolToken([name], place, environment, signal);
    case 'dev':
      return (signal) => toolToken(['az', 'pwsh', 'azd'], place, environment, signal);
    default:
      return (signal) => libraryToken(name, place, environment, http, signal);
  }
}

async function toolToken(
  tools: readonly AzureTool[],
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<AzureToken> {
  const { requestToolToken } = await import('./azure-tools.ts');
  return requestToolToken(tools, place.audience, environment, signal);
}

async function libraryToken(
  name: AzureLibraryIdentity,
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AzureToken> {
  const { requestLibraryToken } = await import('./azure-identity.ts');
  return requestLibraryToken(name, place, environment, http, signal);
}

/** The client credentials grant (RFC 6749 section 4.4), as Entra ID has it. */
function clientSource(
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  proof: () => Readonly<Record<string, string>>,
): AzureTokenSource {
  const { AZURE_TENANT_ID: tenant = '', AZURE_CLIENT_ID: client = '' } = environment;
  if (!/^[A-Za-z0-9.-]+$/.test(tenant)) throw incomplete('AZURE_TENANT_ID');
  if (client === '') throw incomplete('AZURE_CLIENT_ID');
  return async (signal) => {
    const scope = `${place.audience}/.default`;
    const form = new URLSearchParams({ grant_type: 'client_credentials', client_id: client, scope, ...proof() });
    const body = new TextEncoder().encode(form.toString());
    try {
      const answer = await http.request({
        method: 'POST',
        url: `${place.authority}/${tenant}/oauth2/v2.0/token`,
        headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
        body,
        signal,
        role: 'token service',
      });
      const message = readObject(answer.body);
      if (answer.status !== 200) throw refusedBy(place, answer.status, message, parseRetryAfter(answer.headers));
      const access = asText(message?.get('access_token')) ?? '';
      const seconds = asNumber(message?.get('expires_in'));
      if (!/^[!-~]{1,16384}$/.test(access) || seconds === undefined) throw noToken(place, '');
      return { access, end: Date.now() + seconds * 1000 };
    } finally {
      wipe(body);
    }
  };
}

/** Read anew for each token: Kubernetes renews the file. */
function readAssertion(path: string | undefined): string {
  if (!path) throw incomplete('AZURE_FEDERATED_TOKEN_FILE');
  let text: string;
  try {
    // Kubernetes mounts it for every user of the pod to read.
    const file = readPublicFile(path, 'the federated token', MAXIMUM_ASSERTION_BYTES);
    text = new TextDecoder('latin1').decode(file).trim();
    wipe(file);
  } catch (error) {
    if (!(error instanceof OcicryptError)) throw error;
    throw error.with({ code: 'configuration', hint: 'label the pod azure.workload.identity/use=true' });
  }
  if (/^[\w.-]+$/.test(text) && text.length <= MAXIMUM_ASSERTION_BYTES) return text;
  throw new OcicryptError('configuration', `${showPath(path)} does not hold a token`, {
    hint: 'AZURE_FEDERATED_TOKEN_FILE names the file that Kubernetes projects',
  });
}

/** The failure of a token service, of which only the number of the error is told on. */
export function refusedBy(
  place: AzurePlace,
  status: number,
  message: JsonObject | undefined,
  retryAfter: number | undefined,
): OcicryptError {
  if (status === 408 || status === 429 || status >= 500) {
    return new OcicryptError('unavailable', `${hostOf(place)} gives no token now (${status})`, {
      hint: 'try again later',
      retryable: true,
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
  }
  const [code] = asArray(message?.get('error_codes')) ?? [];
  return noToken(place, typeof code === 'number' ? ` (AADSTS${code})` : ` (${status})`);
}

/** @param detail in brackets, or nothing */
export function noToken(place: AzurePlace, detail: string): OcicryptError {
  return new OcicryptError('unauthenticated', `no token for ${place.audience} could be had${detail}`, {
    hint: 'check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret, federated credential or managed identity; to be whoever ran az login, set AZURE_TOKEN_CREDENTIALS=dev',
  });
}

function hostOf(place: AzurePlace): string {
  return place.authority.replace(/^https?:\/\//, '');
}

function incomplete(name: string): OcicryptError {
  return new OcicryptError('configuration', `the Azure identity lacks ${name}`, {
    hint: 'set AZURE_TENANT_ID, AZURE_CLIENT_ID and one of AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE',
  });
}
