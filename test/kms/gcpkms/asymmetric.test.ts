// Google Cloud KMS: asymmetric decryption keys, whose public half wraps on this machine.
import assert from 'node:assert/strict';
import { constants, createPublicKey, generateKeyPairSync, publicEncrypt, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type { ErrorCode } from '../../../src/base/errors.ts';
import { crc32c } from '../../../src/kms/gcpkms/crc32c.ts';
import { DEFAULT_LIMITS } from '../../../src/provider/attempts.ts';
import type { PacketChoice } from '../../../src/provider/wrap.ts';
import type { Fault } from '../../fakes/wire.ts';
import { unwrapRequest, wrapRequest } from '../../fixtures/vectors/shape.ts';
import { code, soon } from '../expect.ts';
import { describeKek } from '../kek-conformance.ts';
import { createGoogleProvider, createRecord, readPacket, replyOf } from './faults.ts';
import { FIRST, RING, refusal, startWorld, type World } from './world.ts';

// What the service does to a key shows when unwrapping only: wrapping does not ask it, once the public half is known.
describeKek('Google Cloud KMS that is RSA', async () => {
  const { kms, open, account, close } = await startWorld();
  const [first, second] = [`${RING}/cryptoKeys/rsa`, `${RING}/cryptoKeys/rsa-2`];
  kms.createAsymmetricKey(first);
  kms.createAsymmetricKey(second, 'RSA_DECRYPT_OAEP_3072_SHA256');
  return {
    close,
    harness: {
      bindsContext: false,
      versions: 'enforced',
      maximumBytes: 190,
      openFirst: () => open(first),
      openSecond: () => open(`gcpkms://${second}/cryptoKeyVersions/1`),
      secrets: () => [account.private_key, account.private_key.slice(60, 120), 'Bearer ey'],
    },
  };
});

describe('an asymmetric key of Google Cloud KMS', () => {
  let world: World;
  let calls: () => readonly string[];
  const key = `${RING}/cryptoKeys/pair`;
  before(async () => {
    world = await startWorld();
    world.kms.createAsymmetricKey(key);
    const { requests } = world.kms.server;
    let seen = 0;
    calls = () => {
      const since = requests.slice(seen).map((request) => request.replace(/^.*cryptoKeys\/[^/:]+/, ''));
      seen = requests.length;
      return since;
    };
  });
  after(() => world.close());

  test('wraps with the newest enabled version, and is asked for it once', async () => {
    calls();
    const kek = world.open(key);
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    assert.deepEqual(calls(), [
      ':encrypt',
      '/cryptoKeyVersions?filter=state%3DENABLED&pageSize=100',
      '/cryptoKeyVersions/1/publicKey',
    ]);
    assert.deepEqual(
      [wrapped.key, wrapped.version, wrapped.algorithm, wrapped.wrapped.length],
      [`gcpkms://${key}`, '1', 'RSA_DECRYPT_OAEP_2048_SHA256', 256],
    );
    await kek.wrap(randomBytes(32), {}, soon());
    assert.deepEqual(calls(), []);
    await kek.unwrap(wrapped, {}, soon());
    assert.deepEqual(calls(), ['/cryptoKeyVersions/1:asymmetricDecrypt']);
  });

  test('wraps with the version that the operator names, without a list', async () => {
    calls();
    const kek = world.open(`${key}/cryptoKeyVersions/1`);
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    assert.deepEqual(calls(), ['/cryptoKeyVersions/1:encrypt', '/cryptoKeyVersions/1/publicKey']);
    assert.deepEqual([wrapped.key, wrapped.version], [`gcpkms://${key}`, '1']);
  });

  test('takes up a new version after five minutes, and unwraps with the old one', async () => {
    const rotated = `${RING}/cryptoKeys/rotated`;
    world.kms.createAsymmetricKey(rotated);
    let time = 0;
    const kek = world.open(rotated, {}, () => time);
    const plaintext = randomBytes(32);
    const old = await kek.wrap(plaintext, {}, soon());
    world.kms.rotate(rotated);
    time = 299_000;
    assert.equal((await kek.wrap(plaintext, {}, soon())).version, '1');
    time = 301_000;
    const fresh = await kek.wrap(plaintext, {}, soon());
    assert.equal(fresh.version, '2');
    for (const wrapped of [old, fresh]) assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
    world.kms.setState(rotated, 2, 'DISABLED');
    time = 602_000;
    assert.equal((await kek.wrap(plaintext, {}, soon())).version, '1');
    await code(kek.unwrap(fresh, {}, soon()), 'key-disabled');
    world.kms.setState(rotated, 1, 'DESTROYED');
    time = 903_000;
    await code(kek.wrap(plaintext, {}, soon()), 'key-disabled');
    await code(world.open(rotated).wrap(plaintext, {}, soon()), 'key-disabled');
    await code(world.open(`${rotated}/cryptoKeyVersions/2`).wrap(plaintext, {}, soon()), 'key-disabled');
  });

  for (const [algorithm, maximum] of [
    ['RSA_DECRYPT_OAEP_2048_SHA1', 214],
    ['RSA_DECRYPT_OAEP_3072_SHA256', 318],
    ['RSA_DECRYPT_OAEP_4096_SHA256', 446],
    ['RSA_DECRYPT_OAEP_4096_SHA512', 382],
  ] as const) {
    test(`of ${algorithm} takes ${maximum} bytes and no more`, async () => {
      const name = `${RING}/cryptoKeys/${algorithm}`;
      world.kms.createAsymmetricKey(name, algorithm);
      const kek = world.open(name);
      const plaintext = randomBytes(maximum);
      const wrapped = await kek.wrap(plaintext, {}, soon());
      assert.equal(wrapped.algorithm, algorithm);
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
      const error = await code(kek.wrap(randomBytes(maximum + 1), {}, soon()), 'bad-input');
      assert.match(error.hint ?? '', /packet v2/);
    });
  }

  test('is known by either refusal of a wrong purpose, and by a credential that only sees public keys', async () => {
    const { kms, account } = world;
    kms.setWrongPurpose('INVALID_ARGUMENT');
    await world.open(key).wrap(randomBytes(32), {}, soon());
    kms.setWrongPurpose('FAILED_PRECONDITION');
    await world.open(key).wrap(randomBytes(32), {}, soon());
    kms.deny(account.client_email, 'encrypt');
    kms.deny(account.client_email, 'list');
    const named = await world.open(`${key}/cryptoKeyVersions/1`).wrap(randomBytes(32), {}, soon());
    assert.equal(named.version, '1');
    await code(world.open(key).wrap(randomBytes(32), {}, soon()), 'refused');
    kms.permit(account.client_email);
    kms.deny(account.client_email, 'list');
    const error = await code(world.open(key).wrap(randomBytes(32), {}, soon()), 'configuration');
    assert.match(error.hint ?? '', /roles\/cloudkms\.viewer/);
    assert.match(error.hint ?? '', /name a version: gcpkms:.*cryptoKeyVersions\/N/);
    kms.permit(account.client_email);
  });

  test('costs symmetric keys no call', async () => {
    const kek = world.open(FIRST);
    calls();
    await kek.unwrap(await kek.wrap(randomBytes(32), {}, soon()), {}, soon());
    assert.deepEqual(calls(), [':encrypt', ':decrypt']);
  });

  test('of an algorithm that cannot wrap is refused by name, whichever way it is named', async () => {
    const kem = `${RING}/cryptoKeys/kem`;
    world.kms.createAsymmetricKey(kem, 'ML_KEM_768');
    for (const name of [kem, `${kem}/cryptoKeyVersions/1`]) {
      const error = await code(world.open(name).wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.match(error.message, /ML_KEM_768/);
    }
  });

  test('with more versions than one answer holds must be named with its version', async () => {
    const full: Fault = { kind: 'body', change: (body) => body.replace(/}$/, ',"nextPageToken":"more"}') };
    world.kms.server.faults.push({ kind: 'latency', milliseconds: 0 }, full);
    const error = await code(world.open(key).wrap(randomBytes(32), {}, soon()), 'configuration');
    assert.match(error.hint ?? '', /cryptoKeyVersions\/N/);
  });

  test('unwraps for a packet only where version, algorithm and length can be those of the key', async () => {
    const kek = world.open(key);
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    calls();
    const { version: _, ...nameless } = wrapped;
    for (const changed of [
      nameless,
      { ...wrapped, version: '0' },
      { ...wrapped, version: '1:decrypt' },
      { ...wrapped, version: '../1' },
      { ...wrapped, algorithm: 'RSA_DECRYPT_OAEP_3072_SHA256' },
      { ...wrapped, algorithm: 'RSA_DECRYPT_OAEP_2048_MD5' },
      { ...wrapped, algorithm: 'ML_KEM_768' },
      { ...wrapped, wrapped: new Uint8Array(0) },
    ]) {
      await code(kek.unwrap(changed, {}, soon()), 'integrity');
    }
    assert.deepEqual(calls(), []);
    await code(kek.unwrap({ ...wrapped, version: '2' }, {}, soon()), 'not-found');
    const symmetric = world.open(FIRST);
    await code(symmetric.unwrap(wrapped, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...wrapped, algorithm: 'GOOGLE_SYMMETRIC_ENCRYPTION' }, {}, soon()), 'integrity');
  });

  test('opens what another program made with the public key', async () => {
    const { kms } = world;
    const name = `${RING}/cryptoKeys/foreign`;
    kms.createAsymmetricKey(name, 'RSA_DECRYPT_OAEP_3072_SHA256');
    let pem = '';
    kms.server.faults.push(
      { kind: 'latency', milliseconds: 0 },
      { kind: 'latency', milliseconds: 0 },
      {
        kind: 'body',
        change(body) {
          pem = JSON.parse(body).pem;
          return body;
        },
      },
    );
    const kek = world.open(name);
    const { key: uri } = await kek.wrap(randomBytes(32), {}, soon());
    const plaintext = randomBytes(193);
    const options = { key: pem, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const packet = { key: uri, version: '1', algorithm: 'RSA_DECRYPT_OAEP_3072_SHA256' };
    const wrapped = new Uint8Array(publicEncrypt(options, plaintext));
    assert.deepEqual(Buffer.from(await kek.unwrap({ ...packet, wrapped }, {}, soon())), plaintext);
  });

  describe('refuses every wrong answer', () => {
    const edit = (change: (answer: Record<string, unknown>) => unknown): Fault => ({
      kind: 'body',
      change: (body) => JSON.stringify(change({ ...JSON.parse(body) })),
    });
    const set = (member: string, value: unknown) => edit((answer) => ({ ...answer, [member]: value }));
    const pemOf = (modulusLength: number) =>
      createPublicKey(generateKeyPairSync('rsa', { modulusLength }).privateKey)
        .export({ type: 'spki', format: 'pem' })
        .toString();
    const withPem = (pem: string) =>
      edit((answer) => ({ ...answer, pem, pemCrc32c: String(crc32c(Buffer.from(pem))) }));
    type Case = readonly [what: string, fault: Fault, code: ErrorCode, retryable: boolean];

    const publicKeys: Case[] = [
      ['a public key that its checksum does not cover', set('pem', pemOf(2048)), 'integrity', true],
      ['a wrong checksum', set('pemCrc32c', '1'), 'integrity', true],
      ['no checksum', set('pemCrc32c', undefined), 'integrity', true],
      ['another name', set('name', `${FIRST}/cryptoKeyVersions/1`), 'integrity', true],
      ['another version', set('name', `${key}/cryptoKeyVersions/2`), 'integrity', true],
      ['no name', set('name', undefined), 'integrity', true],
      ['a key of another length', withPem(pemOf(3072)), 'integrity', true],
      ['a short key', withPem(pemOf(1024)), 'integrity', true],
      ['no key', withPem(''), 'integrity', true],
      ['another algorithm', set('algorithm', 'RSA_SIGN_PSS_2048_SHA256'), 'configuration', false],
      ['no algorithm', set('algorithm', undefined), 'configuration', false],
      ['an empty body', { kind: 'answer', status: 200, body: '' }, 'integrity', true],
      ['an outage', { kind: 'answer', ...refusal(503, 'UNAVAILABLE', '') }, 'unavailable', true],
      ['a cut connection', { kind: 'truncated' }, 'unavailable', true],
    ];
    for (const [what, fault, expected, retryable] of publicKeys) {
      test(`about its public key: ${what}`, async () => {
        const kek = world.open(`${key}/cryptoKeyVersions/1`);
        world.kms.server.faults.push({ kind: 'latency', milliseconds: 0 }, fault);
        const error = await code(kek.wrap(randomBytes(32), {}, soon()), expected);
        assert.equal(error.retryable, retryable);
        await kek.wrap(randomBytes(32), {}, soon());
      });
    }

    const lists: Case[] = [
      [
        'versions of another key',
        edit(() => ({ cryptoKeyVersions: [{ name: `${FIRST}/cryptoKeyVersions/1`, state: 'ENABLED' }] })),
        'key-disabled',
        false,
      ],
      [
        'versions that are not enabled',
        edit(() => ({ cryptoKeyVersions: [{ name: `${key}/cryptoKeyVersions/1`, state: 'DISABLED' }] })),
        'key-disabled',
        false,
      ],
      ['no versions', edit(() => ({})), 'key-disabled', false],
      ['something else', edit(() => ({ cryptoKeyVersions: [1, null, {}] })), 'key-disabled', false],
      ['an array', edit(() => []), 'integrity', true],
      ['throttling', { kind: 'answer', ...refusal(429, 'RESOURCE_EXHAUSTED', '') }, 'throttled', true],
    ];
    for (const [what, fault, expected, retryable] of lists) {
      test(`about its versions: ${what}`, async () => {
        const kek = world.open(key);
        world.kms.server.faults.push({ kind: 'latency', milliseconds: 0 }, fault);
        const error = await code(kek.wrap(randomBytes(32), {}, soon()), expected);
        assert.equal(error.retryable, retryable);
        await kek.wrap(randomBytes(32), {}, soon());
      });
    }

    const unwraps: Case[] = [
      ['a plaintext that its checksum does not cover', set('plaintext', 'AAAA'), 'integrity', true],
      ['no checksum of the plaintext', set('plaintextCrc32c', undefined), 'integrity', true],
      ['no word about the ciphertext', set('verifiedCiphertextCrc32c', undefined), 'integrity', true],
      ['an unverified ciphertext', set('verifiedCiphertextCrc32c', false), 'integrity', true],
      [
        'a ciphertext damaged on its way',
        {
          kind: 'request',
          change: (body) =>
            body.replace(/"ciphertext":"(.)/, (_, first) => `"ciphertext":"${first === 'A' ? 'B' : 'A'}`),
        },
        'integrity',
        true,
      ],
      ['a reset', { kind: 'reset-after-headers' }, 'unavailable', true],
    ];
    for (const [what, fault, expected, retryable] of unwraps) {
      test(`about an unwrap: ${what}`, async () => {
        const kek = world.open(key);
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        world.kms.server.faults.push(fault);
        const error = await code(kek.unwrap(wrapped, {}, soon()), expected);
        assert.equal(error.retryable, retryable);
        await kek.unwrap(wrapped, {}, soon());
      });
    }
  });

  test('gets a v2 packet under the reference provider’s name, and none where v1 is asked for', async () => {
    const large = `${RING}/cryptoKeys/large`;
    world.kms.createAsymmetricKey(large, 'RSA_DECRYPT_OAEP_3072_SHA256');
    for (const name of [key, large]) {
      const record = createRecord();
      const request = Buffer.from(wrapRequest([`gcpkms://${name}`], record));
      const provider = (packet: PacketChoice) =>
        createGoogleProvider(world, DEFAULT_LIMITS, { packet, versions: 'ignored' });
      const packet = readPacket(await provider('reference').handle(request));
      assert.equal(JSON.parse(packet.toString()).version, 'ocicrypt-kms/v2');
      const reply = await provider('reference').handle(Buffer.from(unwrapRequest(packet)));
      assert.deepEqual(Buffer.from(reply), replyOf(record));
      const error = await code(provider('v1').handle(request), 'bad-input');
      assert.match(error.hint ?? '', /packet v2/);
    }
  });

  test('says which role each call needs', async () => {
    const { kms, account } = world;
    const wrapped = await world.open(key).wrap(randomBytes(32), {}, soon());
    kms.deny(account.client_email, 'decrypt');
    const error = await code(world.open(key).unwrap(wrapped, {}, soon()), 'refused');
    kms.permit(account.client_email);
    assert.match(error.hint ?? '', /roles\/cloudkms\.cryptoKeyDecrypter/);
    let time = 0;
    const kek = world.open(key, {}, () => time);
    await kek.wrap(randomBytes(32), {}, soon());
    kms.deny(account.client_email, 'list');
    time = 1e9;
    const listing = await code(kek.wrap(randomBytes(32), {}, soon()), 'refused');
    kms.permit(account.client_email);
    assert.match(listing.hint ?? '', /roles\/cloudkms\.viewer/);
  });
});
