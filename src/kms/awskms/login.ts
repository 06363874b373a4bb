// The only code that loads AWS's SDK for credentials: sessions that `aws login` has opened, whose renewal is signed.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { notNow } from '../answers.ts';
import { LibraryHttp } from '../library-http.ts';
import { missingPeer } from '../peer-package.ts';
import { type AwsIdentity, checkIdentity } from './identity.ts';
import { expandHome, homeOf, sharedFiles } from './profiles.ts';

/** Without it, the SDK prints warnings on its own. */
const SILENCE = { debug() {}, info() {}, warn() {}, error() {} };

/** @throws OcicryptError `unauthenticated` with the login to run, `unavailable` */
export async function readLoginCredentials(
  profile: string,
  session: string,
  region: string,
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const directory = environment.AWS_LOGIN_CACHE_DIRECTORY || join(homeOf(environment), '.aws', 'login', 'cache');
  const file = join(expandHome(directory, environment), `${createHash('sha256').update(session).digest('hex')}.json`);
  if (!existsSync(file)) throw ended(profile, 'was never opened here');
  const { fromLoginCredentials } = await import('@aws-sdk/credential-provider-login').catch(
    missingPeer('@aws-sdk/credential-provider-login', 'sessions of aws login'),
  );
  const transport = new LibraryHttp(http, signal);
  const clientConfig = { requestHandler: createRequestHandler(transport), maxAttempts: 1, logger: SILENCE };
  try {
    const found = await fromLoginCredentials({ profile, ...sharedFiles(environment), logger: SILENCE, clientConfig })({
      callerClientConfig: { region: async () => region },
    });
    return checkIdentity(`profile ${profile}`, { ...found, expiration: found.expiration?.toISOString() });
  } catch {
    // Without a cause: the SDK's errors hold requests and answers, and quote files.
    throw transport.failure ?? ended(profile, 'has expired');
  }
}

function ended(profile: string, how: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the login session of profile ${profile} ${how}`, {
    hint: `aws login --profile ${profile}`,
  });
}

/** The request of the SDK's clients, as far as it is needed here. */
type SdkRequest = {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
};

/** Our HTTP client as the SDK's. */
function createRequestHandler(transport: LibraryHttp) {
  return {
    metadata: { handlerProtocol: 'http/1.1' },
    async handle(request: SdkRequest) {
      const { host: _, 'content-length': __, ...headers } = request.headers;
      const {
        status,
        headers: answered,
        body,
      } = await transport.send(
        {
          method: request.method,
          url: formatUrl(request),
          headers,
          body: readBody(request.body),
          role: 'token service',
        },
        (answer) => notNow(`the token service ${request.hostname}`, 'AWS credentials', answer),
      );
      return { response: { statusCode: status, headers: { ...answered }, body } };
    },
    updateHttpClientConfig() {},
    httpHandlerConfigs: () => ({}),
    destroy() {},
  };
}

function formatUrl({ protocol, hostname, port, path, query }: SdkRequest): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
    (value === null ? [''] : typeof value === 'string' ? [value] : value).map(
      (one) => `${encodeURIComponent(name)}=${encodeURIComponent(one)}`,
    ),
  );
  const search = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  return `${protocol}//${hostname}${port === undefined ? '' : `:${port}`}${path}${search}`;
}

function readBody(body: unknown): Uint8Array | undefined {
  if (body === undefined) return undefined;
  if (typeof body === 'string') return new TextEncoder().encode(body);
  if (body instanceof Uint8Array) return body;
  throw new OcicryptError('internal', "AWS's SDK made an unexpected request");
}
