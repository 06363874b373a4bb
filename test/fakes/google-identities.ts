/**
 * Who is who in the fake Google: service accounts with real RSA keys, and the access tokens that were issued. The token
 * services issue, the key service asks `identify` whom a bearer token belongs to, as Google does.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, verify } from 'node:crypto';

/** The credentials file of a service account, as the console downloads it. */
export type ServiceAccountFile = {
  readonly type: 'service_account';
  readonly project_id: string;
  readonly private_key_id: string;
  readonly private_key: string;
  readonly client_email: string;
  readonly client_id: string;
  readonly token_uri: string;
  readonly [member: string]: string;
};

export type Claims = Readonly<Record<string, unknown>>;

export class GoogleIdentities {
  readonly #accounts = new Map<string, KeyObject>();
  readonly #tokens = new Map<string, { readonly principal: string; readonly end: number }>();
  /** How far this side's clock is ahead, in seconds: tokens of a caller look that much older. */
  clockSkew = 0;

  /** A new service account and its key file. */
  createServiceAccount(name: string, project = 'test-project'): ServiceAccountFile {
    const email = `${name}@${project}.iam.gserviceaccount.com`;
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    this.#accounts.set(email, publicKey);
    return {
      type: 'service_account',
      project_id: project,
      private_key_id: randomBytes(20).toString('hex'),
      private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      client_email: email,
      client_id: '100000000000000000001',
      token_uri: 'https://oauth2.googleapis.com/token',
      universe_domain: 'googleapis.com',
    };
  }

  /** An access token for a principal, good for some seconds. */
  issue(principal: string, seconds = 3600): string {
    const token = `ya29.${randomBytes(32).toString('base64url')}`;
    this.#tokens.set(token, { principal, end: this.now() + seconds });
    return token;
  }

  /** Makes every token that was issued useless. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** Whom `Authorization` names, or undefined where it is not good now. */
  identify(authorization: string | undefined): string | undefined {
    const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1];
    if (token === undefined) return undefined;
    const issued = this.#tokens.get(token);
    if (issued !== undefined) return this.now() < issued.end ? issued.principal : undefined;
    const claims = this.verifyAssertion(token);
    return claims !== undefined && ('scope' in claims || 'aud' in claims) ? String(claims.iss) : undefined;
  }

  /** The claims of a JWT that one of the service accounts signed (RS256), or undefined. */
  verifyAssertion(token: string): Claims | undefined {
    const [header = '', payload = '', signature = '', ...more] = token.split('.');
    if (more.length > 0 || signature === '') return undefined;
    const { alg } = parseClaims(header) ?? {};
    const claims = parseClaims(payload);
    const key = this.#accounts.get(String(claims?.iss));
    if (alg !== 'RS256' || claims === undefined || key === undefined) return undefined;
    if (!verify('sha256', Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, 'base64url')))
      return undefined;
    const [start, end] = [Number(claims.iat), Number(claims.exp)];
    // Google allows for clocks that are a few minutes apart.
    const valid = start - 300 <= this.now() && this.now() < end && end - start <= 3600;
    return valid ? claims : undefined;
  }

  now(): number {
    return Math.floor(Date.now() / 1000) + this.clockSkew;
  }
}

function parseClaims(part: string): Claims | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof claims === 'object' && claims !== null ? { ...claims } : undefined;
  } catch {
    return undefined;
  }
}
