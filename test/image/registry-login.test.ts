// What a registry asks for before it serves.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openLayout } from '../../src/image/layout.ts';
import { rejects } from './harness.ts';
import { v2Recipient } from './packet-recipients.ts';
import { end, PASSWORD, setUpRegistry } from './registry-harness.ts';

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
  const all = 'repository:app:pull,push';
  assert.deepEqual(asked, [
    ['aws'],
    ['aws', all],
    ['aws', all, 'repository:a/b:pull'],
    ['aws', all, 'repository:a/b:pull'],
  ]);
});
