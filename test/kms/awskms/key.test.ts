// AWS KMS: the conformance suite for symmetric and RSA keys, and every way in which an answer can be wrong.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { type AwsKmsSettings, openAwsKms } from '../../../src/kms/awskms/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { type FakeAwsKms, startFakeAwsKms } from '../../fakes/aws-kms.ts';
import type { Fault } from '../../fakes/wire.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { code, soon } from '../expect.ts';
import { describeKek, type KekHarness } from '../kek-conformance.ts';
import { describeWrongAnswers, edit, set, type WrongAnswer, without } from '../wrong-answers.ts';

type World = {
  readonly kms: FakeAwsKms;
  readonly caFile: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly open: (key: string, more?: Partial<AwsKmsSettings>) => Kek;
  readonly close: () => Promise<void>;
};

async function startWorld(): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'awskms-'));
  const authority = await createCertificateAuthority(directory);
  const kms = await startFakeAwsKms({ tls: await authority.issue('server') });
  const environment = {
    AWS_ACCESS_KEY_ID: kms.accessKey.id,
    AWS_SECRET_ACCESS_KEY: kms.accessKey.secret,
    AWS_ENDPOINT_URL_KMS: kms.endpoint,
  };
  const opened: Kek[] = [];
  return {
    kms,
    caFile: authority.certificate,
    environment,
    open(key, more = {}) {
      const uri = parseKeyUri(key);
      assert.ok(uri.scheme === 'awskms');
      const kek = openAwsKms(uri, { caFiles: [authority.certificate], environment, ...more });
      opened.push(kek);
      return kek;
    },
    async close() {
      for (const kek of opened) kek.close?.();
      await kms.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** What the service can do to a key; `first` and `second` are ARNs. */
function harnessOf({ kms, open }: World, first: string, second: string): KekHarness {
  const always = (fault: Fault) => () => kms.server.setFault(() => fault);
  return {
    bindsContext: true,
    versions: 'none',
    openFirst: () => open(`awskms:///${first}`),
    openSecond: () => open(second),
    secrets: () => [kms.accessKey.secret, 'AWS4-HMAC', kms.accessKey.id],
    restore() {
      kms.server.setFault(undefined);
      kms.permit();
      kms.setState(first, 'Enabled');
    },
    disable: () => kms.setState(first, 'Disabled'),
    remove: always(refusal('NotFoundException')),
    deny: (method) => kms.deny(method === 'wrap' ? 'Encrypt' : 'Decrypt'),
    throttle: always({ ...refusal('ThrottlingException'), headers: { 'Retry-After': '7' } }),
    breakDown: always(refusal('KMSInternalException', 500)),
    hang: always({ kind: 'silent' }),
    cutOff: always({ kind: 'truncated' }),
    answerOfOther: always({ kind: 'body', change: (body) => body.replace(first, second) }),
  };
}

describeKek('AWS KMS', async () => {
  const world = await startWorld();
  return {
    close: world.close,
    harness: harnessOf(world, world.kms.createKey(), world.kms.createKey()),
  };
}, ['disable', 'remove', 'deny', 'throttle', 'breakDown', 'hang', 'cutOff', 'answerOfOther']);

// What the service does to a key shows when unwrapping only: wrapping does not ask it, once the public half is known.
describeKek('AWS KMS that is RSA', async () => {
  const world = await startWorld();
  const [first, second] = [world.kms.createKey({ rsa: 2048 }), world.kms.createKey({ rsa: 3072 })];
  const harness = harnessOf(world, first, second);
  return { close: world.close, harness: { ...harness, bindsContext: false, maximumBytes: 190 } };
});

describe('AWS KMS', () => {
  let world: World;
  let arn: string;
  before(async () => {
    world = await startWorld();
    arn = world.kms.createKey();
  });
  after(() => world.close());

  test('stores the ARN that answered, whatever the operator called the key', async () => {
    const { kms, open } = world;
    kms.createAlias('alias/team/image', arn);
    const id = arn.replace(/^.*\//, '');
    for (const name of [
      arn,
      `awskms:///${id}`,
      `awskms:///${id.toUpperCase()}`,
      'awskms:///alias/team/image',
      arn.replace(/key\/.*$/, 'alias/team/image'),
    ]) {
      const kek = open(name, { region: 'eu-west-1' });
      const wrapped = await kek.wrap(randomBytes(32), { a: 'b' }, soon());
      assert.equal(wrapped.key, `awskms:///${arn}`);
      assert.equal(wrapped.algorithm, 'SYMMETRIC_DEFAULT');
      await kek.unwrap(wrapped, { a: 'b' }, soon());
    }
  });

  test('unwraps after the key material was rotated', async () => {
    const key = world.kms.createKey();
    const kek = world.open(key);
    const plaintext = randomBytes(32);
    const before = await kek.wrap(plaintext, {}, soon());
    world.kms.rotate(key);
    const after = await kek.wrap(plaintext, {}, soon());
    for (const wrapped of [before, after])
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
  });

  test('refuses what an alias wrapped once it points elsewhere', async () => {
    const { kms, open } = world;
    const [one, other] = [kms.createKey(), kms.createKey()];
    kms.createAlias('alias/moving', one);
    const kek = open('awskms:///alias/moving', { region: 'eu-west-1' });
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    kms.createAlias('alias/moving', other);
    await code(kek.unwrap(wrapped, {}, soon()), 'integrity');
    // Even if the service took it: the packet's key is not the one that answered.
    const foreign = { ...(await kek.wrap(randomBytes(32), {}, soon())), key: wrapped.key };
    await code(kek.unwrap(foreign, {}, soon()), 'integrity');
  });

  test('unwraps with a replica of a multi-Region key what another region wrapped', async () => {
    const { kms, open } = world;
    const primary = kms.createKey({ multiRegion: true });
    const replica = kms.replicate(primary, 'us-east-1');
    const plaintext = randomBytes(32);
    const wrapped = await open(primary).wrap(plaintext, { a: 'b' }, soon());
    assert.deepEqual(Buffer.from(await open(replica).unwrap(wrapped, { a: 'b' }, soon())), plaintext);
    const foreign = { ...wrapped, key: wrapped.key.replace('111122223333', '444455556666') };
    await code(open(replica).unwrap(foreign, { a: 'b' }, soon()), 'integrity');
  });

  test('is asked in the region of the ARN, whatever the environment says', async () => {
    const key = world.kms.createKey({ region: 'ap-southeast-2' });
    await world
      .open(key, { region: 'eu-west-1', environment: { ...world.environment, AWS_REGION: 'us-east-1' } })
      .wrap(randomBytes(32), {}, soon());
  });

  test('cannot be asked about a bare id without a region, and may find one in the profile', async () => {
    const id = arn.replace(/^.*\//, '');
    const bare = { ...world.environment, AWS_CONFIG_FILE: '/nonexistent', AWS_SHARED_CREDENTIALS_FILE: '/nonexistent' };
    await code(world.open(`awskms:///${id}`, { environment: bare }).wrap(randomBytes(32), {}, soon()), 'configuration');
    for (const name of ['AWS_REGION', 'AWS_DEFAULT_REGION']) {
      const kek = world.open(`awskms:///${id}`, { environment: { ...bare, [name]: 'eu-west-1' } });
      await kek.wrap(randomBytes(32), {}, soon());
    }
  });

  test('wraps with an RSA key without asking twice, and unwraps in the service', async () => {
    const key = world.kms.createKey({ rsa: 2048 });
    const kek = world.open(key);
    const before = world.kms.server.requests.length;
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    await kek.wrap(randomBytes(32), {}, soon());
    assert.equal(world.kms.server.requests.length, before + 2);
    assert.deepEqual([wrapped.key, wrapped.algorithm], [`awskms:///${key}`, 'RSAES_OAEP_SHA_256']);
    assert.equal(wrapped.wrapped.length, 256);
    await code(kek.wrap(randomBytes(191), {}, soon()), 'bad-input');
    await code(kek.unwrap({ ...wrapped, algorithm: 'SYMMETRIC_DEFAULT' }, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...wrapped, algorithm: 'RSAES_OAEP_SHA_1' }, {}, soon()), 'integrity');
  });

  test('wraps with an RSA key of which only the public half may be read', async () => {
    const key = world.kms.createKey({ rsa: 2048 });
    world.kms.deny('Encrypt');
    await world.open(key).wrap(randomBytes(32), {}, soon());
    world.kms.deny('GetPublicKey');
    const error = await code(world.open(key).wrap(randomBytes(32), {}, soon()), 'refused');
    assert.match(error.hint ?? '', /kms:Encrypt/);
    world.kms.permit();
  });

  test('is not asked about more than it takes', async () => {
    const kek = world.open(arn);
    const before = world.kms.server.requests.length;
    await code(kek.wrap(new Uint8Array(4097), {}, soon()), 'bad-input');
    const packet = { key: `awskms:///${arn}`, algorithm: '', wrapped: new Uint8Array(6145) };
    await code(kek.unwrap(packet, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...packet, wrapped: new Uint8Array(0) }, {}, soon()), 'integrity');
    await code(kek.unwrap({ ...packet, algorithm: 'ROT13', wrapped: new Uint8Array(99) }, {}, soon()), 'integrity');
    assert.equal(world.kms.server.requests.length, before);
  });

  test('keeps one connection for one call after another', async () => {
    const kek = world.open(arn);
    const before = world.kms.server.connections;
    for (let call = 0; call < 5; call++) await kek.wrap(randomBytes(32), {}, soon());
    // The first request of a host has a connection of its own on Bun.
    assert.ok(world.kms.server.connections <= before + ('bun' in process.versions ? 2 : 1));
  });

  test('unwraps what other programs wrapped: no algorithm, and an id or alias for a name', async () => {
    const { kms, open } = world;
    kms.createAlias('alias/other', arn);
    const kek = open(arn);
    const { wrapped } = await kek.wrap(randomBytes(32), {}, soon());
    await kek.unwrap({ key: `awskms:///${arn.replace(/^.*\//, '')}`, algorithm: '', wrapped }, {}, soon());
    await kek.unwrap({ key: 'awskms:///alias/other', algorithm: '', wrapped }, {}, soon());
    const other = `awskms:///${kms.createKey().replace(/^.*\//, '')}`;
    await code(kek.unwrap({ key: other, algorithm: '', wrapped }, {}, soon()), 'integrity');
  });

  describe('and answers', () => {
    const own: WrongAnswer[] = [
      ['no ciphertext', 'wrap', 'integrity', true, without('CiphertextBlob')],
      ['a ciphertext that is not base64', 'wrap', 'integrity', true, set('CiphertextBlob', '!!')],
      ['a ciphertext of no bytes', 'wrap', 'integrity', true, set('CiphertextBlob', '')],
      ['a ciphertext that is too long', 'wrap', 'integrity', true, set('CiphertextBlob', 'A'.repeat(8196))],
      ['no plaintext', 'unwrap', 'integrity', true, without('Plaintext')],
      ['a plaintext that is a number', 'unwrap', 'integrity', true, set('Plaintext', 5)],
    ];
    for (const method of ['wrap', 'unwrap'] as const) {
      own.push(
        ['no key', method, 'integrity', true, without('KeyId')],
        [
          'an id in place of an ARN',
          method,
          'integrity',
          true,
          edit((a) => ({ ...a, KeyId: String(a.KeyId).slice(-36) })),
        ],
        [
          'an alias in place of a key',
          method,
          'integrity',
          true,
          set('KeyId', 'arn:aws:kms:eu-west-1:111122223333:alias/x'),
        ],
        [
          'a key of another region',
          method,
          'integrity',
          true,
          edit((a) => ({ ...a, KeyId: String(a.KeyId).replace('eu-west-1', 'eu-west-2') })),
        ],
        ['another algorithm', method, 'integrity', true, set('EncryptionAlgorithm', 'RSAES_OAEP_SHA_1')],
      );
    }
    describeWrongAnswers(() => ({ kek: world.open(arn), server: world.kms.server }), own);

    test('bytes changed on their way are not signed', async () => {
      const kek = world.open(arn);
      world.kms.server.faults.push({ kind: 'request', change: (body) => `${body} ` });
      await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    });
    test('a public key that is none, or too small, or of another key', async () => {
      const key = world.kms.createKey({ rsa: 2048 });
      for (const [fault, expected] of [
        [set('PublicKey', 'AAAA'), 'configuration'],
        [set('EncryptionAlgorithms', ['RSAES_OAEP_SHA_1']), 'configuration'],
        [set('KeyId', arn), 'integrity'],
        [{ kind: 'truncated' }, 'unavailable'],
        [refusal('ThrottlingException'), 'throttled'],
      ] as const) {
        world.kms.server.faults.push({ kind: 'latency', milliseconds: 0 }, fault);
        await code(world.open(key).wrap(randomBytes(32), {}, soon()), expected);
      }
    });
  });

  describe('explains a refusal', () => {
    for (const [type, expected, hint] of [
      [
        'AccessDeniedException',
        'refused',
        /allow kms:Encrypt .* aws kms create-grant --region eu-west-1 --key-id [0-9a-f-]{36} --operations Encrypt/,
      ],
      ['NotFoundException', 'not-found', /aws kms list-aliases --region eu-west-1/],
      ['com.amazonaws.kms#NotFoundException', 'not-found', /aws kms list-aliases/],
      ['InvalidArnException', 'not-found', /aws kms list-aliases/],
      ['DisabledException', 'key-disabled', /aws kms enable-key --region eu-west-1 --key-id/],
      ['KMSInvalidStateException', 'key-disabled', /KeyState/],
      ['InvalidKeyUsageException', 'configuration', /ENCRYPT_DECRYPT/],
      ['ValidationException', 'configuration', /aws kms describe-key/],
      ['UnrecognizedClientException', 'unauthenticated', /aws sts get-caller-identity/],
      ['InvalidSignatureException', 'unauthenticated', /clock/],
    ] as const) {
      test(type, async () => {
        world.kms.deny('GetPublicKey');
        world.kms.server.faults.push(refusal(type, 400, 'A secret told by the service.'));
        const error = await code(world.open(arn).wrap(randomBytes(32), {}, soon()), expected);
        world.kms.permit();
        assert.match(error.hint ?? '', hint);
        assert.ok(!`${error.message}${error.hint}`.includes('secret'));
        assert.equal(error.retryable, false);
      });
    }
    test('AccessDeniedException about the key of the ciphertext', async () => {
      const kek = world.open(arn);
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      const text =
        'The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.';
      world.kms.server.faults.push(refusal('AccessDeniedException', 400, text));
      await code(kek.unwrap(wrapped, {}, soon()), 'integrity');
    });
    for (const text of [
      'User: arn:aws:iam::111122223333:user/x is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access',
      'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.',
    ]) {
      test(`AccessDeniedException as "${text.slice(-60)}", its member in capitals`, async () => {
        const kek = world.open(arn);
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        const body = JSON.stringify({ __type: 'AccessDeniedException', Message: text });
        world.kms.server.faults.push({ kind: 'answer', status: 400, body });
        await code(kek.unwrap(wrapped, {}, soon()), 'integrity');
      });
    }
    for (const [said, hint] of [
      ['with an explicit deny in a service control policy', /service control policy .* cannot$/],
      ['because no service control policy allows the kms:Encrypt action', /service control policy/],
      ['with an explicit deny in a resource control policy', /resource control policy/],
      ['with an explicit deny in a VPC endpoint policy', /VPC endpoint/],
      ['because no VPC endpoint policy allows the kms:Encrypt action', /VPC endpoint/],
      ['because no permissions boundary allows the kms:Encrypt action', /permissions boundary/],
      ['with an explicit deny in a session policy', /assumed with/],
      ['with an explicit deny in a resource-based policy', /key's policy denies/],
      [
        'because the resource does not exist in this Region, no resource-based policies allow access',
        /no such key in eu-west-1; else allow kms:Encrypt/,
      ],
      ['because no identity-based policy allows the kms:Encrypt action', /^allow kms:Encrypt in the key's policy/],
    ] as const) {
      test(`AccessDeniedException ${said}`, async () => {
        world.kms.deny('GetPublicKey');
        world.kms.server.faults.push(
          refusal(
            'AccessDeniedException',
            400,
            `User: x is not authorized to perform: kms:Encrypt on resource: y ${said}`,
          ),
        );
        const error = await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'refused');
        world.kms.permit();
        assert.match(error.hint ?? '', hint);
      });
    }
    for (const text of [
      'The external key store proxy did not respond in time. Retry the request. If you see this error repeatedly, report it.',
      'AWS KMS cannot communicate with the external key store proxy.',
      'KMS rejected the request because of a very high request rate to the external key store.',
      'arn:aws:kms:eu-west-1:111122223333:key/x is creating.',
    ]) {
      test(`KMSInvalidStateException that passes: ${text.slice(0, 50)}`, async () => {
        world.kms.server.faults.push(refusal('KMSInvalidStateException', 400, text));
        const error = await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'unavailable');
        assert.equal(error.retryable, true);
      });
    }
    test('ValidationException about the context of an RSA key, which then wraps without', async () => {
      const rsa = world.kms.createKey({ rsa: 2048 });
      world.kms.server.faults.push(refusal('ValidationException', 400, 'EncryptionContext is not supported'));
      const { algorithm } = await world.open(rsa).wrap(randomBytes(32), { a: 'b' }, soon());
      assert.equal(algorithm, 'RSAES_OAEP_SHA_256');
    });
    for (const type of ['RequestThrottledException', 'ThrottledException', 'EC2ThrottledException', 'SlowDown']) {
      test(`${type} is throttling`, async () => {
        world.kms.server.faults.push({ ...refusal(type), headers: { 'X-Amz-Retry-After': '1500' } });
        assert.equal((await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'throttled')).retryAfter, 1500);
      });
    }
    for (const type of ['KMSInternalException', 'KeyUnavailableException', 'DependencyTimeoutException']) {
      test(`${type} is worth a retry`, async () => {
        world.kms.server.faults.push(refusal(type));
        assert.equal((await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'unavailable')).retryable, true);
      });
    }
    test('ThrottlingException has status 400, and may say how long to wait', async () => {
      world.kms.server.faults.push({ ...refusal('ThrottlingException'), headers: { 'Retry-After': '7' } });
      assert.equal((await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'throttled')).retryAfter, 7000);
    });
  });

  test('does not take a signature of a caller whose clock is far off', async () => {
    for (const skew of [7200, -7200]) {
      world.kms.setClockSkew(skew);
      await code(world.open(arn).wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    }
    world.kms.setClockSkew(0);
  });

  test('does not take another secret', async () => {
    const environment = { ...world.environment, AWS_SECRET_ACCESS_KEY: 'wrong' };
    await code(world.open(arn, { environment }).wrap(randomBytes(32), {}, soon()), 'unauthenticated');
  });

  test('is found under the endpoint of the setting, of the URI and of the environment, in this order', async () => {
    const host = new URL(world.kms.endpoint).host;
    const nowhere = { ...world.environment, AWS_ENDPOINT_URL_KMS: 'https://127.0.0.1:9' };
    const general = { ...world.environment, AWS_ENDPOINT_URL_KMS: '', AWS_ENDPOINT_URL: world.kms.endpoint };
    for (const kek of [
      world.open(arn, { endpoint: world.kms.endpoint, environment: nowhere }),
      world.open(arn, { endpoint: `${host}/`, environment: nowhere }),
      world.open(`awskms://${host}/${arn}`, { endpoint: 'https://127.0.0.1:9', environment: nowhere }),
      world.open(arn, { environment: general }),
    ]) {
      await kek.wrap(randomBytes(32), {}, soon());
    }
    await code(world.open(arn, { environment: nowhere }).wrap(randomBytes(32), {}, soon()), 'unavailable');
    await code(world.open(arn, { endpoint: 'http://kms.test' }).wrap(randomBytes(32), {}, soon()), 'configuration');
  });
});

function refusal(type: string, status = 400, message = '') {
  return { kind: 'answer', status, body: JSON.stringify({ __type: type, message }) } as const;
}
