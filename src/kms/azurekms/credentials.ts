// Who we are to Azure: the first identity that the environment configures, in the order of DefaultAzureCredential.

import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { TokenCache } from '../token-cache.ts';
import type { AzurePlace } from './cloud.ts';
import { type AzureToken, type AzureTokenSource, incomplete } from './token.ts';
import { type AzureProof, openTokenService } from './token-service.ts';
import type { AzureTool } from './tools.ts';

/** Identities are chosen by what is configured, never by what fails: a wrong secret must not end in another identity. */
type AzureIdentityName = AzureProof | AzureTool | 'any-tool' | 'machine' | 'some-machine';

const RESERVE_MILLISECONDS = 5 * 60 * 1000;

/**
 * Opens the identity that the environment configures: AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH with
 * AZURE_TENANT_ID and AZURE_CLIENT_ID, else AZURE_FEDERATED_TOKEN_FILE (workload identity), else the managed identity
 * of the machine. AZURE_TOKEN_CREDENTIALS narrows as in Microsoft's libraries, and is `prod` if it is not set:
 * a server must not become the user who last ran `az login` on it. What is read is the value of `authorization` for one
 * audience; reading throws `unauthenticated`, `configuration`, `unavailable`, `deadline-exceeded`.
 *
 * @throws OcicryptError `configuration`
 */
export function openAzureCredentials(
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  now?: () => number,
): TokenCache<string> {
  const name = chooseIdentity(environment);
  const source = openSource(name, place, environment, http);
  return new TokenCache(async (signal) => {
    const { access, lifetime } = await source(signal);
    return { token: `Bearer ${access}`, lifetime, reserve: RESERVE_MILLISECONDS };
  }, now);
}

function chooseIdentity(environment: NodeJS.ProcessEnv): AzureIdentityName {
  const wanted = (environment.AZURE_TOKEN_CREDENTIALS ?? '').trim().toLowerCase() || 'prod';
  const { AZURE_CLIENT_SECRET: secret, AZURE_CLIENT_CERTIFICATE_PATH: certificate } = environment;
  const fromEnvironment = secret ? 'secret' : certificate ? 'certificate' : undefined;
  switch (wanted) {
    case 'prod':
      return fromEnvironment ?? (environment.AZURE_FEDERATED_TOKEN_FILE ? 'workload' : 'some-machine');
    case 'environmentcredential':
      if (fromEnvironment !== undefined) return fromEnvironment;
      throw incomplete('AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH');
    case 'workloadidentitycredential':
      return 'workload';
    case 'managedidentitycredential':
      return 'machine';
    case 'dev':
      return 'any-tool';
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
    case 'certificate':
    case 'secret':
    case 'workload':
      return openTokenService(name, place, environment, http);
    case 'az':
    case 'azd':
    case 'pwsh':
      return (signal) => toolToken([name], place, environment, signal);
    case 'any-tool':
      return (signal) => toolToken(['az', 'pwsh', 'azd'], place, environment, signal);
    case 'machine':
    case 'some-machine':
      return async (signal) => {
        const { requestManagedIdentityToken } = await import('./managed-identity.ts');
        return requestManagedIdentityToken(place, environment, http, name === 'machine', signal);
      };
  }
}

async function toolToken(
  tools: readonly AzureTool[],
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<AzureToken> {
  const { requestToolToken } = await import('./tools.ts');
  return requestToolToken(tools, place.audience, environment, signal);
}
