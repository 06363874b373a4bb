// A registry that is busy, slow, wrong, or wants credentials carried elsewhere.

import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { decryptImage } from '../../../../src/image/decrypt.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { inspectImage } from '../../../../src/image/inspect.ts';
import { withoutRetries } from '../../../../src/image/retry.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { verifyImage } from '../../../../src/image/verify.ts';
import { rejects } from '../../harness.ts';
import { packetKeys, v2Recipient } from '../../packet-recipients.ts';
import { type Fault, startFakeRegistry } from './fake-registry.ts';
import { end, setUpRegistry } from './harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const MIB = 1024 * 1024;
const PASSWORD = 'somebody:secret';

test('a busy registry is asked again when it says, and a broken connection and a lost session are made good', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t);
  let left = 0;
  const push = async (fault: Fault) => {
    left = 1;
    fake.blobs.clear();
    fake.fault = fault;
    await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
      recipients: [v2Recipient([A])],
    });
    assert.ok(left < 1, 'nothing went wrong');
  };
  await push(({ method }, response) => method === 'HEAD' && left-- > 0 && end(response, 429, { 'retry-after': '0' }));
  await push(({ method }, response) => method === 'POST' && left-- > 0 && end(response, 503));
  await push((request) => {
    if (request.method !== 'PATCH' || left-- <= 0) return false;
    request.once('data', () => request.socket.destroy());
    return true;
  });
  await push((request, response) => {
    if (request.method !== 'PATCH' || left-- <= 0) return false;
    request.resume().once('end', () => end(response, 404));
    return true;
  });
  await push(
    ({ method }, response, path) => method === 'PUT' && path.includes('/uploads/') && left-- > 0 && end(response, 404),
  );
  left = 1;
  fake.fault = ({ method }, response, path) => {
    if (method !== 'GET' || !path.includes('/blobs/') || left-- <= 0) return false;
    const blob = fake.blobs.get(path.slice(path.indexOf('sha256:'))) ?? Buffer.alloc(0);
    response.writeHead(200, { 'content-length': String(blob.length) });
    response.write(blob.subarray(0, blob.length / 2), () => response.destroy());
    return true;
  };
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open('app:enc'), back, { keys: packetKeys([A]) })).digest, made.digest);
  assert.ok(left < 1);
});

test('what the registry has is not sent again, and nobody fetches a layer to look at an image', async (t) => {
  const { fake, made, open } = await setUpRegistry(t);
  const [image] = made.images;
  const seen = (method: string) => fake.requests.splice(0).flatMap((one) => (one.method === method ? [one.path] : []));
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
    recipients: [v2Recipient([A])],
  });
  const sent = seen('PATCH').length;
  assert.equal(sent, image.layers.length + 1);
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:last'), {
    recipients: [v2Recipient([A])],
    layers: [-1],
  });
  // The first layer as it is, and the last anew: the config was there.
  assert.equal(seen('PATCH').length, 2);
  await decryptImage(open('app:last'), open('app:dec'), { keys: packetKeys([A]) });
  assert.equal(seen('PATCH').length, 1);

  await inspectImage(open('app:enc'));
  await verifyImage(open('app:enc'), { require: [A] });
  for (const path of seen('GET').filter((one) => one.includes('/blobs/'))) {
    assert.ok(path.endsWith(image.config.digest), `${path} was fetched`);
  }
});

test('a registry that is slow is waited for, one that is silent is given up, and one that is too busy says for how long', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] });
  const ofBlob = (method: string | undefined, path: string) => method === 'GET' && /\/blobs\/sha256:/.test(path);
  fake.fault = (request, response, path) => {
    const blob = fake.blobs.get(path.slice(path.indexOf('sha256:')));
    if (!ofBlob(request.method, path) || blob === undefined) return false;
    void drip(response, blob, 8);
    return true;
  };
  const slow = openLayout(join(directory, 'slow'), 'latest', 'oci:slow');
  const keys = packetKeys([A]);
  assert.equal((await decryptImage(open('app:enc', { idle: 2000 }), slow, { keys })).digest, made.digest);

  // The first time it falls silent in the middle, the second time it does not.
  let silent = 0;
  fake.fault = (request, response, path) => {
    const blob = fake.blobs.get(path.slice(path.indexOf('sha256:')));
    if (!ofBlob(request.method, path) || blob === undefined || silent++ > 0) return false;
    response.writeHead(200, { 'content-length': String(blob.length) });
    response.write(blob.subarray(0, blob.length / 2));
    return true;
  };
  const again = openLayout(join(directory, 'again'), 'latest', 'oci:again');
  assert.equal((await decryptImage(open('app:enc', { idle: 400 }), again, { keys })).digest, made.digest);
  fake.fault = () => true;
  await rejects(
    'deadline-exceeded',
    withoutRetries((signal) => open('app:enc', { idle: 50 }).readRoot(signal), undefined),
  );

  const times: number[] = [];
  fake.fault = (_, response) => {
    times.push(performance.now());
    return times.length === 1 && end(response, 429, { 'retry-after': '1' });
  };
  await open('app:enc').readRoot();
  assert.ok((times[1] ?? 0) - (times[0] ?? 0) > 990, 'was not left alone for as long as it asked');
  fake.fault = (_, response) => end(response, 429, { 'retry-after': '0' });
  await rejects('throttled', open('app:enc').readRoot());
});

test('a wrong digest, a wrong length and another manifest than was asked for end in one error, and nothing is tagged', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t);
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
  // A login page, and what else stands in the way, is no image that is at fault.
  for (const [status, body] of [
    [200, '<html>sign in</html>'],
    [200, ''],
    [511, '<html>sign in</html>'],
    [407, ''],
    [400, 'Client sent an HTTP request to an HTTPS server.'],
  ] as const) {
    fake.fault = (_, response) => end(response, status, { 'content-type': 'text/html' }, body);
    const error = await rejects(
      status === 407 || status === 400 ? 'refused' : 'unavailable',
      open('app:enc').readRoot(),
    );
    assert.match(error.hint ?? '', /check the host and the proxy$/, error.message);
  }
  fake.fault = (_, response) =>
    end(response, 200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }, 'x'.repeat(10 * MIB));
  await rejects('bad-input', open('app:enc').readRoot());
  fake.fault = (_, response) => end(response, 500, { 'retry-after': '0' });
  await rejects('unavailable', open('app:enc').readRoot());
  fake.fault = (_, response) => end(response, 403);
  await rejects('refused', open('app:enc').readRoot());
});

test('a blob may come from elsewhere, but no credential goes there, and nothing goes there in clear', async (t) => {
  const { fake, made, open, directory } = await setUpRegistry(t);
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
  fake.fault = ({ headers, method }, response, path) =>
    guard(headers.authorization, response) ||
    (method === 'GET' &&
      path.includes('/blobs/') &&
      end(response, 307, { location: `https://${storage.host}${path}` }));
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open('app:enc', settings), back, { keys: packetKeys([A]) })).digest, made.digest);
  assert.ok(storage.requests.length > 0);
  assert.ok(storage.requests.every(({ authorization }) => authorization === undefined));
  // Blobs may be sent elsewhere too, on the same terms; other requests are not taken there.
  storage.requests.splice(0);
  const uploads = '/v2/app/blobs/uploads/';
  fake.fault = ({ headers, method }, response) =>
    guard(headers.authorization, response) ||
    (method === 'POST' && end(response, 202, { location: `https://${storage.host}${uploads}elsewhere` }));
  storage.fault = (request, response, path) => {
    const status = request.method === 'PUT' ? 201 : 202;
    request.resume().once('end', () => end(response, status, { location: path }));
    return true;
  };
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:else', settings), {
    recipients: [v2Recipient([A])],
  });
  assert.ok(storage.requests.some(({ method }) => method === 'PATCH'));
  assert.ok(storage.requests.every(({ authorization }) => authorization === undefined));
  fake.fault = ({ headers, method }, response, path) =>
    guard(headers.authorization, response) ||
    (method === 'GET' && path.includes('/blobs/') && end(response, 307, { location: `http://${storage.host}${path}` }));
  const second = openLayout(join(directory, 'second'), 'latest', 'oci:second');
  await rejects('unavailable', decryptImage(open('app:enc', settings), second, { keys: packetKeys([A]) }));
});

/** Sends a body in parts, with pauses. */
async function drip(response: ServerResponse, body: Buffer, parts: number): Promise<void> {
  response.writeHead(200, { 'content-length': String(body.length) });
  const size = Math.ceil(body.length / parts);
  for (let from = 0; from < body.length; from += size) {
    response.write(body.subarray(from, from + size));
    await sleep(20);
  }
  response.end();
}
