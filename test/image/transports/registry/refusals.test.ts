// What a registry refuses, what it says of it, and how often it is asked again.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeError } from '../../../../src/base/errors.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { MEDIA_TYPES } from '../../../../src/image/model/manifest.ts';
import { retry } from '../../../../src/image/retry.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { copyBlob, createStoredManifest } from '../../../../src/image/transports/store.ts';
import { rejects } from '../../harness.ts';
import { v2Recipient } from '../../packet-recipients.ts';
import { countMethods, end, PASSWORD, setUpRegistry } from './harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const SMALL = { layers: [{}] };
const problem = (code: unknown, message: unknown) =>
  JSON.stringify({ errors: [{ code, message }, { code: 'SECOND' }] });

test('what the registry says of a refusal is shown, bounded, in printable characters and without what we sent', async (t) => {
  const { fake, open } = await setUpRegistry(t, SMALL);
  const refusal = async (body: string) => {
    fake.fault = (_, response) => end(response, 400, {}, body);
    return (await rejects('refused', open('app:enc').readRoot())).message;
  };
  const start = `${fake.host}/app does not answer this`;
  assert.equal(
    await refusal(problem('MANIFEST_INVALID', 'no such type')),
    `${start} (400: MANIFEST_INVALID: no such type)`,
  );
  assert.equal(
    await refusal(problem('DENIED', 'a\n\u001b[31mb\u202ec\u2028d\u0000')),
    `${start} (400: DENIED: a [31mb c d)`,
  );
  assert.equal(await refusal(problem('', 'é 漢')), `${start} (400: é 漢)`);
  const long = await refusal(problem('TOO'.repeat(200), `${'x'.repeat(199)}😀 end`));
  assert.ok(long.length < 500 && long.isWellFormed(), long);
  for (const body of [
    '',
    'nothing',
    '[]',
    '{"errors":[]}',
    '{"errors":{}}',
    '{"errors":[1]}',
    '[[[[',
    problem(1, null),
  ]) {
    assert.equal(await refusal(body), `${start} (400)`);
  }
  assert.equal(await refusal('x'.repeat(100_000)), `${start} (400)`);

  // A server that repeats a credential does not get it into our logs.
  const shown = [PASSWORD.split(':')[1] ?? '', Buffer.from(PASSWORD).toString('base64')];
  for (const secret of shown) {
    fake.fault = (_, response) =>
      end(response, 401, { 'www-authenticate': 'Basic realm="r"' }, problem('UNAUTHORIZED', `not ${secret}`));
    const error = await rejects('unauthenticated', open('app:enc').readRoot());
    assert.ok(!shown.some((one) => describeError(error).includes(one)), error.message);
  }
});

test('no part of a credential is shown either, however long it is and whatever white space it has', async (t) => {
  const { directory, fake, open } = await setUpRegistry(t, SMALL);
  const words = Array.from({ length: 60 }, (_, index) => `word${index}`);
  for (const [kind, password] of [
    ['long', words.join('')],
    ['a JSON key', `{\n  "private_key": "${words.slice(0, 9).join('')}"\n}\n`],
    ['of two lines', words.slice(0, 4).join('\r\n\t')],
  ] as const) {
    const authFile = join(directory, 'other.json');
    const auth = Buffer.from(`_json_key:${password}`).toString('base64');
    await writeFile(authFile, JSON.stringify({ auths: { [fake.host]: { auth } } }));
    for (const secret of [password, auth]) {
      const body = problem('UNAUTHORIZED', `this is not one of ours: ${secret}`);
      fake.fault = (_, response) => end(response, 401, { 'www-authenticate': 'Basic realm="r"' }, body);
      const error = await rejects('unauthenticated', open('app:enc', { authFile }).readRoot());
      assert.doesNotMatch(describeError(error), /word|private|not one of ours/, kind);
    }
  }
});

test('a refusal for good is no fault of the network, and is asked once; what may pass is asked four times', async (t) => {
  const { fake, open } = await setUpRegistry(t, SMALL);
  const manifest = createStoredManifest(new TextEncoder().encode('{}'), MEDIA_TYPES.manifest);
  for (const [status, code, count] of [
    [400, 'refused', 1],
    [403, 'refused', 1],
    [404, 'not-found', 1],
    [405, 'refused', 1],
    [408, 'unavailable', 4],
    [409, 'refused', 1],
    [412, 'refused', 1],
    [413, 'refused', 1],
    [415, 'refused', 1],
    [422, 'refused', 1],
    [429, 'throttled', 4],
    [501, 'unavailable', 1],
    [503, 'unavailable', 4],
  ] as const) {
    // Of the tag: it cannot be moved, or the type is not taken.
    fake.fault = ({ method }, response) =>
      method === 'PUT' && end(response, status, { 'retry-after': '0.01' }, problem('WHY', 'so'));
    fake.requests.splice(0);
    const error = await rejects(code, open('app:enc').writeRoot(manifest));
    assert.match(
      error.message,
      new RegExp(`\\(${status}: WHY: so\\)${count === 1 ? '' : `, tried ${count} times in 0\\.\\d s`}$`),
    );
    assert.equal(countMethods(fake).PUT, count);
  }
});

test('attempts are counted for a blob and not for each of its requests', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  const [blob] = made.images[0].layers;
  assert.ok(blob);
  for (const [method, status, counts] of [
    // Nobody is logged in: once, it is asked whether what it says is not there is only hidden.
    ['POST', 503, { GET: 1, HEAD: 1, POST: 4 }],
    ['PATCH', 503, { GET: 1, HEAD: 4, POST: 4, PATCH: 4 }],
    // Each time it might be there all the same.
    ['PUT', 503, { GET: 1, HEAD: 5, POST: 1, PATCH: 1, PUT: 4 }],
    ['PUT', 404, { GET: 1, HEAD: 4, POST: 4, PATCH: 4, PUT: 4 }],
    ['POST', 413, { GET: 1, HEAD: 1, POST: 1 }],
    ['PATCH', 413, { GET: 1, HEAD: 1, POST: 1, PATCH: 1 }],
    ['PUT', 400, { GET: 1, HEAD: 1, POST: 1, PATCH: 1, PUT: 1 }],
  ] as const) {
    fake.fault = (request, response) => {
      if (request.method !== method) return false;
      request.resume().once('end', () => end(response, status, { 'retry-after': '0' }));
      return true;
    };
    const store = open('app:enc');
    await assert.rejects(retry((signal) => copyBlob(plain, store, blob, signal), undefined));
    assert.deepEqual(countMethods(fake), counts, `${method} ${status}`);
  }
  fake.fault = ({ method }, response) => method === 'POST' && end(response, 503, { 'retry-after': '0' });
  await rejects('unavailable', encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])] }));
  // Two at a time, and the first that fails ends the other.
  const { POST = 0 } = countMethods(fake);
  assert.ok(POST >= 4 && POST <= 8, `${POST} requests`);
});

test('the last request of an upload may take longer than any other, and is not repeated if the blob is there', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  const push = (idle: number) =>
    encryptImage(plain, open('app:enc', { idle }), { recipients: [v2Recipient([A])], layers: [0] });
  let slow = 0;
  fake.fault = async ({ method }, _, path) => {
    if (method === 'PUT' && path.includes('/uploads/')) {
      slow++;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
    return false;
  };
  await push(400);
  assert.equal(slow, made.images[0].layers.length + 1);
  assert.equal(countMethods(fake).PUT, slow + 1);

  fake.blobs.clear();
  // A proxy that gives up while the registry goes on.
  fake.fault = (request, response, path) => {
    if (request.method !== 'PUT' || !path.includes('/uploads/')) return false;
    response.writeHead = () => response;
    response.end = () => {
      response.socket?.destroy();
      return response;
    };
    return false;
  };
  await push(60_000);
  const { PUT, POST } = countMethods(fake);
  assert.deepEqual([PUT, POST], [slow + 1, slow]);
});

test('a pause that nobody would wait for is not waited for, and is told', async (t) => {
  const { fake, open } = await setUpRegistry(t, SMALL);
  for (const after of ['3600', '3600.5', new Date(Date.now() + 3_600_000).toUTCString()]) {
    fake.fault = (_, response) => end(response, 429, { 'retry-after': after });
    fake.requests.splice(0);
    const error = await rejects('throttled', open('app:enc').readRoot());
    assert.match(error.hint ?? '', /wait for 3[56]\d\d s/);
    assert.equal(fake.requests.length, 1);
  }
});

test('a registry that does not say whether it has a blob is sent it', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, SMALL);
  const plain = openLayout(made.directory, 'latest', 'oci:plain');
  for (const status of [403, 404, 405, 501]) {
    fake.fault = ({ method }, response) => method === 'HEAD' && end(response, status);
    fake.requests.splice(0);
    await encryptImage(plain, open('app:enc'), { recipients: [v2Recipient([A])], layers: [0] });
    const { POST, PATCH } = countMethods(fake);
    assert.deepEqual([POST, PATCH], [made.images[0].layers.length + 1, made.images[0].layers.length + 1]);
  }
});
