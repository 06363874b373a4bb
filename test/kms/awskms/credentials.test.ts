// The credentials of AWS: each source gives them, survives what passes, and says what is wrong with it.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { endedBy, withAttempt } from '../../../src/base/deadline.ts';
import { OcicryptError } from '../../../src/base/errors.ts';
import type { HttpClient } from '../../../src/base/http/contract.ts';
import { readInstanceCredentials } from '../../../src/kms/awskms/metadata.ts';
import {
  type CredentialFault,
  compareFaultTable,
  type FaultRow,
  readFault,
  SLOW_MILLISECONDS,
  trySource,
  trySourceAt,
  untilEmpty,
  useOnce,
} from '../credential-trials.ts';
import {
  type AwsWorld,
  processOutput,
  ROLE,
  SSO_CONFIG,
  SSO_TOKEN,
  ssoCache,
  ssoSession,
  startAwsWorld,
  TEMPORARY,
  WEB_IDENTITY,
} from './world.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/keys-aws.md', import.meta.url));
const LONG = '2099-01-01T00:00:00Z';

let world: AwsWorld;
let token: string;
before(async () => {
  world = await startAwsWorld();
  token = await world.write('token', WEB_IDENTITY);
});
after(() => world.close());

const keys = () => `aws_access_key_id=${world.kms.accessKey.id}\naws_secret_access_key=${world.kms.accessKey.secret}\n`;
const config = (text: string) => ({ '.aws/config': text });
const instance = ({ metadata } = world) => ({
  AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
  AWS_EC2_METADATA_DISABLED: 'false',
});
const container = ({ metadata } = world) => ({
  AWS_CONTAINER_CREDENTIALS_FULL_URI: `${metadata.url}/container`,
  AWS_CONTAINER_AUTHORIZATION_TOKEN: 'pod',
});
const webIdentity = () => ({ AWS_WEB_IDENTITY_TOKEN_FILE: token, AWS_ROLE_ARN: ROLE });
const later = () => new Date(Date.now() + 3_600_000).toISOString();
const sso = (session: string | undefined, more = SSO_CONFIG) =>
  world.open(
    { AWS_PROFILE: 'sso' },
    { ...config(more), ...(session === undefined ? {} : { [ssoCache('s')]: session }) },
  );

describe('AWS credentials come from', () => {
  test('variables, with and without a session; a profile that is named goes first', async () => {
    const { id, secret } = world.kms.accessKey;
    await useOnce(await world.open({ AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: `${secret}\n` }));
    const session = { AWS_ACCESS_KEY_ID: TEMPORARY.id, AWS_SECRET_ACCESS_KEY: TEMPORARY.secret };
    await useOnce(await world.open({ ...session, AWS_SESSION_TOKEN: TEMPORARY.token ?? '' }));
    const wrong = { AWS_ACCESS_KEY_ID: 'AKIAWRONG', AWS_SECRET_ACCESS_KEY: 'wrong' };
    for (const AWS of ['AWS_PROFILE', 'AWS_DEFAULT_PROFILE']) {
      await useOnce(await world.open({ ...wrong, [AWS]: 'keys' }, { '.aws/credentials': `[keys]\n${keys()}` }));
    }
  });

  test('a profile: keys, roles one above the other, variables, a process, a token file', async () => {
    const text = `
[profile role]
role_arn=${ROLE}
source_profile = keys  # a comment
[profile "self"]
role_arn=${ROLE}
source_profile=self
${keys()}
[profile variables]
role_arn=${ROLE}
credential_source=Environment
[profile process]
credential_process=cat '${await world.write('process.json', processOutput())}'
[profile token]
role_arn=${ROLE}
web_identity_token_file=${token}
[profile instance]
role_arn=${ROLE}
credential_source=Ec2InstanceMetadata
`;
    const files = { '.aws/config': text, '.aws/credentials': `[default]\n${keys()}[keys]\n${keys()}` };
    const { id, secret } = world.kms.accessKey;
    const variables = { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret };
    await useOnce(await world.open({}, files));
    for (const AWS_PROFILE of ['keys', 'role', 'self', 'variables', 'process', 'token']) {
      await useOnce(await world.open({ ...variables, AWS_PROFILE }, files));
    }
  });

  test('web identity, a container, an instance', async () => {
    await useOnce(await world.open(webIdentity()));
    await useOnce(await world.open(container()));
    const file = await world.write('pod-token', 'pod\n');
    const { AWS_CONTAINER_CREDENTIALS_FULL_URI } = container();
    await useOnce(
      await world.open({ AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file }),
    );
    await useOnce(await world.open(instance()));
  });

  test('single sign-on, whose session is renewed and kept for AWS’s own tools', async () => {
    await useOnce(await sso(ssoSession(later())));
    const renewable = { clientId: 'c', clientSecret: 's', refreshToken: 'refresh-1' };
    const home = join(world.directory, `home-sso`);
    const cache = await world.write(join('home-sso', ssoCache('s')), ssoSession('2020-01-01T00:00:00Z', renewable));
    await world.write('home-sso/.aws/config', SSO_CONFIG);
    await useOnce(await world.open({ HOME: home, AWS_PROFILE: 'sso' }));
    const kept = JSON.parse(await readFile(cache, 'utf8'));
    assert.deepEqual([kept.accessToken, kept.refreshToken, kept.clientSecret], [`${SSO_TOKEN}-2`, 'refresh-2', 's']);
    assert.ok(Date.parse(kept.expiresAt) > Date.now());
  });

  test('one search, for all keys of the same settings and all of their calls', async () => {
    const log = join(world.directory, 'started');
    const output = await world.write('slow.json', processOutput());
    const script = await world.write('slow.sh', `echo x >> '${log}'; sleep 0.7; cat '${output}'`);
    const files = config(`[default]\ncredential_process=sh '${script}'\n`);
    const kek = await world.open({}, files);
    // An attempt takes less than the program, which is started once all the same.
    const limits = { total: 15_000, attempt: 500, attempts: 3, stagger: 300 };
    await Promise.all([useOnce(kek, limits), useOnce(kek, limits), useOnce(kek, limits)]);
    assert.equal(await readFile(log, 'utf8'), 'x\n');
  });

  test('a program that hangs, which ends with its call and leaves nothing behind', async () => {
    const marks = join(world.directory, 'pids');
    const script = await world.write('hang.sh', `sleep 600 & echo $! $$ > '${marks}'; wait`);
    const kek = await world.open({}, config(`[default]\ncredential_process=sh '${script}'\n`));
    const limits = { total: 700, attempt: 300, attempts: 3, stagger: 300 };
    await assert.rejects(useOnce(kek, limits), {
      code: 'deadline-exceeded',
      message: /waiting for the credential_process of profile default$/,
    });
    const pids = (await readFile(marks, 'utf8')).trim().split(' ').map(Number);
    await sleep(200);
    for (const pid of pids) assert.ok(!(await isRunning(pid)), `${pid} has ended`);
  });
});

describe('a metadata server of AWS that nobody announced', () => {
  const ask = (request: HttpClient['request'], vendor: string) =>
    withAttempt(2000, new AbortController().signal, 'key', async (signal) => {
      const file = await world.write(`vendor-${vendor.length}`, vendor);
      return readInstanceCredentials({}, undefined, { request, close() {} }, false, signal, file);
    });
  const silent: HttpClient['request'] = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(endedBy(signal))));

  test('is given a second where the firmware is not Amazon’s, and may answer the next time', async () => {
    const started = performance.now();
    const error = {
      code: 'unauthenticated',
      retryable: true,
      message: /169\.254\.169\.254 does not answer within 1000 ms/,
    };
    await assert.rejects(ask(silent, 'QEMU'), error);
    assert.ok(performance.now() - started < 1900);
  });
  test('is waited for as long as an attempt on an instance', async () => {
    await assert.rejects(ask(silent, 'Amazon EC2\n'), { code: 'deadline-exceeded' });
  });
  test('is not there where nothing can be reached, and trying again changes nothing', async () => {
    const absent = () => Promise.reject(new OcicryptError('unavailable', 'cannot reach it', { retryable: true }));
    await assert.rejects(ask(absent, 'QEMU'), { code: 'unauthenticated', retryable: false });
  });
});

/** Whether a process is there and no zombie that nobody waited for. */
async function isRunning(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return status !== '' && !/^\d+ \(.*\) Z/.test(status);
}

const worlds: AwsWorld[] = [];
after(() => Promise.all(worlds.map((one) => one.close())));

async function openWorld(): Promise<AwsWorld> {
  const one = await startAwsWorld();
  worlds.push(one);
  return one;
}

/** A source behind a server, each in a world of its own, since all are tried at once. */
function served(
  name: string,
  server: 'metadata' | 'sts',
  path: RegExp,
  waitingFor: RegExp,
  open: (own: AwsWorld) => ReturnType<AwsWorld['open']>,
) {
  let own: AwsWorld | undefined;
  trySourceAt(() => own?.[server], path, {
    name,
    async open(lifetime) {
      own ??= await openWorld();
      const end = lifetime === 'long' ? LONG : new Date(Date.now() + 120_000).toISOString();
      own.expiration = () => end;
      return open(own);
    },
    waitingFor,
  });
}

describe('AWS credentials survive', { concurrency: true }, () => {
  const signedOn = (own: AwsWorld, session: string) =>
    own.open({ AWS_PROFILE: 'sso' }, { ...config(SSO_CONFIG), [ssoCache('s')]: session });
  const role = (own: AwsWorld) => {
    const { id, secret } = own.kms.accessKey;
    const text = `[default]\naws_access_key_id=${id}\naws_secret_access_key=${secret}\n[profile role]\nrole_arn=${ROLE}\nsource_profile=default\n`;
    return own.open({ AWS_PROFILE: 'role' }, config(text));
  };
  const renewable = { clientId: 'c', clientSecret: 's', refreshToken: 'refresh-1' };
  const [sts, agent, imds] = ['the token service 127', 'the container agent 127', 'the metadata server 127'].map(
    (who) => new RegExp(`waiting for ${who}`),
  );
  assert.ok(sts !== undefined && agent !== undefined && imds !== undefined);
  served('an assumed role', 'sts', /./, sts, role);
  served('web identity', 'sts', /./, sts, (own) => own.open(webIdentity()));
  served('single sign-on', 'sts', /federation/, sts, (own) => signedOn(own, ssoSession(later())));
  served('a session of single sign-on that is renewed', 'sts', /^\/token/, sts, (own) =>
    signedOn(own, ssoSession('2020-01-01T00:00:00Z', renewable)),
  );
  served('a container', 'metadata', /./, agent, (own) => own.open(container(own)));
  served('an instance', 'metadata', /api.token/, imds, (own) => own.open(instance(own)));
  served('the role of an instance', 'metadata', /image/, imds, (own) => own.open(instance(own)));

  let runs = 0;
  let mood = '';
  trySource({
    name: 'a program',
    not: ['throttled', 'unavailable'],
    met: () => untilEmpty(mood),
    async open() {
      const output = await world.write('program.json', processOutput());
      mood = join(world.directory, `mood-${runs++}`);
      await writeFile(mood, '');
      const script = await world.write(`program-${runs}.sh`, `. '${mood}'; cat '${output}'`);
      return world.open({}, config(`[default]\ncredential_process=sh '${script}'\n`));
    },
    break(trouble, times) {
      const once = times === 'once' ? `: > '${mood}'; ` : '';
      return writeFile(mood, `${once}sleep ${trouble === 'slow' ? SLOW_MILLISECONDS / 1000 : 600}`);
    },
    mend: () => writeFile(mood, ''),
    waitingFor: /waiting for the credential_process of profile default$/,
  });
});

describe('AWS credentials that are set up wrong', () => {
  const rows: FaultRow[] = [];
  const profile = (text: string, environment = {}, name = 'p') =>
    world.open({ AWS_PROFILE: name, ...environment }, config(`[profile p]\n${text}\n[profile keys]\n${keys()}`));
  const process = async (name: string, script: string) =>
    profile(`credential_process=sh '${await world.write(`${name}.sh`, script)}'`);
  const metadataAnswers = (open: () => ReturnType<AwsWorld['open']>, path: RegExp, status: number, body = '') => {
    world.metadata.setFault((request) => (path.test(request.path) ? { kind: 'answer', status, body } : undefined));
    return open();
  };
  const role = `role_arn=${ROLE}`;
  const faults: readonly CredentialFault[] = [
    { source: 'any', fault: 'nothing is configured', code: 'unauthenticated', open: () => world.open({}) },
    {
      source: 'variables',
      fault: 'only one of two',
      code: 'configuration',
      open: () => world.open({ AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE' }),
    },
    {
      source: 'profile',
      fault: 'its name is misspelled',
      code: 'configuration',
      open: () => profile('', {}, 'kees'),
    },
    {
      source: 'profile',
      fault: 'half an access key',
      code: 'configuration',
      open: () => profile('aws_access_key_id=AKIAEXAMPLE'),
    },
    { source: 'assumed role', fault: 'nothing to assume it with', code: 'configuration', open: () => profile(role) },
    {
      source: 'assumed role',
      fault: 'missing source_profile',
      code: 'configuration',
      open: () => profile(`${role}\nsource_profile=nobody-at-all`),
    },
    {
      source: 'assumed role',
      fault: 'a circle of profiles',
      code: 'configuration',
      open: () => profile(`${role}\nsource_profile=p`),
    },
    {
      source: 'assumed role',
      fault: 'unknown credential_source',
      code: 'configuration',
      open: () => profile(`${role}\ncredential_source=Ec2`),
    },
    {
      source: 'assumed role',
      fault: 'credential_source=Environment without variables',
      code: 'configuration',
      open: () => profile(`${role}\ncredential_source=Environment`),
    },
    {
      source: 'assumed role',
      fault: 'asks for an MFA device',
      code: 'configuration',
      open: () => profile(`${role}\nsource_profile=keys\nmfa_serial=arn:aws:iam::111122223333:mfa/me`),
    },
    {
      source: 'assumed role',
      fault: 'a blank in the session’s name',
      code: 'configuration',
      open: () => profile(`${role}\nsource_profile=keys\nrole_session_name=build farm`),
    },
    {
      source: 'assumed role',
      fault: 'does not trust these credentials',
      code: 'unauthenticated',
      open: () => profile(`${role}x\nsource_profile=keys`),
    },
    {
      source: 'assumed role',
      fault: 'unknown access key',
      code: 'unauthenticated',
      open: () =>
        world.open(
          { AWS_PROFILE: 'p' },
          config(
            `[profile p]\n${role}\nsource_profile=q\n[profile q]\naws_access_key_id=AKIAWRONG\naws_secret_access_key=wrong\n`,
          ),
        ),
    },
    {
      source: 'single sign-on',
      fault: 'never logged in',
      code: 'unauthenticated',
      open: () => sso(undefined),
    },
    {
      source: 'single sign-on',
      fault: 'expired',
      code: 'unauthenticated',
      open: () => sso(ssoSession('2020-01-01T00:00:00Z')),
    },
    {
      source: 'single sign-on',
      fault: 'expired, and cannot be renewed',
      code: 'unauthenticated',
      open: () => sso(ssoSession('2020-01-01T00:00:00Z', { clientId: 'c', clientSecret: 's', refreshToken: 'used' })),
    },
    {
      source: 'single sign-on',
      fault: 'revoked',
      code: 'unauthenticated',
      open: () => sso(ssoSession(later()).replace(SSO_TOKEN, 'revoked')),
    },
    {
      source: 'single sign-on',
      fault: 'role is not assigned',
      code: 'unauthenticated',
      open: () => sso(ssoSession(later()), SSO_CONFIG.replace('=image', '=admin')),
    },
    {
      source: 'single sign-on',
      fault: 'incomplete profile',
      code: 'configuration',
      open: () => sso(ssoSession(later()), SSO_CONFIG.replace(/sso_account_id.*\n/, '')),
    },
    {
      source: 'single sign-on',
      fault: 'missing sso-session',
      code: 'configuration',
      open: () => sso(ssoSession(later()), SSO_CONFIG.replace('sso-session s', 'sso-session other')),
    },
    {
      source: '`aws login`',
      fault: 'never logged in',
      code: 'unauthenticated',
      open: () => profile('login_session=me'),
    },
    {
      source: 'credential_process',
      fault: 'is not there',
      code: 'configuration',
      open: () => profile('credential_process=/nowhere/at-all --token canary'),
    },
    {
      source: 'credential_process',
      fault: 'fails',
      code: 'unauthenticated',
      open: () => process('fails', 'echo canary >&2; exit 3'),
    },
    {
      source: 'credential_process',
      fault: 'writes something else',
      code: 'unauthenticated',
      open: () => process('junk', 'echo canary'),
    },
    {
      source: 'credential_process',
      fault: 'writes no keys',
      code: 'unauthenticated',
      open: () => process('empty', `echo '{"Version":1}'`),
    },
    {
      source: 'credential_process',
      fault: 'writes what has expired',
      code: 'unauthenticated',
      open: () => process('expired', `echo '${processOutput({ Expiration: '2020-01-01T00:00:00Z' })}'`),
    },
    {
      source: 'web identity',
      fault: 'token file is missing',
      code: 'configuration',
      open: () => world.open({ ...webIdentity(), AWS_WEB_IDENTITY_TOKEN_FILE: '/nowhere/token' }),
    },
    {
      source: 'web identity',
      fault: 'token file is empty',
      code: 'configuration',
      open: async () => world.open({ ...webIdentity(), AWS_WEB_IDENTITY_TOKEN_FILE: await world.write('empty', '') }),
    },
    {
      source: 'web identity',
      fault: 'role is missing',
      code: 'configuration',
      open: () => world.open({ AWS_WEB_IDENTITY_TOKEN_FILE: token }),
    },
    {
      source: 'web identity',
      fault: 'token is not accepted',
      code: 'unauthenticated',
      open: async () =>
        world.open({ ...webIdentity(), AWS_WEB_IDENTITY_TOKEN_FILE: await world.write('other', 'a.b.c') }),
    },
    {
      source: 'container',
      fault: 'address that must not be asked',
      code: 'configuration',
      open: () => world.open({ AWS_CONTAINER_CREDENTIALS_FULL_URI: 'http://evil.test/credentials' }),
    },
    {
      source: 'container',
      fault: 'wrong authorization token',
      code: 'unauthenticated',
      open: () => world.open({ ...container(), AWS_CONTAINER_AUTHORIZATION_TOKEN: 'other' }),
    },
    {
      source: 'container',
      fault: 'fails in passing',
      code: 'unavailable',
      retryable: true,
      open: () => metadataAnswers(() => world.open(container()), /container/, 500),
    },
    {
      source: 'instance',
      fault: 'has no role',
      code: 'unauthenticated',
      open: () => metadataAnswers(() => world.open(instance()), /credentials\/$/, 404),
    },
    {
      source: 'instance',
      fault: 'role cannot be assumed',
      code: 'unauthenticated',
      open: () =>
        metadataAnswers(() => world.open(instance()), /image/, 200, '{"Code":"AssumeRoleUnauthorizedAccess"}'),
    },
    {
      source: 'instance',
      fault: 'another server answers',
      code: 'unauthenticated',
      open: () => metadataAnswers(() => world.open(instance()), /token/, 200, '<html>sign in here</html>'),
    },
  ];

  for (const fault of faults) {
    test(`${fault.source}: ${fault.fault} is ${fault.code}`, async () => {
      try {
        const error = await readFault(fault);
        rows.push({ source: fault.source, fault: fault.fault, error });
        assert.doesNotMatch(
          `${error.message} ${error.hint}`,
          /canary|nowhere|told|sign in/,
          'nothing that was not asked for',
        );
      } finally {
        world.metadata.setFault(undefined);
      }
    });
  }

  test('each says something of its own', () => {
    const lines = rows.map(({ error }) => error.message);
    assert.deepEqual(
      lines.filter((line, index) => lines.indexOf(line) !== index),
      [],
    );
  });

  test('the document has the table', async () => {
    await compareFaultTable(
      DOCUMENT,
      rows,
      new Map([world.sts.url, world.metadata.url].map((url) => [new URL(url).host, 'HOST'])),
    );
  });
});
