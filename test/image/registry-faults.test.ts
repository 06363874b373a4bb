// A registry that is busy, slow, wrong, or wants credentials carried elsewhere.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openLayout } from '../../src/image/layout.ts';
import { parseImageReference } from '../../src/image/reference.ts';
import { openRegistry } from '../../src/image/registry.ts';
import { replaceKeys, rewrapImage } from '../../src/image/rewrap.ts';
import { writeImage } from '../fixtures/images.ts';
import { startFakeRegistry } from './fake-registry.ts';
import { rejects, scratch } from './harness.ts';
import { packetKeys, v2Recipient } from './packet-recipients.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const MIB = 1024 * 1024;
const PASSWORD = 'somebody:secret';

test('a busy registry is asked again when it says, and a broken connection and a lost session are made good', async (t) => {
  const { fake, made, open, directory } = await setUp(t);
  const once = new Set<string>();
  const first = (what: string) => !once.has(what) && once.add(what) !== undefined;
  fake.fault = (request, response, path) => {
    if (request.method === 'HEAD' && first('busy')) return end(response, 429, { 'retry-after': '0' });
    if (request.method === 'POST' && first('post')) return end(response, 503);
    if (request.method === 'PATCH' && first('cut')) {
      request.once('data', () => request.socket.destroy());
      return true;
    }
    if (request.method === 'PATCH' && first('lost')) {
      request.resume().once('end', () => end(response, 404));
      return true;
    }
    if (request.method === 'GET' && path.includes('/blobs/') && first('half')) {
      const blob = fake.blobs.get(path.slice(path.indexOf('sha256:'))) ?? Buffer.alloc(0);
      response.writeHead(200, { 'content-length': String(blob.length) });
      response.write(blob.subarray(0, blob.length / 2), () => response.destroy());
      return true;
    }
    return false;
  };
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
    recipients: [v2Recipient([A])],
  });
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open('app:enc'), back, { keys: packetKeys([A]) })).digest, made.digest);
  assert.equal(once.size, 5);
  const sent = fake.requests.length;
  fake.fault = undefined;
  await decryptImage(open('app:enc'), open('app:dec'), { keys: packetKeys([A]) });
  await decryptImage(open('app:enc'), open('app:dec'), { keys: packetKeys([A]) });
  assert.ok(fake.requests.length > sent);
});

test('a wrong digest, a wrong length and another manifest than was asked for end in one error, and nothing is tagged', async (t) => {
  const { fake, made, open, directory } = await setUp(t);
  const source = openLayout(made.directory, 'latest', 'oci:plain');
  const { digest } = await encryptImage(source, open('app:enc'), { recipients: [v2Recipient([A])] });
  const blobs = new Map(fake.blobs);
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  for (const change of [
    (blob: Buffer) => blob.subarray(1),
    (blob: Buffer) => Buffer.concat([blob, Buffer.alloc(1)]),
    (blob: Buffer) => Buffer.from(blob.map((byte, index) => (index === 7 ? byte ^ 1 : byte))),
  ]) {
    for (const [name, blob] of blobs) fake.blobs.set(name, change(blob));
    await rejects('integrity', decryptImage(open('app:enc'), back, { keys: packetKeys([A]) }));
    await rejects('not-found', back.readRoot());
  }
  fake.fault = (_, response, path) =>
    path.includes('/manifests/') &&
    end(response, 200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }, '{}');
  await rejects('integrity', open(`app@${digest}`).readRoot());
  fake.fault = (_, response, path) =>
    path.includes('/manifests/') && end(response, 200, { 'content-type': 'text/html' }, '{}');
  await rejects('bad-input', open('app:enc').readRoot());
  fake.fault = (_, response) =>
    end(response, 200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }, 'x'.repeat(10 * MIB));
  await rejects('bad-input', open('app:enc').readRoot());
  fake.fault = (_, response) => end(response, 500);
  await rejects('unavailable', open('app:enc').readRoot());
  fake.fault = (_, response) => end(response, 403);
  await rejects('refused', open('app:enc').readRoot());
});

test('a blob may come from elsewhere, but no credential goes there, and nothing goes there in clear', async (t) => {
  const { fake, made, open, directory } = await setUp(t);
  const storage = await startFakeRegistry(t, directory);
  const settings = { caFiles: [fake.authority, storage.authority] };
  const basic = `Basic ${Buffer.from(PASSWORD).toString('base64')}`;
  const guard = (authorization: string | undefined, response: ServerResponse) =>
    authorization !== basic && end(response, 401, { 'www-authenticate': 'Basic realm="r"' });
  fake.fault = ({ headers }, response) => guard(headers.authorization, response);
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc', settings), {
    recipients: [v2Recipient([A])],
  });
  for (const [digest, blob] of fake.blobs) storage.blobs.set(digest, blob);
  let target = `https://${storage.host}`;
  fake.fault = ({ headers, method }, response, path) =>
    guard(headers.authorization, response) ||
    (method === 'GET' && path.includes('/blobs/') && end(response, 307, { location: `${target}${path}` }));
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open('app:enc', settings), back, { keys: packetKeys([A]) })).digest, made.digest);
  assert.ok(storage.requests.length > 0);
  assert.ok(storage.requests.every(({ authorization }) => authorization === undefined));
  target = `http://${storage.host}`;
  const second = openLayout(join(directory, 'second'), 'latest', 'oci:second');
  await rejects('unavailable', decryptImage(open('app:enc', settings), second, { keys: packetKeys([A]) }));
});

test('a token is asked for with the credentials of the registry, and again when it has expired', async (t) => {
  const { fake, made, open, directory } = await setUp(t);
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
  const empty = join(directory, 'empty.json');
  await writeFile(empty, '{}');
  await rejects('unauthenticated', open('app:enc', { authFile: empty }).readRoot());
  fake.fault = (_, response) => end(response, 401, { 'www-authenticate': `Bearer realm="http://${fake.host}/token"` });
  await rejects('unavailable', open('app:enc').readRoot());
});

test('what signed or described the old digest is named', async (t) => {
  const { fake, made, open } = await setUp(t);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  const first = await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] });
  assert.deepEqual(first.referrers, []);
  const store = open('app:enc');
  const root = await store.readRoot();
  await open(`app:${root.digest.replace(':', '-')}.sig`).writeRoot(root);
  const artifactType = 'application/spdx+json';
  const descriptor = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: root.digest,
    size: 1,
    artifactType,
  };
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [descriptor] };
  fake.fault = (_, response, path) => path.includes('/referrers/') && end(response, 200, {}, JSON.stringify(index));
  const change = replaceKeys(packetKeys([A]), [v2Recipient([A])]);
  const { referrers } = await rewrapImage(store, { keys: change, dryRun: true });
  assert.deepEqual(referrers, [
    `${artifactType} ${root.digest}`,
    `${fake.host}/app:${root.digest.replace(':', '-')}.sig`,
  ]);
});

async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const fake = await startFakeRegistry(t, directory);
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 5 * MIB }] });
  const authFile = join(directory, 'auth.json');
  await writeFile(
    authFile,
    JSON.stringify({ auths: { [fake.host]: { auth: Buffer.from(PASSWORD).toString('base64') } } }),
  );
  const open = (name: string, settings: object = {}) => {
    const image = parseImageReference(`docker://${fake.host}/${name}`);
    assert.ok(image.transport === 'docker');
    const store = openRegistry(image, { caFiles: [fake.authority], authFile, ...settings });
    t.after(() => store.close());
    return store;
  };
  return { directory, fake, made, open };
}

function end(response: ServerResponse, status: number, headers: Record<string, string> = {}, body = ''): true {
  response.writeHead(status, { 'content-length': String(body.length), ...headers });
  response.end(body);
  return true;
}
