// Tokens of Microsoft Entra for a client that has a secret, a certificate or a token of another issuer.
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow

import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asArray, asNumber, readObject } from '../../base/json.ts';
import { readPublicFile } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import { notNow } from '../answers.ts';
import type { AzurePlace } from './cloud.ts';
import { type AzureTokenSource, incomplete, readToken } from './token.ts';

/** By what the client shows that it is the client. */
export type AzureProof = 'certificate' | 'secret' | 'workload';

/** Members of the form. @param url of the token service, which an assertion of our own names */
type MakeProof = (client: string, url: string) => Promise<Readonly<Record<string, string>>>;

const MAXIMUM_ASSERTION_BYTES = 16 * 1024;
const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

/**
 * The client credentials grant (RFC 6749 section 4.4), as Entra has it.
 *
 * @throws OcicryptError `configuration` if AZURE_TENANT_ID or AZURE_CLIENT_ID is missing
 */
export function openTokenService(
  proof: AzureProof,
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
): AzureTokenSource {
  const { AZURE_TENANT_ID: tenant = '', AZURE_CLIENT_ID: client = '' } = environment;
  if (tenant === '') throw incomplete('AZURE_TENANT_ID');
  if (!/^[A-Za-z0-9.-]+$/.test(tenant)) {
    throw new OcicryptError('configuration', 'AZURE_TENANT_ID is neither the id nor a domain of a tenant', {
      hint: 'az account show --query tenantId',
    });
  }
  if (client === '') throw incomplete('AZURE_CLIENT_ID');
  const prove = proofOf(proof, environment);
  const url = `${place.authority}/${tenant}/oauth2/v2.0/token`;
  return async (signal) => {
    const scope = `${place.audience}/.default`;
    const shown = await prove(client, url);
    const form = new URLSearchParams({ grant_type: 'client_credentials', client_id: client, scope, ...shown });
    const body = new TextEncoder().encode(form.toString());
    try {
      const answer = await http.request({
        method: 'POST',
        url,
        headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
        body,
        signal,
        role: 'token service',
      });
      if (answer.status === 200) return readToken(`the token service ${new URL(url).host}`, readObject(answer.body));
      throw refused(answer, proof, new URL(url).host);
    } finally {
      wipe(body);
    }
  };
}

function proofOf(proof: AzureProof, environment: NodeJS.ProcessEnv): MakeProof {
  switch (proof) {
    case 'secret':
      return async () => ({ client_secret: environment.AZURE_CLIENT_SECRET ?? '' });
    case 'workload':
      return async () => assertionMembers(readAssertion(environment.AZURE_FEDERATED_TOKEN_FILE));
    case 'certificate':
      return async (client, url) => {
        const { signAssertion } = await import('./certificate.ts');
        return assertionMembers(await signAssertion(client, url, environment));
      };
  }
}

function assertionMembers(assertion: string) {
  return { client_assertion_type: JWT_BEARER, client_assertion: assertion };
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

/** What Entra's numbers mean: https://learn.microsoft.com/entra/identity-platform/reference-error-codes */
const meanings = (): Readonly<Record<number, string>> => ({
  7000215: 'the secret is wrong: AZURE_CLIENT_SECRET takes its value, and not its id',
  7000222: 'the secret has expired: az ad app credential reset --id CLIENT-ID --append',
  7000112: 'the application is disabled: az ad sp update --id CLIENT-ID --set accountEnabled=true',
  700016: 'no application of AZURE_CLIENT_ID is in the tenant of AZURE_TENANT_ID',
  90002: 'there is no tenant of AZURE_TENANT_ID in this cloud; another cloud needs AZURE_AUTHORITY_HOST',
  700027: 'this certificate is not one of the application: az ad app credential list --id CLIENT-ID --cert',
  700024: 'the assertion is out of its time: check the clock of this machine, and that Kubernetes renews the token',
  70021: 'no federated credential of the application fits: az ad app federated-credential list --id CLIENT-ID',
  700211: 'no federated credential has the issuer of this token: az ad app federated-credential list --id CLIENT-ID',
  700212: 'no federated credential has the audience of this token: az ad app federated-credential list --id CLIENT-ID',
  700213: 'no federated credential has the subject of this token: az ad app federated-credential list --id CLIENT-ID',
  53003: 'a policy of conditional access forbids it: ask the administrators of the tenant',
  500011: `the tenant does not know Key Vault: check ${setting('azurekms.domain')} and AZURE_TENANT_ID`,
});

const SHOWN: Readonly<Record<AzureProof, string>> = {
  certificate: 'the certificate',
  secret: 'AZURE_CLIENT_SECRET',
  workload: 'the federated credential',
};

/** Only the number of Entra's error is told on. */
function refused(answer: HttpResponse, proof: AzureProof, host: string): OcicryptError {
  const source = `the token service ${host}`;
  const passing = notNow(source, 'token', answer);
  if (passing !== undefined) return passing;
  const message = readObject(answer.body);
  if (message === undefined || !message.has('error')) {
    return new OcicryptError('unavailable', `something that is not ${source} answered (${answer.status})`, {
      hint: 'check AZURE_AUTHORITY_HOST and the proxy',
    });
  }
  const code = asNumber(asArray(message.get('error_codes'))?.[0]);
  const usual = `check AZURE_TENANT_ID, AZURE_CLIENT_ID and ${SHOWN[proof]}; to be the user of az login, set AZURE_TOKEN_CREDENTIALS=dev`;
  return new OcicryptError(
    'unauthenticated',
    `${source} refuses a token (${code === undefined ? answer.status : `AADSTS${code}`})`,
    { hint: meanings()[code ?? 0] ?? usual },
  );
}
