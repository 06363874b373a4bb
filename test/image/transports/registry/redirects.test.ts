// Where a registry sends us: to another address, to another host, to a place without TLS.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { decryptImage } from '../../../../src/image/decrypt.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { openRegistry } from '../../../../src/image/transports/registry/store.ts';
import { startProxy } from '../../../fixtures/proxy.ts';
import { rejects } from '../../harness.ts';
import { packetKeys, v2Recipient } from '../../packet-recipients.ts';
import { startFakeRegistry } from './fake-registry.ts';
import { end, PASSWORD, setUpRegistry } from './harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const BASIC = `Basic ${Buffer.from(PASSWORD).toString('base64')}`;
const SMALL = { layers: [{}] };

test('redirects that keep method and body are followed: with the credential at the same origin, without it at another', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t, SMALL);
  const other = await startFakeRegistry(t, directory);
  const settings = { caFiles: [fake.authority, other.authority] };
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  const isMoved = (path: string) => path.startsWith('/v2/moved/');
  for (const [status, host] of [
    [307, fake.host],
    [308, fake.host],
    [307, other.host],
    [308, other.host],
  ] as const) {
    for (const one of [fake, other]) one.requests.splice(0);
    fake.blobs.clear();
    fake.fault = ({ headers, method, url = '' }, response, path) => {
      if (headers.authorization !== BASIC) return end(response, 401, { 'www-authenticate': 'Basic realm="r"' });
      if (isMoved(path) || method === 'PATCH') return false;
      return end(response, status, { location: `https://${host}${url.replace('/v2/app/', '/v2/moved/')}` });
    };
    const { digest } = await encryptImage(plain, open('app:enc', settings), { recipients: [v2Recipient([A])] });
    const back = openLayout(join(directory, `back-${status}-${host === fake.host}`), 'latest', 'oci:back');
    await decryptImage(open(`app@${digest}`, settings), back, { keys: packetKeys([A]) });
    const moved = [...fake.requests, ...other.requests].filter(({ path }) => isMoved(path));
    for (const method of ['HEAD', 'GET', 'POST', 'PUT'])
      assert.ok(
        moved.some((one) => one.method === method),
        method,
      );
    const expected = host === fake.host ? BASIC : undefined;
    assert.ok(moved.every(({ authorization }) => authorization === expected));
    assert.ok(other.requests.every(({ authorization }) => authorization === undefined));
  }
});

test('a redirect that changes the method, never ends, or names no address is not followed', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  for (const status of [301, 302, 303]) {
    fake.fault = ({ method }, response, path) => method === 'POST' && end(response, status, { location: path });
    fake.requests.splice(0);
    await rejects('unavailable', encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] }));
  }
  for (const location of ['/v2/app/manifests/enc', 'ftp://x/', 'https://user:password@x/', 'https://', '']) {
    fake.fault = (_, response) => end(response, 307, { location });
    fake.requests.splice(0);
    await rejects('unavailable', open('app:enc').readRoot());
    // The command before may have left one on its way.
    assert.ok(fake.requests.filter(({ path }) => path.endsWith('/enc')).length <= 5, location);
  }
});

test('a registry that has TLS and sends on without is told apart', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  fake.fault = ({ method }, response, path) =>
    method === 'POST' && end(response, 202, { location: `http://${fake.host}${path}1` });
  const error = await rejects('unavailable', encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] }));
  assert.match(
    `${error.message} ${error.hint}`,
    new RegExp(`on to http://${fake.host}, without it.*X-Forwarded-Proto`),
  );
  fake.fault = (_, response, path) => end(response, 307, { location: `http://${fake.host}${path}` });
  await rejects('unavailable', open('app:enc').readRoot());
});

test('a registry of this machine may do without TLS, with a password and a token too; another one may not', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t, { ...SMALL, tls: false });
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  fake.fault = ({ headers }, response, path) => {
    if (path === '/token') return end(response, headers.authorization === BASIC ? 200 : 401, {}, '{"token":"t"}');
    const challenge = `Bearer realm="http://${fake.host}/token"`;
    return headers.authorization !== 'Bearer t' && end(response, 401, { 'www-authenticate': challenge });
  };
  const { digest } = await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] });
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open(`app@${digest}`), back, { keys: packetKeys([A]) })).digest, made.digest);
  // The literal hosts of this machine, and no name that may come to mean it.
  fake.fault = undefined;
  const port = Number(fake.host.split(':')[1]);
  const proxy = await startProxy(t, { 'registry.test:443': port });
  const openAt = (host: string) => {
    const store = openRegistry(
      { transport: 'docker', host, name: 'app', tag: 'enc', digest: undefined },
      { environment: { HOME: directory, HTTPS_PROXY: proxy } },
    );
    t.after(() => store.close());
    return store;
  };
  assert.equal((await openAt(`localhost:${port}`).readRoot()).digest, digest);
  const error = await rejects('unavailable', openAt('registry.test').readRoot());
  assert.match(error.message, /^registry.test answers without TLS, in plain HTTP$/);
  // Nothing is sent on from here to a place elsewhere.
  fake.fault = (_, response) => end(response, 307, { location: 'http://registry.example/' });
  await rejects('unavailable', open('app:enc').readRoot());
  fake.fault = (_, response) =>
    end(response, 401, { 'www-authenticate': 'Bearer realm="http://registry.example/token"' });
  await rejects('unavailable', open('app:enc').readRoot());
});
