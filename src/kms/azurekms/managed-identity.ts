// Tokens of the managed identity of a machine, from whichever agent it has: one GET each, and two for Azure Arc.
// https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
//
// Not by Microsoft's library: its client keeps the transport and the signal of its first call for the whole process.

import { existsSync } from 'node:fs';
import { bareHost } from '../../base/address.ts';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { CredentialRole, HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asObject, asText, type JsonObject, readObject } from '../../base/json.ts';
import { readPublicFile } from '../../base/secret-file.ts';
import { notNow } from '../answers.ts';
import { askMetadataServer, firmwareSays } from '../metadata-server.ts';
import type { AzurePlace } from './cloud.ts';
import { type AzureToken, readToken } from './token.ts';

/** Who is asked on this machine, and how. */
type Agent = {
  readonly url: string;
  /** Of the variable that named it, for errors. */
  readonly variable: string;
  readonly role: CredentialRole;
  readonly version: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What the parameter for AZURE_CLIENT_ID is called. */
  readonly client?: 'clientid' | 'client_id';
  /** Statuses that pass here and are final elsewhere. */
  readonly passing?: readonly number[];
  readonly isArc?: boolean;
};

const IMDS = 'http://169.254.169.254';
const TOKEN_PATH = '/metadata/identity/oauth2/token';
/** While the metadata service is updated it says 404 or 410. */
const IMDS_PASSING = [404, 410];
const ARC = 'http://127.0.0.1:40342';
const ARC_PROGRAM = '/opt/azcmagent/bin/himds';
/** Where the agent of Azure Arc leaves the file that proves who asks; no other file is read for it. */
const ARC_KEYS = '/var/opt/azcmagent/tokens/';
const MAXIMUM_ARC_KEY_BYTES = 4096;
const ASSET_TAG = '/sys/class/dmi/id/chassis_asset_tag';
/** The tag that the firmware of every virtual machine in Azure has. */
const AZURE_MACHINE = /^7783-7084-3265-9085-8269-3286-77/;

/**
 * Asks for one token, of the identity of AZURE_CLIENT_ID if that is set.
 *
 * @param isExpected whether the configuration asks for a managed identity and nothing else
 * @param arcKeys the directory of Azure Arc's files
 * @throws OcicryptError
 */
export async function requestManagedIdentityToken(
  place: AzurePlace,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  isExpected: boolean,
  signal: AbortSignal,
  arcKeys = ARC_KEYS,
): Promise<AzureToken> {
  const agent = chooseAgent(environment);
  const url = checkUrl(agent);
  const client = environment.AZURE_CLIENT_ID || undefined;
  url.searchParams.set('api-version', agent.version);
  url.searchParams.set('resource', place.audience);
  const named = agent.client === 'clientid' ? (client ?? environment.DEFAULT_IDENTITY_CLIENT_ID) : client;
  if (named) url.searchParams.set(agent.client ?? 'client_id', named);
  const source = `the ${agent.role} ${url.host}`;
  const ask = (end: AbortSignal, more: Readonly<Record<string, string>> = {}) =>
    http.request({
      method: 'GET',
      url: url.href,
      headers: { accept: 'application/json', ...agent.headers, ...more },
      signal: end,
      role: agent.role,
      insecurePlaintext: isLinkLocal(url),
    });
  let answer = await askMetadataServer(
    {
      host: url.host,
      isExpected: agent.variable !== '' || client !== undefined || isExpected || firmwareSays(ASSET_TAG, AZURE_MACHINE),
      none: 'there are no Azure credentials in the environment',
      hint: 'set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or another of their kind, or AZURE_TOKEN_CREDENTIALS=dev to be the user of az login; ManagedIdentityCredential makes this wait longer',
    },
    signal,
    (end) => ask(end),
  );
  if (agent.isArc && answer.status === 401) {
    answer = await ask(signal, { authorization: `Basic ${readArcKey(answer, source, arcKeys)}` });
  }
  if (answer.status !== 200) throw refused(source, agent, answer, client);
  const message = readObject(answer.body);
  const token = readToken(source, message);
  checkClient(source, client, message, agent.isArc ?? false);
  return token;
}

/** In the order of Microsoft's libraries. */
function chooseAgent(environment: NodeJS.ProcessEnv): Agent {
  const {
    IDENTITY_ENDPOINT: endpoint,
    IDENTITY_HEADER: header,
    IDENTITY_SERVER_THUMBPRINT: thumbprint,
    IMDS_ENDPOINT: arc,
    MSI_ENDPOINT: older,
    MSI_SECRET: secret,
    AZURE_POD_IDENTITY_AUTHORITY_HOST: pod,
  } = environment;
  const role = 'identity agent';
  if (endpoint && header && thumbprint) {
    throw new OcicryptError('configuration', 'the managed identity of Service Fabric is not supported', {
      hint: 'its agent has no certificate that can be checked: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_CERTIFICATE_PATH',
    });
  }
  if (endpoint && header) {
    const headers = { 'x-identity-header': header };
    return { url: endpoint, variable: 'IDENTITY_ENDPOINT', role, version: '2019-08-01', headers };
  }
  if (older && secret) {
    const headers = { metadata: 'true', secret };
    return { url: older, variable: 'MSI_ENDPOINT', role, version: '2017-09-01', headers, client: 'clientid' };
  }
  const headers = { metadata: 'true' };
  if ((endpoint && arc) || existsSync(ARC_PROGRAM)) {
    const url = endpoint && arc ? endpoint : `${ARC}${TOKEN_PATH}`;
    return { url, variable: 'IDENTITY_ENDPOINT', role, version: '2020-06-01', headers, isArc: true };
  }
  return {
    url: `${(pod || IMDS).replace(/\/+$/, '')}${TOKEN_PATH}`,
    variable: pod ? 'AZURE_POD_IDENTITY_AUTHORITY_HOST' : '',
    role: 'metadata server',
    version: '2018-02-01',
    headers,
    passing: IMDS_PASSING,
  };
}

function checkUrl({ url, variable }: Agent): URL {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed !== undefined && /^https?:$/.test(parsed.protocol) && parsed.username === '') return parsed;
  throw new OcicryptError('configuration', `${variable} is not an address that a token may be asked of`, {
    hint: 'Azure sets it; it looks like http://127.0.0.1:PORT/PATH',
  });
}

/** Agents that are reached inside of the machine and speak without TLS. */
function isLinkLocal(url: URL): boolean {
  return /^169\.254(?:\.\d{1,3}){2}$/.test(bareHost(url));
}

/** The agent names a file that only its own machine's users can read. */
function readArcKey(answer: HttpResponse, source: string, directory: string): string {
  const [, path = ''] = /Basic realm="?([^"]+?)"?$/.exec(answer.headers['www-authenticate'] ?? '') ?? [];
  const name = path.startsWith(directory) ? path.slice(directory.length) : '';
  if (!/^[A-Za-z0-9._-]+\.key$/.test(name)) {
    throw new OcicryptError('unauthenticated', `something that is not ${source} of Azure Arc answered`, {
      hint: 'check IDENTITY_ENDPOINT: azcmagent show',
    });
  }
  let file: Uint8Array | undefined;
  try {
    file = readPublicFile(path, 'the key file of Azure Arc', MAXIMUM_ARC_KEY_BYTES);
    return new TextDecoder('latin1').decode(file).trim();
  } catch (error) {
    if (!(error instanceof OcicryptError)) throw error;
    throw error.with({ code: 'configuration', hint: 'its group may read it: add this user to the group himds' });
  } finally {
    wipe(file);
  }
}

function refused(source: string, agent: Agent, answer: HttpResponse, client: string | undefined): OcicryptError {
  const passing = notNow(source, 'token', answer, agent.passing);
  if (passing !== undefined) return passing;
  const message = readObject(answer.body);
  const said = asText(message?.get('error_description')) ?? asText(message?.get('message')) ?? nested(message);
  if (/multiple user assigned identities/i.test(said)) {
    return new OcicryptError('configuration', `this machine has several identities, says ${source}`, {
      hint: 'choose one: AZURE_CLIENT_ID takes its client id',
    });
  }
  if (/identity not found|\bno (?:msi|user assigned|managed)\b.* found/i.test(said)) {
    const missing = client === undefined ? 'no managed identity' : 'no identity of AZURE_CLIENT_ID';
    return new OcicryptError('unauthenticated', `this machine has ${missing}, says ${source}`, {
      hint: 'assign one: az vm identity assign, or az webapp identity assign; or unset AZURE_CLIENT_ID for that of the machine',
    });
  }
  return new OcicryptError('unauthenticated', `${source} refuses a token (${answer.status})`, {
    hint: `check the managed identity of this machine and AZURE_CLIENT_ID${agent.variable === '' ? '' : `, and ${agent.variable}`}; to be the user of az login, set AZURE_TOKEN_CREDENTIALS=dev`,
  });
}

/** App Service has its error one level down. */
function nested(message: JsonObject | undefined): string {
  return asText(asObject(message?.get('error'))?.get('message')) ?? '';
}

/** Older agents ignore the parameter, and give the token of another identity. */
function checkClient(
  source: string,
  client: string | undefined,
  message: JsonObject | undefined,
  mustSay: boolean,
): void {
  const said = asText(message?.get('client_id'));
  if (client === undefined || (said === undefined && !mustSay)) return;
  if (said?.toLowerCase() === client.toLowerCase()) return;
  throw new OcicryptError('unauthenticated', `${source} gives the token of another identity`, {
    hint: 'AZURE_CLIENT_ID names one that it does not know',
  });
}
