/**
 * The places where Google's credentials get their tokens, on this machine: OAuth 2.0 (oauth2.googleapis.com), the
 * Security Token Service (sts.googleapis.com), impersonation (iamcredentials.googleapis.com), and in clear the metadata
 * servers of Google and of AWS and a URL of subject tokens. One TLS server answers for all of Google's names, and a
 * CONNECT proxy brings it every connection that was meant for them, so that credentials are used as they are in the
 * world: `HTTPS_PROXY` and a CA file are all that is special.
 */
import { createHash } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import type { GoogleIdentities } from './google-identities.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

/** The names for which the TLS server's certificate must be good. */
export const GOOGLE_NAMES = [
  'oauth2.googleapis.com',
  'sts.googleapis.com',
  'iamcredentials.googleapis.com',
  'cloudkms.googleapis.com',
  // Google's library looks for the name of a federation's project there, and does without.
  'cloudresourcemanager.googleapis.com',
];

/** What the token services know. */
export type TokenWorld = {
  /** Refresh tokens of users, and whom they belong to. */
  readonly refreshTokens: Map<string, string>;
  /** Subject tokens of a workload pool, and whom they belong to. */
  readonly subjectTokens: Map<string, string>;
  /** `SOURCE TARGET` pairs: who may impersonate whom. */
  readonly impersonations: Set<string>;
  /** The service account of the machine, if it has one. */
  machine: string | undefined;
  /** The domain of the cloud that the machine is in; without one its server knows no such thing, as older ones. */
  universe?: string | undefined;
  /** How long tokens live, in seconds. */
  lifetime: number;
};

export interface FakeGoogleTokens {
  readonly world: TokenWorld;
  /** Google's token services, over TLS. */
  readonly services: WireServer;
  /** The metadata servers and the URL of subject tokens, in clear; `GCE_METADATA_HOST` is its `metadataHost`. */
  readonly metadata: WireServer;
  readonly metadataHost: string;
  /** For HTTPS_PROXY. */
  readonly proxy: string;
  /** Sends connections for a host (`HOST:PORT`) to a port of this machine instead of the token services. */
  readonly routes: Map<string, number>;
  /** The hosts that the proxy was asked for. */
  readonly proxied: readonly string[];
  close(): Promise<void>;
}

/** Thrown to refuse as OAuth does (RFC 6749 section 5.2). */
class OAuthError extends Error {
  readonly status: number;
  constructor(error: string, status = 400) {
    super(error);
    this.status = status;
  }
}

export async function startFakeGoogleTokens(
  identities: GoogleIdentities,
  tls: CertificateFiles,
): Promise<FakeGoogleTokens> {
  const world: TokenWorld = {
    refreshTokens: new Map(),
    subjectTokens: new Map(),
    impersonations: new Set(),
    machine: undefined,
    lifetime: 3600,
  };
  const routes = new Map<string, number>();
  const proxied: string[] = [];
  const services = await startWireServer(
    guard((request) => serveGoogle(request, identities, world)),
    { tls },
  );
  const metadata = await startWireServer(guard((request) => serveMetadata(request, identities, world)));
  const proxy = await startProxy((host) => {
    proxied.push(host);
    return routes.get(host) ?? services.port;
  });
  return {
    world,
    services,
    metadata,
    metadataHost: `127.0.0.1:${metadata.port}`,
    proxy: `http://127.0.0.1:${proxy.port}`,
    routes,
    proxied,
    async close() {
      await Promise.all([services.close(), metadata.close(), proxy.close()]);
    },
  };
}

function guard(serve: (request: WireRequest) => unknown): (request: WireRequest) => WireAnswer {
  return (request) => {
    try {
      const answer = serve(request);
      return typeof answer === 'string'
        ? { status: 200, body: answer, headers: { 'Content-Type': 'text/plain' } }
        : { status: 200, body: JSON.stringify(answer), headers: { 'Metadata-Flavor': 'Google' } };
    } catch (error) {
      if (!(error instanceof OAuthError)) throw error;
      const body = { error: error.message, error_description: 'A secret told by the token service.' };
      return { status: error.status, body: JSON.stringify(body) };
    }
  };
}

function serveGoogle(request: WireRequest, identities: GoogleIdentities, world: TokenWorld): unknown {
  const host = request.headers.host ?? '';
  const service = `${host.split('.')[0]} ${request.path}`;
  if (request.method !== 'POST') throw new OAuthError('not_found', 404);
  switch (service) {
    case 'oauth2 /token':
      return grantToken(new URLSearchParams(text(request)), identities, world);
    case 'sts /v1/token':
      return exchangeToken(new URLSearchParams(text(request)), identities, world);
    default: {
      const target = /^iamcredentials \/v1\/projects\/-\/serviceAccounts\/([^/:]+):generateAccessToken$/.exec(
        service,
      )?.[1];
      if (target === undefined) throw new OAuthError('not_found', 404);
      return impersonate(target, request, identities, world);
    }
  }
}

function grantToken(form: URLSearchParams, identities: GoogleIdentities, world: TokenWorld): unknown {
  let principal: string | undefined;
  switch (form.get('grant_type')) {
    case 'refresh_token':
      if (form.get('client_id') === null || form.get('client_secret') === null)
        throw new OAuthError('invalid_client', 401);
      principal = world.refreshTokens.get(form.get('refresh_token') ?? '');
      break;
    case 'urn:ietf:params:oauth:grant-type:jwt-bearer': {
      const claims = identities.verifyAssertion(form.get('assertion') ?? '');
      principal = claims === undefined ? undefined : String(claims.iss);
      break;
    }
    default:
      throw new OAuthError('unsupported_grant_type');
  }
  if (principal === undefined) throw new OAuthError('invalid_grant');
  return {
    access_token: identities.issue(principal, world.lifetime),
    expires_in: world.lifetime,
    token_type: 'Bearer',
  };
}

function exchangeToken(form: URLSearchParams, identities: GoogleIdentities, world: TokenWorld): unknown {
  if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:token-exchange') {
    throw new OAuthError('unsupported_grant_type');
  }
  const subject = form.get('subject_token') ?? '';
  const type = form.get('subject_token_type');
  const principal =
    type === 'urn:ietf:params:aws:token-type:aws4_request' ? identifyAws(subject) : world.subjectTokens.get(subject);
  if (principal === undefined) throw new OAuthError('invalid_grant');
  return {
    access_token: identities.issue(principal, world.lifetime),
    issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    token_type: 'Bearer',
    expires_in: world.lifetime,
  };
}

/** A signed GetCallerIdentity request; its signature is for AWS to check, which this is not. */
function identifyAws(subject: string): string | undefined {
  const signed: unknown = JSON.parse(decodeURIComponent(subject));
  const shown = JSON.stringify(signed);
  const isSigned = /"AWS4-HMAC-SHA256 Credential=AKIDFAKE\/\d{8}\/[a-z0-9-]+\/sts\/aws4_request,/.test(shown);
  return isSigned && /Action=GetCallerIdentity/.test(shown) ? 'aws-role' : undefined;
}

function impersonate(target: string, request: WireRequest, identities: GoogleIdentities, world: TokenWorld): unknown {
  const source = identities.identify(request.headers.authorization);
  if (source === undefined) throw new OAuthError('unauthenticated', 401);
  if (!world.impersonations.has(`${source} ${target}`)) throw new OAuthError('permission_denied', 403);
  // Whole seconds: Google's own clients read no others.
  const expireTime = new Date(Date.now() + world.lifetime * 1000).toISOString().replace(/\.\d+Z$/, 'Z');
  return { accessToken: identities.issue(target, world.lifetime), expireTime };
}

function serveMetadata(request: WireRequest, identities: GoogleIdentities, world: TokenWorld): unknown {
  const [path = ''] = request.path.split('?');
  switch (`${request.method} ${path}`) {
    case 'GET /subject-token':
      return { value: 'subject-of-url' };
    case 'PUT /latest/api/token':
      return 'imds-session';
    case 'GET /latest/meta-data/placement/availability-zone':
      return 'eu-central-1b';
    case 'GET /latest/meta-data/iam/security-credentials':
      return 'role';
    case 'GET /latest/meta-data/iam/security-credentials/role':
      if (request.headers['x-aws-ec2-metadata-token'] !== 'imds-session') throw new OAuthError('unauthorized', 401);
      return {
        AccessKeyId: 'AKIDFAKE',
        SecretAccessKey: createHash('sha256').update('x').digest('hex'),
        Token: 'session',
      };
    default:
  }
  if (request.headers['metadata-flavor'] !== 'Google' && path !== '/') throw new OAuthError('missing header', 403);
  if (path === '/') return {};
  if (path === '/computeMetadata/v1/universe/universe-domain' && world.universe !== undefined) return world.universe;
  const account = '/computeMetadata/v1/instance/service-accounts/default/';
  if (!path.startsWith(account) || world.machine === undefined) throw new OAuthError('not_found', 404);
  if (path === account) {
    return { aliases: ['default'], email: world.machine, scopes: ['https://www.googleapis.com/auth/cloud-platform'] };
  }
  if (path !== `${account}token` && path !== `/computeMetadata/v1/instance/service-accounts/${world.machine}/token`) {
    throw new OAuthError('not_found', 404);
  }
  return {
    access_token: identities.issue(world.machine, world.lifetime),
    expires_in: world.lifetime,
    token_type: 'Bearer',
  };
}

async function startProxy(route: (host: string) => number): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  };
  const server = createServer({ noDelay: true }, (socket) => {
    track(socket);
    socket.once('data', (head) => {
      const host = /^CONNECT (\S+) HTTP\/1\.[01]\r\n/.exec(head.toString('latin1'))?.[1];
      if (host === undefined) return socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
      const upstream = connect({ port: route(host), host: '127.0.0.1', noDelay: true }, () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        socket.pipe(upstream).pipe(socket);
      });
      track(upstream);
      socket.on('close', () => upstream.destroy());
      upstream.on('close', () => socket.destroy());
      return undefined;
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function text(request: WireRequest): string {
  return Buffer.from(request.body).toString();
}
