// A token server for a real registry, over TLS on loopback: https://distribution.github.io/distribution/spec/auth/token/
// and, for identity tokens, …/spec/auth/oauth/. The registry checks its signatures.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import { text } from 'node:stream/consumers';
import { importPKCS8, SignJWT } from 'jose';
import type { CertificateFiles } from '../fixtures/certificates.ts';

/** Who gets which tokens. */
export type TokenServerOptions = {
  /** `NAME:PASSWORD` to the actions that it may be granted: `pull`, `push`. */
  readonly accounts: Readonly<Record<string, readonly string[]>>;
  /** The account that a refresh token stands for. */
  readonly refreshTokens?: Readonly<Record<string, string>>;
};

export type TokenServer = {
  /** What the registry's configuration says of it. */
  readonly forRegistry: Readonly<Record<string, string>>;
  /** Every request: what it asked for, and whom it came from; undefined where it came without credentials. */
  readonly requests: { readonly scopes: readonly string[]; readonly account: string | undefined }[];
  /** Seconds that new tokens are valid. Registries take a token for a minute more. */
  lifetime: number;
  stop(): void;
};

const SERVICE = 'registry of a test';
const ISSUER = 'tokens of a test';

/** @param files the server's certificate, with whose key tokens are signed too, and the authority that the registry trusts */
export async function startTokenServer(
  files: CertificateFiles & { readonly authority: string },
  { accounts, refreshTokens = {} }: TokenServerOptions,
): Promise<TokenServer> {
  const [cert, key] = await Promise.all([readFile(files.certificate), readFile(files.privateKey)]);
  const signer = await importPKCS8(key.toString(), 'ES256');
  const x5c = [new X509Certificate(cert).raw.toString('base64')];
  const state = { requests: [] as TokenServer['requests'][number][], lifetime: 300 };

  async function answer(request: IncomingMessage): Promise<{ readonly status: number; readonly body: object }> {
    const url = new URL(request.url ?? '/', 'https://tokens');
    const posted = new URLSearchParams(request.method === 'POST' ? await text(request) : '');
    const asked = request.method === 'POST' ? posted : url.searchParams;
    const [, basic] = /^Basic (.+)$/.exec(request.headers.authorization ?? '') ?? [];
    const refreshToken = posted.get('grant_type') === 'refresh_token' ? (posted.get('refresh_token') ?? '') : undefined;
    const account =
      refreshToken === undefined
        ? basic && Buffer.from(basic, 'base64').toString()
        : (refreshTokens[refreshToken] ?? 'unknown');
    const scopes = asked.getAll('scope').flatMap((scope) => scope.split(' '));
    state.requests.push({ scopes, account });
    const allowed = account === undefined ? [] : accounts[account];
    if (allowed === undefined || asked.get('service') !== SERVICE) return { status: 401, body: {} };
    const access = scopes.map((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',').filter((action) => allowed.includes(action)) };
    });
    const now = Math.floor(Date.now() / 1000);
    const token = await new SignJWT({ access })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', x5c })
      .setIssuer(ISSUER)
      .setSubject(account ?? '')
      .setAudience(SERVICE)
      .setNotBefore(now - 600)
      .setIssuedAt(now)
      .setExpirationTime(now + state.lifetime)
      .setJti(`${state.requests.length}`)
      .sign(signer);
    return { status: 200, body: refreshToken === undefined ? { token } : { access_token: token } };
  }

  const server = createServer({ cert, key }, (request, response) => {
    answer(request).then(
      ({ status, body }) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)),
      () => response.destroy(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const realm = `https://127.0.0.1:${port}/token`;
  return Object.assign(state, {
    forRegistry: { realm, service: SERVICE, issuer: ISSUER, rootcertbundle: files.authority },
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  });
}
