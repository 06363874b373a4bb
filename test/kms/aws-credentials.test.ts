// The credential chain of AWS: each kind of credentials, from the services that give them, in a process of its own.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type AccessKey, type FakeAwsKms, startFakeAwsKms } from '../fakes/aws-kms.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from '../fakes/wire.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { wrapOnce } from '../fixtures/wrap-once.ts';

const TEMPORARY: AccessKey = { id: 'ASIATEMPORARY0000000', secret: 'temporary-secret', token: 'session/token+==' };
const ROLE = 'arn:aws:iam::111122223333:role/image';
const WEB_IDENTITY = 'eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl';

let directory: string;
let authority: string;
let kms: FakeAwsKms;
let arn: string;
let sts: WireServer;
let metadata: WireServer;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'aws-credentials-'));
  const ca = await createCertificateAuthority(directory);
  authority = ca.certificate;
  const tls = await ca.issue('server');
  kms = await startFakeAwsKms({ tls });
  kms.issue(TEMPORARY);
  arn = kms.createKey();
  sts = await startWireServer(answerSts, { tls });
  metadata = await startWireServer(answerMetadata);
});
after(async () => {
  await Promise.all([kms.close(), sts.close(), metadata.close()]);
  await rm(directory, { recursive: true, force: true });
});

async function wrap(environment: Readonly<Record<string, string>>, milliseconds?: number): Promise<string> {
  return wrapOnce({
    key: arn,
    settings: { endpoint: kms.endpoint, caFiles: [authority] },
    environment: {
      HOME: directory,
      AWS_CONFIG_FILE: join(directory, 'config'),
      AWS_SHARED_CREDENTIALS_FILE: join(directory, 'credentials'),
      AWS_ENDPOINT_URL_STS: sts.url,
      AWS_EC2_METADATA_DISABLED: 'true',
      ...environment,
    },
    ...(milliseconds === undefined ? {} : { milliseconds }),
  });
}

describe('AWS credentials come from', () => {
  test('variables, with and without a session', async () => {
    const { id, secret } = kms.accessKey;
    assert.equal(await wrap({ AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret }), 'ok');
    const session = { AWS_ACCESS_KEY_ID: TEMPORARY.id, AWS_SECRET_ACCESS_KEY: TEMPORARY.secret };
    assert.equal(await wrap({ ...session, AWS_SESSION_TOKEN: TEMPORARY.token ?? '' }), 'ok');
    assert.equal(await wrap(session), 'unauthenticated');
  });

  test('a profile: keys, an assumed role, a process', async () => {
    const { id, secret } = kms.accessKey;
    const keys = `aws_access_key_id=${id}\naws_secret_access_key=${secret}\n`;
    const json = JSON.stringify({
      Version: 1,
      AccessKeyId: TEMPORARY.id,
      SecretAccessKey: TEMPORARY.secret,
      SessionToken: TEMPORARY.token,
    });
    await writeFile(join(directory, 'process.json'), json);
    await writeFile(join(directory, 'credentials'), `[default]\n${keys}[keys]\n${keys}`, { mode: 0o600 });
    await writeFile(
      join(directory, 'config'),
      `[profile role]\nrole_arn=${ROLE}\nsource_profile=keys\n[profile process]\ncredential_process=/bin/cat ${join(directory, 'process.json')}\n`,
    );
    assert.equal(await wrap({}), 'ok');
    for (const profile of ['keys', 'role', 'process'])
      assert.equal(await wrap({ AWS_PROFILE: profile }), 'ok', profile);
    assert.equal(await wrap({ AWS_PROFILE: 'nobody' }), 'unauthenticated');
    // A profile that is named goes before keys in the environment.
    const wrong = { AWS_ACCESS_KEY_ID: 'AKIAWRONG', AWS_SECRET_ACCESS_KEY: 'wrong' };
    assert.equal(await wrap({ ...wrong, AWS_PROFILE: 'keys' }), 'ok');
    await rm(join(directory, 'credentials'));
    await rm(join(directory, 'config'));
  });

  test('the token that EKS projects, exchanged by STS', async () => {
    const file = join(directory, 'token');
    const environment = { AWS_WEB_IDENTITY_TOKEN_FILE: file, AWS_ROLE_ARN: ROLE };
    await writeFile(file, WEB_IDENTITY);
    assert.equal(await wrap(environment), 'ok');
    await writeFile(file, 'another.token.x');
    assert.equal(await wrap(environment), 'unauthenticated');
    sts.faults.push({ kind: 'answer', status: 503, body: '' });
    await writeFile(file, WEB_IDENTITY);
    assert.equal(await wrap(environment), 'unavailable');
    sts.faults.push({ kind: 'silent' });
    assert.equal(await wrap(environment, 1500), 'deadline-exceeded');
  });

  test('the endpoint of a container', async () => {
    const environment = { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${metadata.url}/container` };
    assert.equal(await wrap({ ...environment, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'pod' }), 'ok');
    const file = join(directory, 'pod-token');
    await writeFile(file, 'pod');
    assert.equal(await wrap({ ...environment, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file }), 'ok');
  });

  test('the role of an instance', async () => {
    const environment = { AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url, AWS_EC2_METADATA_DISABLED: 'false' };
    assert.equal(await wrap(environment), 'ok');
  });

  test('nowhere', async () => {
    assert.equal(await wrap({}), 'unauthenticated');
  });
});

function answerSts(request: WireRequest): WireAnswer {
  const form = new URLSearchParams(Buffer.from(request.body).toString());
  const action = form.get('Action') ?? '';
  const headers = { 'Content-Type': 'text/xml' };
  const isKnown =
    action === 'AssumeRole'
      ? request.headers.authorization?.includes(`Credential=${kms.accessKey.id}/`)
      : form.get('WebIdentityToken') === WEB_IDENTITY;
  if (!isKnown || form.get('RoleArn') !== ROLE) {
    const error = '<Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>told</Message></Error>';
    return { status: 400, headers, body: `<ErrorResponse>${error}<RequestId>1</RequestId></ErrorResponse>` };
  }
  const credentials = `<Credentials><AccessKeyId>${TEMPORARY.id}</AccessKeyId><SecretAccessKey>${TEMPORARY.secret}</SecretAccessKey><SessionToken>${TEMPORARY.token}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>`;
  const body = `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>${credentials}</${action}Result></${action}Response>`;
  return { status: 200, headers, body };
}

function answerMetadata({ method, path, headers }: WireRequest): WireAnswer {
  const role = '/latest/meta-data/iam/security-credentials/';
  const credentials = JSON.stringify({
    Code: 'Success',
    AccessKeyId: TEMPORARY.id,
    SecretAccessKey: TEMPORARY.secret,
    Token: TEMPORARY.token,
    Expiration: '2099-01-01T00:00:00Z',
  });
  if (path === '/container' && headers.authorization === 'pod') return { status: 200, body: credentials };
  if (method === 'PUT' && path === '/latest/api/token') return { status: 200, body: 'imds-token' };
  if (headers['x-aws-ec2-metadata-token'] !== 'imds-token') return { status: 401, body: '' };
  if (path === role) return { status: 200, body: 'image' };
  return path === `${role}image` ? { status: 200, body: credentials } : { status: 404, body: '' };
}
