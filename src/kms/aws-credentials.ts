// Who we are to AWS: keys of the environment, else the credential chain of AWS's own SDK, loaded only then.
// What the chain asks of STS and of single sign-on goes through our client, so that CA files, proxy and time limits hold there too.

import { OcicryptError } from '../base/errors.ts';
import { type HttpClient, parseRetryAfter } from '../base/http.ts';
import { share } from '../base/share.ts';
import { sharedFiles } from './aws-endpoint.ts';
import { untilAborted } from './until-aborted.ts';

/** An access key, as requests are signed with it. */
export type AwsIdentity = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
};

/** Credentials that are found once and kept until shortly before they end. */
export interface AwsCredentials {
  /** @throws OcicryptError `unauthenticated` where there are none, `unavailable`, `deadline-exceeded` */
  read(signal: AbortSignal): Promise<AwsIdentity>;
  /** Throws the identity away, because the service did not take it. */
  forget(): void;
}

/** As long before their end as AWS's SDKs renew temporary credentials. */
const REFRESH_MILLISECONDS = 5 * 60 * 1000;

/**
 * Opens the credentials that AWS's SDK would find, in its order: AWS_ACCESS_KEY_ID (unless AWS_PROFILE is set), the
 * profile in the shared files (static keys, assumed role, web identity, process, single sign-on, login), web identity
 * of AWS_WEB_IDENTITY_TOKEN_FILE (EKS), container endpoints (ECS, EKS Pod Identity), the instance's role (IMDSv2).
 *
 * @param region where STS is asked
 */
export function openAwsCredentials(environment: NodeJS.ProcessEnv, http: HttpClient, region: string): AwsCredentials {
  let identity: AwsIdentity | undefined;
  const refresh = share(async (signal) => {
    identity = readEnvironment(environment) ?? (await runChain(environment, http, region, signal));
    return identity;
  });
  const remaining = () =>
    identity === undefined ? 0 : (identity.expiration?.getTime() ?? Number.POSITIVE_INFINITY) - Date.now();
  return {
    async read(signal) {
      if (identity !== undefined && remaining() > REFRESH_MILLISECONDS) return identity;
      const previous = identity;
      try {
        return await refresh(signal);
      } catch (error) {
        // What cannot be renewed now is good until it ends.
        if (previous !== undefined && remaining() > 0) return previous;
        throw signal.aborted ? tooSlow(error) : error;
      }
    },
    forget() {
      identity = undefined;
    },
  };
}

/** What the SDK's first link does, without the time that loading the SDK takes. */
function readEnvironment(environment: NodeJS.ProcessEnv): AwsIdentity | undefined {
  const { AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } = environment;
  if (AWS_PROFILE || !AWS_ACCESS_KEY_ID || !AWS_SECRET_ACCESS_KEY) return undefined;
  return {
    accessKeyId: AWS_ACCESS_KEY_ID,
    secretAccessKey: AWS_SECRET_ACCESS_KEY,
    ...(AWS_SESSION_TOKEN ? { sessionToken: AWS_SESSION_TOKEN } : {}),
  };
}

/** Without it, the SDK prints warnings on its own. */
const SILENCE = { debug() {}, info() {}, warn() {}, error() {} };

/** A new chain each time: the SDK's own memory would outlive the signal that its requests are made with. */
async function runChain(
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  region: string,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const { defaultProvider } = await import('@aws-sdk/credential-provider-node');
  const transport = new Transport(http, signal);
  const chain = defaultProvider({
    ...sharedFiles(environment),
    ...(environment.AWS_PROFILE ? { profile: environment.AWS_PROFILE } : {}),
    ...(environment.AWS_WEB_IDENTITY_TOKEN_FILE
      ? { webIdentityTokenFile: environment.AWS_WEB_IDENTITY_TOKEN_FILE }
      : {}),
    ...(environment.AWS_ROLE_ARN ? { roleArn: environment.AWS_ROLE_ARN } : {}),
    ...(environment.AWS_ROLE_SESSION_NAME ? { roleSessionName: environment.AWS_ROLE_SESSION_NAME } : {}),
    logger: SILENCE,
    clientConfig: { requestHandler: transport, maxAttempts: 1, logger: SILENCE },
    parentClientConfig: { region },
  });
  try {
    // Metadata services are asked by the SDK's own client, which has limits of a second and takes no signal.
    return await untilAborted(chain(), signal);
  } catch {
    // Without a cause: the SDK's errors hold requests and answers, and quote files.
    throw transport.failure ?? noCredentials();
  }
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

/** Our HTTP client as the SDK's, for one run of the chain; it remembers what went wrong, because the SDK obscures it. */
class Transport {
  failure: OcicryptError | undefined;
  readonly metadata = { handlerProtocol: 'http/1.1' };
  readonly #http: HttpClient;
  readonly #signal: AbortSignal;

  constructor(http: HttpClient, signal: AbortSignal) {
    this.#http = http;
    this.#signal = signal;
  }

  async handle(request: SdkRequest) {
    const { host: _, 'content-length': __, ...headers } = request.headers;
    try {
      const answer = await this.#http.request({
        method: readMethod(request.method),
        url: formatUrl(request),
        headers,
        body: readBody(request.body),
        signal: this.#signal,
      });
      if (answer.status >= 400)
        this.failure = refusedBy(request.hostname, answer.status, parseRetryAfter(answer.headers));
      return { response: { statusCode: answer.status, headers: { ...answer.headers }, body: answer.body } };
    } catch (error) {
      if (error instanceof OcicryptError) this.failure = error;
      throw error;
    }
  }

  updateHttpClientConfig(): void {}

  httpHandlerConfigs() {
    return {};
  }

  destroy(): void {}
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

function readMethod(method: string): 'GET' | 'POST' {
  if (method === 'GET' || method === 'POST') return method;
  throw new OcicryptError('internal', 'the credential chain made an unexpected request');
}

function readBody(body: unknown): Uint8Array | undefined {
  if (body === undefined) return undefined;
  if (typeof body === 'string') return new TextEncoder().encode(body);
  if (body instanceof Uint8Array) return body;
  throw new OcicryptError('internal', 'the credential chain made an unexpected request');
}

function refusedBy(host: string, status: number, retryAfter: number | undefined): OcicryptError {
  if (status === 429 || status >= 500) {
    return new OcicryptError('unavailable', `${host} gives no AWS credentials now (${status})`, {
      hint: 'try again later',
      retryable: true,
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
  }
  return new OcicryptError('unauthenticated', `${host} refuses AWS credentials (${status})`, {
    hint: 'check the role and whom it trusts, or renew the session with: aws sso login',
  });
}

function noCredentials(): OcicryptError {
  return new OcicryptError('unauthenticated', 'there are no AWS credentials that can be used', {
    hint: 'see which are found with: aws sts get-caller-identity',
  });
}

function tooSlow(cause: unknown): OcicryptError {
  return new OcicryptError('deadline-exceeded', 'no AWS credentials came in time', {
    cause,
    hint: 'check that STS or the metadata service can be reached from here, and the proxy if there is one',
    retryable: true,
  });
}
