// Google Cloud KMS: the conformance suite, and every way in which an answer can be wrong.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { OcicryptError } from '../../../src/base/errors.ts';
import { crc32c } from '../../../src/kms/gcpkms/crc32c.ts';
import type { Fault } from '../../fakes/wire.ts';
import { code, soon } from '../expect.ts';
import { describeKek } from '../kek-conformance.ts';
import { describeWrongAnswers, edit, set, type WrongAnswer, without } from '../wrong-answers.ts';
import { FIRST, RING, refusal, SECOND, startWorld, type World } from './world.ts';

describeKek('Google Cloud KMS', async () => {
  const { kms, open, account, close } = await startWorld();
  const always = (fault: Fault) => () => kms.server.setFault(() => fault);
  return {
    close,
    harness: {
      bindsContext: true,
      versions: 'found in the ciphertext',
      openFirst: () => open(FIRST),
      openSecond: () => open(`gcpkms://${SECOND}`),
      secrets: () => [account.private_key, account.private_key.slice(60, 120), 'Bearer ey'],
      restore() {
        kms.server.setFault(undefined);
        kms.permit(account.client_email);
        for (const version of [1, 2]) {
          try {
            kms.setState(FIRST, version, 'ENABLED');
          } catch {}
        }
      },
      rotate: () => void kms.rotate(FIRST),
      disable() {
        for (const version of [1, 2]) kms.setState(FIRST, version, 'DISABLED');
      },
      remove: always({ kind: 'answer', ...refusal(404, 'NOT_FOUND', 'CryptoKey not found.') }),
      deny: (method) => kms.deny(account.client_email, method === 'wrap' ? 'encrypt' : 'decrypt'),
      throttle: always({
        kind: 'answer',
        ...refusal(429, 'RESOURCE_EXHAUSTED', 'Quota exceeded.'),
        headers: { 'Retry-After': '7' },
      }),
      breakDown: always({ kind: 'answer', ...refusal(503, 'UNAVAILABLE', 'The service is currently unavailable.') }),
      hang: always({ kind: 'silent' }),
      cutOff: always({ kind: 'truncated' }),
      answerOfOther: always({ kind: 'body', change: (body) => body.replace('cryptoKeys/first', 'cryptoKeys/second') }),
    },
  };
}, ['rotate', 'disable', 'remove', 'deny', 'throttle', 'breakDown', 'hang', 'cutOff', 'answerOfOther']);

describe('Google Cloud KMS', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  test('names the key without and the version with its number, whatever the operator named', async () => {
    world.kms.createKey(`${RING}/cryptoKeys/versions`);
    world.kms.rotate(`${RING}/cryptoKeys/versions`);
    const name = `gcpkms://${RING}/cryptoKeys/versions`;
    for (const [uri, version] of [
      [name, '2'],
      [`${name}/cryptoKeyVersions/1`, '1'],
      [`${name}/versions/2`, '2'],
    ] as const) {
      const kek = world.open(uri);
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      assert.deepEqual([wrapped.key, wrapped.version], [name, version]);
      await kek.unwrap(wrapped, {}, soon());
    }
    assert.ok(!world.kms.server.requests.some((request) => /cryptoKeyVersions.*:decrypt/.test(request)));
  });

  test('may name a project by its number where the operator named it by its id, and the reverse; not another project', async () => {
    const byNumber = FIRST.replace('test-project', '123456789012');
    world.kms.createKey(byNumber);
    const rename = (from: string, to: string) =>
      world.kms.server.faults.push({
        kind: 'body',
        change: (body) => body.replace(`projects/${from}/`, `projects/${to}/`),
      });
    for (const [key, from, to] of [
      [FIRST, 'test-project', '123456789012'],
      [byNumber, '123456789012', 'test-project'],
    ] as const) {
      rename(from, to);
      const wrapped = await world.open(key).wrap(randomBytes(32), {}, soon());
      assert.deepEqual([wrapped.key, wrapped.version], [`gcpkms://${key}`, '1']);
    }
    for (const [key, from, to] of [
      [FIRST, 'test-project', 'other-project'],
      [FIRST, 'test-project', 'test-project2'],
      [FIRST, 'test-project', ''],
      [byNumber, '123456789012', '123456789013'],
    ] as const) {
      rename(from, to);
      await code(world.open(key).wrap(randomBytes(32), {}, soon()), 'integrity');
    }
    world.kms.server.faults.push({
      kind: 'body',
      change: (body) => body.replace('test-project', '123456789012').replace('cryptoKeys/first', 'cryptoKeys/second'),
    });
    await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), 'integrity');
  });

  test('is not asked about more than it takes', async () => {
    const kek = world.open(FIRST);
    const before = world.kms.server.requests.length;
    await code(kek.wrap(new Uint8Array(65537), {}, soon()), 'bad-input');
    await code(kek.wrap(new Uint8Array(1), { a: 'x'.repeat(65537) }, soon()), 'bad-input');
    await code(kek.unwrap({ key: '', algorithm: '', wrapped: new Uint8Array(100_000) }, {}, soon()), 'integrity');
    assert.equal(world.kms.server.requests.length, before);
    await kek.wrap(new Uint8Array(65536), {}, soon());
  });

  test('keeps one connection for one call after another', async () => {
    const kek = world.open(FIRST);
    const before = world.kms.server.connections;
    for (let call = 0; call < 5; call++) await kek.wrap(randomBytes(32), {}, soon());
    // The first request of a host has a connection of its own on Bun.
    assert.ok(world.kms.server.connections <= before + ('bun' in process.versions ? 2 : 1));
  });

  describe('and answers', () => {
    const corrupt = (member: string): Fault => ({
      kind: 'request',
      change: (body) =>
        body.replace(new RegExp(`("${member}":")(.)`), (_, head, first) => head + (first === 'A' ? 'B' : 'A')),
    });
    const other = randomBytes(32);
    const swappedPlaintext = edit((answer) => ({ ...answer, plaintext: other.toString('base64') }));
    const own: WrongAnswer[] = [
      ['a ciphertext that its checksum does not cover', 'wrap', 'integrity', true, set('ciphertextCrc32c', '1')],
      ['no checksum of the ciphertext', 'wrap', 'integrity', true, without('ciphertextCrc32c')],
      ['no ciphertext', 'wrap', 'integrity', true, without('ciphertext')],
      ['a changed ciphertext', 'wrap', 'integrity', true, set('ciphertext', other.toString('base64'))],
      ['a ciphertext that is not base64', 'wrap', 'integrity', true, set('ciphertext', '!!')],
      ['an unverified plaintext', 'wrap', 'integrity', true, set('verifiedPlaintextCrc32c', false)],
      ['no word about the plaintext', 'wrap', 'integrity', true, without('verifiedPlaintextCrc32c')],
      ['an unverified context', 'wrap', 'integrity', true, set('verifiedAdditionalAuthenticatedDataCrc32c', false)],
      ['no word about the context', 'wrap', 'integrity', true, without('verifiedAdditionalAuthenticatedDataCrc32c')],
      ['no name', 'wrap', 'integrity', true, without('name')],
      ['the name of a key without a version', 'wrap', 'integrity', true, set('name', FIRST)],
      ['a longer name', 'wrap', 'integrity', true, set('name', `${FIRST}-2/cryptoKeyVersions/1`)],
      ['a version that is none', 'wrap', 'integrity', true, set('name', `${FIRST}/cryptoKeyVersions/1/x`)],
      ['a plaintext damaged on its way there', 'wrap', 'integrity', true, corrupt('plaintext')],
      ['a context damaged on its way there', 'wrap', 'integrity', true, corrupt('additionalAuthenticatedData')],
      ['a checksum damaged on its way there', 'wrap', 'integrity', true, corrupt('plaintextCrc32c')],
      ['a plaintext that its checksum does not cover', 'unwrap', 'integrity', true, set('plaintextCrc32c', '1')],
      ['no checksum of the plaintext', 'unwrap', 'integrity', true, without('plaintextCrc32c')],
      ['another plaintext', 'unwrap', 'integrity', true, swappedPlaintext],
      ['no plaintext', 'unwrap', 'integrity', true, without('plaintext')],
      ['a plaintext that is a number', 'unwrap', 'integrity', true, set('plaintext', 5)],
      ['a ciphertext damaged on its way there', 'unwrap', 'integrity', true, corrupt('ciphertext')],
      ['a context damaged on its way back', 'unwrap', 'integrity', true, corrupt('additionalAuthenticatedData')],
    ];
    describeWrongAnswers(() => ({ kek: world.open(FIRST), server: world.kms.server }), own);

    test('a body that is longer than its head says is never taken whole', async () => {
      const kek = world.open(FIRST);
      world.kms.server.faults.push({ kind: 'length-too-short' });
      const error = await kek.wrap(randomBytes(32), {}, soon()).catch((reason: unknown) => reason);
      assert.ok(error instanceof OcicryptError && error.retryable);
    });
  });

  describe('explains a refusal', () => {
    const cases = [
      ['the API is off', 403, 'PERMISSION_DENIED', 'SERVICE_DISABLED', 'configuration', /gcloud services enable/],
      ['billing is off', 403, 'PERMISSION_DENIED', 'BILLING_DISABLED', 'configuration', /billing/],
      ['the project is unknown', 403, 'PERMISSION_DENIED', 'CONSUMER_INVALID', 'not-found', /project test-project/],
      [
        'the quota project is denied',
        403,
        'PERMISSION_DENIED',
        'USER_PROJECT_DENIED',
        'refused',
        /serviceUsageConsumer/,
      ],
      [
        'a scope is missing',
        403,
        'PERMISSION_DENIED',
        'ACCESS_TOKEN_SCOPE_INSUFFICIENT',
        'unauthenticated',
        /scope|auth/,
      ],
      [
        'IAM says no',
        403,
        'PERMISSION_DENIED',
        'IAM_PERMISSION_DENIED',
        'refused',
        /roles\/cloudkms\.cryptoKeyEncrypter/,
      ],
      ['somebody says no', 403, '', '', 'refused', /gcloud kms keys add-iam-policy-binding first/],
      ['the purpose is wrong', 400, 'INVALID_ARGUMENT', '', 'configuration', /gcloud kms keys describe first/],
      ['a precondition without a word', 400, 'FAILED_PRECONDITION', '', 'configuration', /ENCRYPT_DECRYPT/],
      ['a perimeter', 403, 'PERMISSION_DENIED', 'SECURITY_POLICY_VIOLATED', 'refused', /no role helps.*perimeter/],
      ['a suspended project', 403, 'PERMISSION_DENIED', 'CONSUMER_SUSPENDED', 'refused', /no role helps/],
      [
        'a place that is not permitted',
        403,
        'PERMISSION_DENIED',
        'LOCATION_POLICY_VIOLATED',
        'refused',
        /no role helps/,
      ],
      ['an organization', 403, 'PERMISSION_DENIED', 'ORG_RESTRICTION_VIOLATION', 'refused', /no role helps/],
      ['an unknown method', 501, 'UNIMPLEMENTED', '', 'configuration', /gcpkms\.endpoint/],
      ['a token', 401, 'UNAUTHENTICATED', '', 'unauthenticated', /clock/],
      ['there is no key', 404, 'NOT_FOUND', '', 'not-found', /gcloud kms keys list/],
    ] as const;
    for (const [what, status, rpc, reason, expected, hint] of cases) {
      test(what, async () => {
        const fault: Fault = { kind: 'answer', ...refusal(status, rpc, 'A secret told by the service.', reason) };
        world.kms.server.faults.push(fault, ...(status === 401 ? [fault] : []));
        const error = await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), expected);
        assert.match(error.hint ?? '', hint);
        assert.match(error.message, /gcpkms:\/\/projects\/test-project\//);
        assert.ok(!`${error.message}${error.hint}`.includes('secret'));
        assert.equal(error.retryable, false);
      });
    }
    test('by the state of the version, in the text or in the violations', async () => {
      const states = [
        ['PENDING_GENERATION', 'unavailable', true],
        ['PENDING_IMPORT', 'unavailable', true],
        ['DISABLED', 'key-disabled', false],
        ['DESTROYED', 'key-disabled', false],
        ['DESTROY_SCHEDULED', 'key-disabled', false],
        ['IMPORT_FAILED', 'key-disabled', false],
      ] as const;
      for (const [state, expected, retryable] of states) {
        const text = `${FIRST}/cryptoKeyVersions/1 is not enabled, current state is: ${state}.`;
        for (const [message, types] of [
          [text, []],
          ['A secret told by the service.', [`KEY_${state}`]],
        ] as const) {
          const answers = precondition(message, ...types);
          world.kms.server.faults.push(answers);
          const error = await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), expected);
          assert.equal(error.retryable, retryable);
          assert.ok(!error.message.includes('secret'));
        }
      }
    });
    test('of the manager of an external key, whose error domain stands beside the state', async () => {
      for (const [domain, expected] of [
        ['EXTERNAL_PERMISSION_DENIED', 'refused'],
        ['EXTERNAL_NOT_FOUND', 'not-found'],
        ['EXTERNAL_RESOURCE_UNAVAILABLE', 'unavailable'],
        ['EXTERNAL_OTHER', 'configuration'],
      ] as const) {
        const kek = world.open(FIRST);
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        world.kms.server.faults.push(precondition('told', 'KEY_DISABLED', domain));
        const error = await code(kek.unwrap(wrapped, {}, soon()), expected);
        assert.match(error.message, new RegExp(`external key manager .*${domain}`));
      }
    });
    test('of a perimeter, by its text too', async () => {
      const text = "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc";
      world.kms.server.faults.push({ kind: 'answer', ...refusal(403, 'PERMISSION_DENIED', text) });
      const error = await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), 'refused');
      assert.match(error.hint ?? '', /perimeter/);
    });
    test('of an API that was never enabled, which Google also calls a precondition', async () => {
      const text = 'Google Cloud KMS API has not been used in this project before, or it is disabled.';
      const refused = precondition(text);
      world.kms.server.faults.push(refused, { kind: 'latency', milliseconds: 0 });
      const kek = world.open(FIRST);
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.match(error.hint ?? '', /gcloud services enable/);
    });
    test('that passes: aborted and cancelled', async () => {
      for (const [status, rpc] of [
        [409, 'ABORTED'],
        [499, 'CANCELLED'],
      ] as const) {
        world.kms.server.faults.push({ kind: 'answer', ...refusal(status, rpc, 'told') });
        const error = await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), 'unavailable');
        assert.equal(error.retryable, true);
      }
    });
    test('names the role that unwrapping needs', async () => {
      const kek = world.open(FIRST);
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      world.kms.deny(world.account.client_email, 'decrypt');
      const error = await code(kek.unwrap(wrapped, {}, soon()), 'refused');
      world.kms.permit(world.account.client_email);
      assert.match(error.hint ?? '', /roles\/cloudkms\.cryptoKeyDecrypter/);
    });
    test('says how long to wait, by either way in which Google says it', async () => {
      const kek = world.open(FIRST);
      const [head, info] = [
        { 'Retry-After': '7' },
        { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.5s' },
      ];
      world.kms.server.faults.push({ kind: 'answer', status: 429, headers: head, body: '' });
      assert.equal((await code(kek.wrap(randomBytes(32), {}, soon()), 'throttled')).retryAfter, 7000);
      world.kms.server.faults.push({
        kind: 'answer',
        status: 429,
        body: JSON.stringify({ error: { details: [info] } }),
      });
      assert.equal((await code(kek.wrap(randomBytes(32), {}, soon()), 'throttled')).retryAfter, 1500);
    });
  });

  test('gets a new token once where it does not take the old one', async () => {
    const kek = world.open(FIRST);
    await kek.wrap(randomBytes(32), {}, soon());
    const before = world.kms.server.requests.length;
    const unauthenticated = { kind: 'answer', ...refusal(401, 'UNAUTHENTICATED', '') } as const;
    world.kms.server.faults.push(unauthenticated);
    await kek.wrap(randomBytes(32), {}, soon());
    assert.equal(world.kms.server.requests.length, before + 2);
    world.kms.server.faults.push(unauthenticated, unauthenticated);
    await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    assert.equal(world.kms.server.requests.length, before + 4);
  });

  test('does not take tokens of a caller whose clock is far off', async () => {
    for (const skew of [7200, -7200]) {
      world.identities.clockSkew = skew;
      await code(world.open(FIRST).wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    }
    world.identities.clockSkew = 0;
  });

  test('is found under the endpoint with and without a scheme', async () => {
    for (const endpoint of [world.kms.endpoint, `${world.kms.endpoint}/`, new URL(world.kms.endpoint).host]) {
      await world.open(FIRST, { endpoint }).wrap(randomBytes(32), {}, soon());
    }
    await code(world.open(FIRST, { endpoint: 'http://kms.test' }).wrap(randomBytes(32), {}, soon()), 'configuration');
  });

  test('survives a fifth of all exchanges going wrong: right or retryable, never a wrong key', async () => {
    const kek = world.open(FIRST);
    const plaintext = randomBytes(32);
    const wrapped = await kek.wrap(plaintext, { a: 'b' }, soon());
    const faults: Fault[] = [
      { kind: 'truncated' },
      { kind: 'reset-before-headers' },
      { kind: 'reset-after-headers' },
      { kind: 'length-too-long' },
      { kind: 'not-http' },
      { kind: 'latency', milliseconds: 5 },
      { kind: 'answer', status: 503, body: '' },
      {
        kind: 'body',
        change: (body) =>
          body.replace(/"plaintext":"(.)/, (all, first) => all.replace(first, first === 'A' ? 'B' : 'A')),
      },
    ];
    let exchange = 0;
    world.kms.server.setFault(() => (exchange++ % 5 === 0 ? faults[((exchange / 5) % faults.length) | 0] : undefined));
    let wrong = 0;
    const outcomes = await Promise.all(
      Array.from({ length: 300 }, async () => {
        for (let attempt = 0; attempt < 6; attempt++) {
          try {
            const unwrapped = await kek.unwrap(wrapped, { a: 'b' }, soon());
            if (!plaintext.equals(unwrapped)) wrong++;
            return true;
          } catch (error) {
            if (!(error instanceof OcicryptError) || !error.retryable) return false;
          }
        }
        return false;
      }),
    );
    world.kms.server.setFault(undefined);
    assert.equal(wrong, 0);
    assert.equal(outcomes.filter((ok) => !ok).length, 0);
  });
});

/** A refusal with the types of violations, as Google writes it. */
function precondition(message: string, ...types: readonly string[]): Fault {
  const violations = types.map((type) => ({ type, subject: FIRST }));
  const detail = { '@type': 'type.googleapis.com/google.rpc.PreconditionFailure', violations };
  const details = types.length === 0 ? [] : [detail];
  const error = { code: 400, message, status: 'FAILED_PRECONDITION', details };
  return { kind: 'answer', status: 400, body: JSON.stringify({ error }) };
}

test('CRC-32C has the check value of its definition', () => {
  assert.equal(crc32c(new TextEncoder().encode('123456789')), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(0)), 0);
  // RFC 3720 appendix B.4.
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
});
