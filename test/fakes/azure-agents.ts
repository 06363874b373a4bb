/**
 * Whoever gives tokens to the machines of Azure, on this machine and in clear: the metadata service (IMDS), and the agents
 * of App Service, Machine Learning and Azure Arc, each as its own documentation has it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

export type FakeAzureAgents = {
  readonly server: WireServer;
  /** Variables that lead to each of them. */
  readonly environments: Readonly<Record<'appService' | 'arc' | 'imds' | 'machineLearning', Record<string, string>>>;
  /** Where the agent of Azure Arc leaves its files; ends in a slash. */
  readonly arcKeys: string;
  /** The client ids of the machine's identities; the first is that of the machine itself. None: it has no identity. */
  identities: readonly string[];
  /** How long tokens live, in seconds. */
  lifetime: number;
  readonly close: () => Promise<void>;
};

/** @param issue makes a token for an audience */
export async function startFakeAzureAgents(
  directory: string,
  issue: (audience: string, seconds: number) => string,
): Promise<FakeAzureAgents> {
  const secret = randomBytes(16).toString('hex');
  const arcKeys = `${join(directory, 'arc-tokens')}/`;
  await mkdir(arcKeys, { recursive: true });
  const server = await startWireServer(serve);
  const agents: FakeAzureAgents = {
    server,
    environments: {
      imds: { AZURE_POD_IDENTITY_AUTHORITY_HOST: server.url },
      appService: { IDENTITY_ENDPOINT: `${server.url}/msi/token`, IDENTITY_HEADER: secret },
      machineLearning: { MSI_ENDPOINT: `${server.url}/ml/token`, MSI_SECRET: secret, DEFAULT_IDENTITY_CLIENT_ID: '' },
      arc: { IDENTITY_ENDPOINT: `${server.url}/arc/token`, IMDS_ENDPOINT: server.url },
    },
    arcKeys,
    identities: [],
    lifetime: 3600,
    close: () => server.close(),
  };
  const arcKey = join(arcKeys, 'challenge.key');
  await writeFile(arcKey, secret);

  function serve({ path, headers }: WireRequest): WireAnswer {
    const { pathname, searchParams: query } = new URL(path, 'http://agent');
    const version = query.get('api-version');
    switch (pathname) {
      case '/metadata/identity/oauth2/token':
        if (headers.metadata !== 'true' || version !== '2018-02-01')
          return refusal('Required metadata header not specified');
        return give(query, 'client_id', { expires_in: String(agents.lifetime) });
      case '/msi/token':
        if (headers['x-identity-header'] !== secret || version !== '2019-08-01') return { status: 401, body: '' };
        return give(query, 'client_id');
      case '/ml/token':
        if (headers.secret !== secret || version !== '2017-09-01') return { status: 401, body: '' };
        return give(query, 'clientid');
      case '/arc/token':
        if (headers.metadata !== 'true' || version !== '2020-06-01') return refusal('bad request');
        if (headers.authorization !== `Basic ${secret}`) {
          return { status: 401, headers: { 'WWW-Authenticate': `Basic realm=${arcKey}` }, body: '' };
        }
        return give(query, 'client_id');
      default:
        return { status: 404, body: '' };
    }
  }

  /** @param more what only this agent says: IMDS, beside when a token ends, in how many seconds */
  function give(query: URLSearchParams, parameter: string, more: object = {}): WireAnswer {
    const { identities } = agents;
    const asked = query.get(parameter) ?? undefined;
    if (asked === undefined && identities.length > 1) {
      return refusal(
        'Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request',
      );
    }
    const client_id = asked ?? identities[0];
    if (client_id === undefined || !identities.includes(client_id)) return refusal('Identity not found');
    const expires_on = String(Math.floor(Date.now() / 1000) + agents.lifetime);
    const resource = query.get('resource') ?? '';
    const access_token = issue(resource, agents.lifetime);
    return {
      status: 200,
      body: JSON.stringify({ access_token, client_id, expires_on, resource, token_type: 'Bearer', ...more }),
    };
  }
  return agents;
}

function refusal(error_description: string): WireAnswer {
  return { status: 400, body: JSON.stringify({ error: 'invalid_request', error_description }) };
}
