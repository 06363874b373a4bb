/** Everything that gives credentials for AWS, on this machine, with a key that they are good for. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { type AwsKmsSettings, openAwsKms } from '../../../src/kms/awskms/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type AccessKey, type FakeAwsKms, startFakeAwsKms } from '../../fakes/aws-kms.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from '../../fakes/wire.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

export const TEMPORARY: AccessKey = {
  id: 'ASIATEMPORARY0000000',
  secret: 'temporary-secret',
  token: 'session/token+==',
};
export const ROLE = 'arn:aws:iam::111122223333:role/image';
export const WEB_IDENTITY = 'eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl';
export const SSO_TOKEN = 'sso-access-token';

export type AwsWorld = {
  readonly directory: string;
  readonly kms: FakeAwsKms;
  readonly arn: string;
  /** STS, the portal and the token service of single sign-on, over TLS. */
  readonly sts: WireServer;
  /** IMDS, and the container's agent below /container, without TLS. */
  readonly metadata: WireServer;
  /** When what they give ends. */
  expiration: () => string;
  /** Writes below the home directory, for this user alone, and returns the path. */
  readonly write: (name: string, content: string) => Promise<string>;
  /** A key, opened with this environment beside that of the world; the home has no file but those of `files`. */
  readonly open: (
    environment: Readonly<Record<string, string>>,
    files?: Readonly<Record<string, string>>,
    more?: Partial<AwsKmsSettings>,
  ) => Promise<Kek>;
  readonly close: () => Promise<void>;
};

export async function startAwsWorld(): Promise<AwsWorld> {
  const directory = await mkdtemp(join(tmpdir(), 'aws-world-'));
  const ca = await createCertificateAuthority(directory);
  const tls = await ca.issue('server');
  const kms = await startFakeAwsKms({ tls });
  kms.issue(TEMPORARY);
  const arn = kms.createKey();
  const opened: Kek[] = [];
  let homes = 0;
  const sts = await startWireServer((request) => answerSts(request, world), { tls });
  const metadata = await startWireServer((request) => answerMetadata(request, world));
  const write = async (name: string, content: string) => {
    const path = join(directory, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content, { mode: 0o600 });
    return path;
  };
  const world: AwsWorld = {
    directory,
    kms,
    arn,
    sts,
    metadata,
    expiration: () => '2099-01-01T00:00:00Z',
    write,
    async open(environment, files = {}, more = {}) {
      const home = `home-${homes++}`;
      await mkdir(join(directory, home), { recursive: true });
      for (const [name, content] of Object.entries(files)) await write(join(home, name), content);
      const uri = parseKeyUri(arn);
      assert.ok(uri.scheme === 'awskms');
      const kek = openAwsKms(uri, {
        endpoint: kms.endpoint,
        caFiles: [ca.certificate],
        ...more,
        environment: {
          HOME: join(directory, home),
          PATH: process.env.PATH,
          AWS_ENDPOINT_URL_STS: sts.url,
          AWS_ENDPOINT_URL_SSO: sts.url,
          AWS_ENDPOINT_URL_SSO_OIDC: sts.url,
          AWS_EC2_METADATA_DISABLED: 'true',
          ...environment,
        },
      });
      opened.push(kek);
      return kek;
    },
    async close() {
      for (const kek of opened) kek.close?.();
      await Promise.all([kms.close(), sts.close(), metadata.close()]);
      await rm(directory, { recursive: true, force: true });
    },
  };
  return world;
}

/** The profile `sso` of a home whose session is named, and where its token is kept. */
export const SSO_CONFIG = `[profile sso]
sso_session=s
sso_account_id=111122223333
sso_role_name=image
[sso-session s]
sso_start_url=https://start.test
sso_region=eu-west-1
`;

export function ssoCache(session: string): string {
  return `.aws/sso/cache/${createHash('sha1').update(session).digest('hex')}.json`;
}

/** A session as `aws sso login` leaves it. */
export function ssoSession(expiresAt: string, more: Readonly<Record<string, string>> = {}): string {
  return JSON.stringify({ accessToken: SSO_TOKEN, expiresAt, region: 'eu-west-1', ...more });
}

/** What a `credential_process` writes. */
export function processOutput(members: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({
    Version: 1,
    AccessKeyId: TEMPORARY.id,
    SecretAccessKey: TEMPORARY.secret,
    SessionToken: TEMPORARY.token,
    ...members,
  });
}

function answerSts(request: WireRequest, world: AwsWorld): WireAnswer {
  if (request.path.startsWith('/federation/credentials?')) return answerPortal(request, world);
  if (request.path === '/token') return answerOidc(request);
  const form = new URLSearchParams(Buffer.from(request.body).toString());
  const action = form.get('Action') ?? '';
  const headers = { 'Content-Type': 'text/xml' };
  const refuse = (code: string) => ({
    status: 400,
    headers,
    body: `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>told</Message></Error><RequestId>1</RequestId></ErrorResponse>`,
  });
  const isSigned = request.headers.authorization?.includes(`Credential=${world.kms.accessKey.id}/`);
  if (action === 'AssumeRole' && !isSigned) return refuse('InvalidClientTokenId');
  if (action === 'AssumeRoleWithWebIdentity' && form.get('WebIdentityToken') !== WEB_IDENTITY) {
    return refuse('InvalidIdentityToken');
  }
  if (form.get('RoleArn') !== ROLE) return { ...refuse('AccessDenied'), status: 403 };
  const credentials = `<Credentials><AccessKeyId>${TEMPORARY.id}</AccessKeyId><SecretAccessKey>${TEMPORARY.secret}</SecretAccessKey><SessionToken>${TEMPORARY.token}</SessionToken><Expiration>${world.expiration()}</Expiration></Credentials>`;
  const body = `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>${credentials}</${action}Result></${action}Response>`;
  return { status: 200, headers, body };
}

function answerPortal({ headers, path }: WireRequest, world: AwsWorld): WireAnswer {
  if (!(headers['x-amz-sso_bearer_token'] ?? '').startsWith(SSO_TOKEN))
    return { status: 401, body: '{"message":"told"}' };
  if (!path.includes('role_name=image&account_id=111122223333')) return { status: 403, body: '{"message":"told"}' };
  const roleCredentials = {
    accessKeyId: TEMPORARY.id,
    secretAccessKey: TEMPORARY.secret,
    sessionToken: TEMPORARY.token,
    expiration: Date.parse(world.expiration()),
  };
  return { status: 200, body: JSON.stringify({ roleCredentials }) };
}

function answerOidc({ body }: WireRequest): WireAnswer {
  const { grantType, refreshToken } = JSON.parse(Buffer.from(body).toString());
  return grantType === 'refresh_token' && refreshToken === 'refresh-1'
    ? {
        status: 200,
        body: JSON.stringify({ accessToken: `${SSO_TOKEN}-2`, expiresIn: 3600, refreshToken: 'refresh-2' }),
      }
    : { status: 400, body: '{"error":"invalid_grant"}' };
}

function answerMetadata({ method, path, headers }: WireRequest, world: AwsWorld): WireAnswer {
  const role = '/latest/meta-data/iam/security-credentials/';
  const credentials = JSON.stringify({
    Code: 'Success',
    AccessKeyId: TEMPORARY.id,
    SecretAccessKey: TEMPORARY.secret,
    Token: TEMPORARY.token,
    Expiration: world.expiration(),
  });
  if (path === '/container') {
    return headers.authorization === 'pod' ? { status: 200, body: credentials } : { status: 403, body: '' };
  }
  if (method === 'PUT' && path === '/latest/api/token') return { status: 200, body: 'imds-token' };
  if (headers['x-aws-ec2-metadata-token'] !== 'imds-token') return { status: 401, body: '' };
  if (path === role) return { status: 200, body: 'image' };
  return path === `${role}image` ? { status: 200, body: credentials } : { status: 404, body: '' };
}
