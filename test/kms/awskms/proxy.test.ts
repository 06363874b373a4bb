// Every source of credentials that asks somebody over the network asks through the proxy and trusts nobody else's word.
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { wrapOnce } from '../../fixtures/wrap-once.ts';
import { useOnce } from '../credential-trials.ts';
import { type AwsWorld, ROLE, SSO_CONFIG, ssoCache, ssoSession, startAwsWorld, WEB_IDENTITY } from './world.ts';

let world: AwsWorld;
let proxy: Server;
const asked: string[] = [];

before(async () => {
  world = await startAwsWorld();
  proxy = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (head) => {
      asked.push(/^CONNECT (\S+) /.exec(head.toString('latin1'))?.[1] ?? 'something else');
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
});
after(async () => {
  proxy.close();
  await world.close();
});

/** What `aws login` leaves behind, past its end. */
function loginSession(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return JSON.stringify({
    accessToken: {
      accessKeyId: 'ASIAOLD',
      secretAccessKey: 'old',
      sessionToken: 'old',
      accountId: '111122223333',
      expiresAt: '2020-01-01T00:00:00Z',
    },
    clientId: 'arn:aws:signin:::devtools/same-device',
    refreshToken: 'refresh',
    dpopKey: privateKey.export({ format: 'pem', type: 'sec1' }),
  });
}

const session = (name: string) => createHash('sha256').update(name).digest('hex');
const renewable = { clientId: 'c', clientSecret: 's', refreshToken: 'r' };
const keys = '[profile keys]\naws_access_key_id=AKIAEXAMPLE\naws_secret_access_key=secret\n';

describe('the proxy is asked for', () => {
  for (const [source, host, config, files] of [
    [
      'an assumed role',
      'sts.eu-west-1.amazonaws.com:443',
      `[profile p]\nrole_arn=${ROLE}\nsource_profile=keys\n${keys}`,
      {},
    ],
    [
      'a role of another region',
      'sts.us-east-2.amazonaws.com:443',
      `[profile p]\nregion=us-east-2\nrole_arn=${ROLE}\nsource_profile=keys\n${keys}`,
      {},
    ],
    [
      'web identity of a profile',
      'sts.eu-west-1.amazonaws.com:443',
      `[profile p]\nrole_arn=${ROLE}\nweb_identity_token_file=TOKEN\n`,
      {},
    ],
    [
      'single sign-on',
      'portal.sso.eu-west-1.amazonaws.com:443',
      SSO_CONFIG.replace('profile sso', 'profile p'),
      { [ssoCache('s')]: ssoSession('2099-01-01T00:00:00Z') },
    ],
    [
      'the renewal of single sign-on',
      'oidc.eu-west-1.amazonaws.com:443',
      SSO_CONFIG.replace('profile sso', 'profile p'),
      { [ssoCache('s')]: ssoSession('2020-01-01T00:00:00Z', renewable) },
    ],
  ] as const) {
    test(source, async () => {
      asked.length = 0;
      const address = proxy.address();
      assert.ok(typeof address === 'object' && address !== null);
      const token = await world.write('proxy-token', WEB_IDENTITY);
      const kek = await world.open(
        {
          AWS_PROFILE: 'p',
          HTTPS_PROXY: `http://127.0.0.1:${address.port}`,
          AWS_ENDPOINT_URL_STS: '',
          AWS_ENDPOINT_URL_SSO: '',
          AWS_ENDPOINT_URL_SSO_OIDC: '',
        },
        { '.aws/config': config.replace('TOKEN', token), ...files },
      );
      const error = await useOnce(kek).then(() => undefined, asOcicryptError);
      assert.equal(error?.code, 'unavailable', error?.message);
      assert.deepEqual(asked, [host]);
      assert.match(error?.message ?? '', /the proxy 127\.0\.0\.1:\d+ refuses to connect to/);
    });
  }

  test('the renewal of aws login, which AWS’s own code asks for', async () => {
    asked.length = 0;
    const address = proxy.address();
    assert.ok(typeof address === 'object' && address !== null);
    await world.write('login/.aws/config', '[profile p]\nlogin_session=me\n');
    await world.write(`login/.aws/login/cache/${session('me')}.json`, loginSession());
    const said = await wrapOnce({
      key: world.arn,
      settings: { endpoint: world.kms.endpoint, caFiles: [] },
      // Its code reads the environment of its process.
      environment: {
        HOME: join(world.directory, 'login'),
        AWS_PROFILE: 'p',
        HTTPS_PROXY: `http://127.0.0.1:${address.port}`,
      },
    });
    assert.deepEqual([said, asked], ['unavailable', ['eu-west-1.signin.aws.amazon.com:443']]);
  });
});
