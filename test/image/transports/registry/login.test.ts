// What a registry asks for before it serves.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as turn } from 'node:timers/promises';
import { decryptImage } from '../../../../src/image/decrypt.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { rejects, usePath } from '../../harness.ts';
import { packetKeys, v2Recipient } from '../../packet-recipients.ts';
import { type Fault, startFakeRegistry } from './fake-registry.ts';
import { end, PASSWORD, setUpRegistry } from './harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';

test('a token is asked for with the credentials of the registry, and again when it has expired', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t);
  let token = '';
  let issued = 0;
  fake.fault = ({ headers }, response, path) => {
    if (path === '/token') {
      if (headers.authorization !== `Basic ${Buffer.from(PASSWORD).toString('base64')}`) return end(response, 401);
      token = `token-${++issued}-${randomBytes(8).toString('hex')}`;
      return end(response, 200, { 'content-type': 'application/json' }, JSON.stringify({ token }));
    }
    if (token !== '' && headers.authorization === `Bearer ${token}`) return false;
    const challenge = `Bearer realm="https://${fake.host}/token",service="fake",scope="repository:app:pull,push"`;
    return end(response, 401, { 'www-authenticate': challenge });
  };
  const store = open('app:enc');
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), store, { recipients: [v2Recipient([A])] });
  assert.equal(issued, 1);
  token = 'expired';
  await store.readRoot();
  assert.equal(issued, 2);
  // In the middle of an upload, too: what was sent of it is sent again.
  const registry = fake.fault;
  let uploads = 0;
  fake.fault = (request, response, path) => {
    if (request.method === 'PATCH' && uploads++ === 0) token = 'expired';
    return registry(request, response, path);
  };
  const { digest } = await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:again'), {
    recipients: [v2Recipient([A])],
  });
  assert.ok(uploads > made.images[0].layers.length + 1);
  assert.equal((await open(`app@${digest}`).readRoot()).digest, digest);
  fake.fault = registry;
  const empty = join(directory, 'empty.json');
  await writeFile(empty, '{}');
  await rejects('unauthenticated', open('app:enc', { authFile: empty }).readRoot());
  fake.fault = (_, response) => end(response, 401, { 'www-authenticate': `Bearer realm="http://${fake.host}/token"` });
  await rejects('unavailable', open('app:enc').readRoot());
});

test('what answers in the place of a token server says nothing of an image', async (t) => {
  const { fake, open } = await setUpRegistry(t, { layers: [{}] });
  for (const body of [
    '',
    '<html>sign in</html>',
    '[]',
    '{}',
    '{"token":1}',
    '{"token":"a b"}',
    '{"token":"a","Token":"b"}',
    `{"token":"${'x'.repeat(100_000)}"}`,
  ]) {
    fake.fault = (_, response, path) =>
      path === '/token'
        ? end(response, 200, {}, body)
        : end(response, 401, { 'www-authenticate': `Bearer realm="https://${fake.host}/token"` });
    await rejects('unavailable', open('app:enc').readRoot());
  }
});

test('a token is asked for with the scopes of the challenge, whatever form they have, and with those asked for before', async (t) => {
  const { fake, open } = await setUpRegistry(t);
  const asked: (readonly string[])[] = [];
  const challenges = ['aws', '', 'repository:a/b:pull repository:app:pull', 'repository:app:push'];
  let challenge = '';
  fake.fault = (request, response, path) => {
    if (path === '/token') {
      asked.push(new URL(request.url ?? '', 'https://fake').searchParams.getAll('scope'));
      return end(response, 200, {}, JSON.stringify({ token: `t${asked.length}` }));
    }
    if (request.headers.authorization === `Bearer t${challenges.indexOf(challenge) + 1}`) return end(response, 404);
    const scope = challenge === '' ? '' : `,scope="${challenge}"`;
    return end(response, 401, { 'www-authenticate': `Bearer realm="https://${fake.host}/token"${scope}` });
  };
  const store = open('app:enc');
  for (challenge of challenges) await rejects('not-found', store.readRoot());
  assert.deepEqual(asked, [
    ['aws'],
    ['aws', 'repository:app:pull'],
    ['aws', 'repository:app:pull', 'repository:a/b:pull'],
    ['aws', 'repository:app:pull,push', 'repository:a/b:pull'],
  ]);
});

const SMALL = { layers: [{}] };
const BASIC = `Basic ${Buffer.from(PASSWORD).toString('base64')}`;

test('of several challenges the first that can be answered is, however they are written', async (t) => {
  const { fake, open } = await setUpRegistry(t, SMALL);
  const realm = `https://${fake.host}/token`;
  for (const [header, wanted] of [
    [`Bearer realm=${realm},service=gcr.io`, 'Bearer t'],
    [['Negotiate', 'Basic realm="r"'], BASIC],
    ['Negotiate, NTLM, Basic realm="r"', BASIC],
    [`Bearer realm="${realm}", Basic realm="https://other.example/"`, 'Bearer t'],
    [[`Bearer realm="http://${fake.host}/token"`, 'Basic realm="r"'], BASIC],
    ['parts, bAsIc  REALM = "r" ,', BASIC],
    [`Digest realm="a \\", Basic realm=", nonce=x, Bearer realm="${realm}"`, 'Bearer t'],
  ] as const) {
    fake.fault = (request, response, path) => {
      if (path === '/token') return end(response, 200, {}, '{"token":"","access_token":"t"}');
      if (request.headers.authorization === wanted) return end(response, 404);
      response.setHeader('www-authenticate', header);
      return end(response, 401);
    };
    await rejects('not-found', open('app:enc').readRoot());
  }
  fake.fault = (_, response) => end(response, 401, { 'www-authenticate': 'Negotiate' });
  assert.match((await rejects('unauthenticated', open('app:enc').readRoot())).message, /negotiate/);
});

test('credentials are shown to a registry that hides what it has, if /v2/ asks for them', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  const first = await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] });
  const none = join(directory, 'none.json');
  await writeFile(none, '{}');
  for (const status of [403, 404]) {
    fake.requests.splice(0);
    fake.fault = ({ headers }, response, path) => {
      if (headers.authorization === BASIC) return false;
      return end(response, path === '/v2/' ? 401 : status, {
        'www-authenticate': path === '/v2/' ? 'Basic realm="r"' : '',
      });
    };
    assert.equal((await open('app:enc').readRoot()).digest, first.digest);
    assert.deepEqual(
      fake.requests.map(({ path, authorization }) => [path, authorization]),
      [
        ['/v2/app/manifests/enc', undefined],
        ['/v2/', undefined],
        ['/v2/app/manifests/enc', BASIC],
      ],
    );
    const code = status === 403 ? 'refused' : 'not-found';
    await rejects(code, open('app:enc', { authFile: none }).readRoot());
    // It is asked once, whatever comes of it.
    fake.fault = (_, response, path) => path !== '/v2/' && end(response, status);
    fake.requests.splice(0);
    const store = open('app:enc');
    for (let count = 0; count < 3; count++) await rejects(code, store.readRoot());
    assert.equal(fake.requests.length, 4);
    assert.ok(fake.requests.every(({ authorization }) => authorization === undefined));
  }
});

test('an account that may only read asks for no more to read, and a registry that refuses a write without a word gets a token for it', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t, SMALL);
  const asked: string[] = [];
  const granted = new Map<string, string>();
  let mayPush = false;
  fake.fault = (request, response, path) => {
    if (path === '/token') {
      const scope = new URL(request.url ?? '', 'https://fake').searchParams.get('scope') ?? '';
      asked.push(scope);
      if (scope.includes('push') && !mayPush) return end(response, 403);
      const token = `t${granted.size}`;
      granted.set(`Bearer ${token}`, scope);
      return end(response, 200, {}, JSON.stringify({ token }));
    }
    const scope = granted.get(request.headers.authorization ?? '');
    const isWrite = request.method !== 'GET' && request.method !== 'HEAD';
    if (scope === undefined && isWrite) return end(response, 403);
    if (scope === undefined)
      return end(response, 401, { 'www-authenticate': `Bearer realm="https://${fake.host}/token"` });
    return isWrite && !scope.includes('push') && end(response, 403);
  };
  await rejects('not-found', open('app:enc').readRoot());
  assert.deepEqual(asked.splice(0), ['repository:app:pull']);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  await rejects('refused', encryptImage(plain, open('other:enc'), { recipients: [v2Recipient([A])] }));
  mayPush = true;
  await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] });
  const ofApp = asked.filter((scope) => scope.startsWith('repository:app:'));
  assert.equal(ofApp.filter((scope) => scope === 'repository:app:pull,push').length, 1);
  assert.ok(ofApp.length <= 2, asked.join());
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  await decryptImage(open('app:enc'), back, { keys: packetKeys([A]) });
});

test('a token server may send elsewhere, but no credential goes there', async (t) => {
  const { fake, open, directory } = await setUpRegistry(t, SMALL);
  const other = await startFakeRegistry(t, directory);
  const settings = { caFiles: [fake.authority, other.authority] };
  const identity = join(directory, 'identity.json');
  await writeFile(identity, JSON.stringify({ auths: { [fake.host]: { identitytoken: 'refresh-secret' } } }));
  let target = `https://${fake.host}/moved`;
  const seen: {
    readonly method: string | undefined;
    readonly authorization: string | undefined;
    readonly body: string;
  }[] = [];
  const record: Fault = async (request, response) => {
    seen.push({ method: request.method, authorization: request.headers.authorization, body: await text(request) });
    return end(response, 200, {}, '{"token":"t"}');
  };
  other.fault = record;
  fake.fault = async (request, response, path) => {
    if (path === '/token') return end(response, 307, { location: target });
    if (path === '/moved') return record(request, response, path);
    if (request.headers.authorization === 'Bearer t') return end(response, 404);
    return end(response, 401, { 'www-authenticate': `Bearer realm="https://${fake.host}/token"` });
  };
  await rejects('not-found', open('app:enc', settings).readRoot());
  await rejects('not-found', open('app:enc', { ...settings, authFile: identity }).readRoot());
  assert.deepEqual(
    seen.splice(0).map(({ method, authorization, body }) => [method, authorization, body.includes('refresh-secret')]),
    [
      ['GET', BASIC, false],
      ['POST', undefined, true],
    ],
  );
  target = `https://${other.host}/token`;
  await rejects('not-found', open('app:enc', settings).readRoot());
  assert.deepEqual(seen.splice(0), [{ method: 'GET', authorization: undefined, body: '' }]);
  await rejects('unavailable', open('app:enc', { ...settings, authFile: identity }).readRoot());
  target = `http://${other.host}/token`;
  await rejects('unavailable', open('app:enc', settings).readRoot());
  assert.deepEqual(seen, []);
});

test('a credential helper ends with its request, and is asked again after it took too long', async (t) => {
  const { fake, open, directory } = await setUpRegistry(t);
  fake.fault = ({ headers }, response) =>
    headers.authorization === `Basic ${Buffer.from(PASSWORD).toString('base64')}`
      ? false
      : end(response, 401, { 'www-authenticate': 'Basic realm="r"' });
  const authFile = join(directory, 'helped.json');
  const started = join(directory, 'started');
  await writeFile(authFile, JSON.stringify({ credsStore: 'once' }));
  const [username, secret] = PASSWORD.split(':');
  const script = `#!/bin/sh
if [ -e '${started}' ]; then echo '${JSON.stringify({ Username: username, Secret: secret })}'; exit; fi
sleep 600 & echo $! > '${started}'; wait`;
  await writeFile(join(directory, 'docker-credential-once'), script, { mode: 0o700 });
  usePath(t, `${directory}:${process.env.PATH}`);
  const store = open('app', { authFile });
  const controller = new AbortController();
  const reading = store.readRoot(controller.signal);
  const outcome = assert.rejects(reading);
  let sleeper = '';
  while (!sleeper.endsWith('\n')) {
    await turn(10);
    sleeper = await readFile(started, 'utf8').catch(() => '');
  }
  controller.abort();
  await outcome;
  const state = () => readFile(`/proc/${sleeper.trim()}/stat`, 'utf8').catch(() => '');
  while (!/^$|\) Z/.test(await state())) await turn(10);
  // The same login, which has not kept the failure.
  await rejects('not-found', store.readRoot());
});

test('a credential helper that fails is asked once', async (t) => {
  const { fake, open, directory } = await setUpRegistry(t);
  fake.fault = (_, response) => end(response, 401, { 'www-authenticate': 'Basic realm="r"' });
  const authFile = join(directory, 'helped.json');
  const asked = join(directory, 'asked');
  await writeFile(authFile, JSON.stringify({ credsStore: 'broken' }));
  const script = `#!/bin/sh\necho asked >> '${asked}'; exit 3\n`;
  await writeFile(join(directory, 'docker-credential-broken'), script, { mode: 0o700 });
  usePath(t, `${directory}:${process.env.PATH}`);
  const store = open('app', { authFile });
  for (const _ of [1, 2]) await rejects('configuration', store.readRoot());
  assert.equal(await readFile(asked, 'utf8'), 'asked\n');
});

test('a token for the registry itself is shown to it alone, and to no token server', async (t) => {
  const { fake, open, directory } = await setUpRegistry(t);
  const seen: (string | undefined)[] = [];
  let good = 'Bearer own-token';
  fake.fault = ({ headers }, response, path) => {
    seen.push(path === '/token' ? 'token server' : headers.authorization);
    if (headers.authorization === good) return false;
    return end(response, 401, { 'www-authenticate': `Bearer realm="https://${fake.host}/token",service="s"` });
  };
  const authFile = join(directory, 'token.json');
  const row = { registrytoken: 'own-token', identitytoken: 'other', auth: Buffer.from(PASSWORD).toString('base64') };
  await writeFile(authFile, JSON.stringify({ auths: { [fake.host]: row } }));
  await rejects('not-found', open('app', { authFile }).readRoot());
  assert.ok(seen.includes(good) && seen.every((one) => one === undefined || one === good), String(seen));
  good = 'Bearer another';
  await rejects('unauthenticated', open('app', { authFile }).readRoot());
  assert.ok(!seen.includes('token server'));
});
