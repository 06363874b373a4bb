// AWS KMS as local-kms plays it: the conformance suite, with keys that are disabled and deleted, and aliases. Needs Go.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Kek, WrappedKey } from '../../src/kms/kek.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../../src/kms/rsa-oaep.ts';
import { soon } from '../kms/expect.ts';
import { describeKek } from '../kms/kek-conformance.ts';
import { fetchGo } from '../peers/fetched.ts';
import { findPort, type StartedProgram, startProgram } from '../peers/started.ts';
import { awsOf } from './aws.ts';

const MODULE = 'github.com/nsmithuk/local-kms@v0.0.0-20260228092603-2a5e92d09ab6';

let directory = '';
/** As long as the one of a packet. */
const DATA_KEY = randomBytes(32);

let endpoint = '';
let program: StartedProgram | undefined;
let aws = awsOf('');
const opened: Kek[] = [];
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'local-kms-'));
  const port = await findPort();
  const environment = { PORT: String(port), KMS_REGION: 'eu-west-1', KMS_DATA_PATH: directory };
  program = await startProgram(await fetchGo(MODULE), [], { port, environment });
  endpoint = `http://127.0.0.1:${port}`;
  aws = awsOf(endpoint);
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await program?.stop();
  await rm(directory, { recursive: true, force: true });
});

function open(key: string): Kek {
  const kek = aws.open(key);
  opened.push(kek);
  return kek;
}

const createKey = (spec: string) => aws.createKey({ KeySpec: spec, KeyUsage: 'ENCRYPT_DECRYPT' });

describeKek('local-kms', async () => {
  const [first, second] = [await aws.createKey(), await aws.createKey()];
  let restore: () => Promise<unknown> = async () => {};
  return {
    close() {},
    harness: {
      bindsContext: true,
      versions: 'none',
      // The length of the ARN and the ARN, which the KeyId of the request makes superfluous.
      unreadBytes: 1 + first.length,
      openFirst: () => open(first),
      openSecond: () => open(`awskms:///${second}`),
      secrets: () => ['secret-of-nobody'],
      restore: async () => void (await restore()),
      async disable() {
        restore = () => aws.call('EnableKey', { KeyId: first });
        await aws.call('DisableKey', { KeyId: first });
      },
      async hang() {
        restore = async () => program?.thaw();
        await program?.freeze((signal) => fetch(endpoint, { signal }));
      },
    },
  };
}, ['disable', 'hang']);

describe('local-kms', () => {
  for (const spec of ['SYMMETRIC_DEFAULT', 'RSA_3072']) {
    test(`says what has become of a key (${spec})`, async () => {
      const arn = await createKey(spec);
      const wrapped = spec.startsWith('RSA') ? await wrapRsa(arn) : await open(arn).wrap(DATA_KEY, {}, soon());
      const unwrapping = () => open(arn).unwrap(wrapped, {}, soon());
      await aws.call('DisableKey', { KeyId: arn });
      await assert.rejects(unwrapping(), { code: 'key-disabled' });
      await assert.rejects(open(arn).wrap(DATA_KEY, {}, soon()), { code: 'key-disabled' });
      await aws.call('EnableKey', { KeyId: arn });
      assert.deepEqual(Buffer.from(await unwrapping()), DATA_KEY);
      await aws.call('ScheduleKeyDeletion', { KeyId: arn, PendingWindowInDays: 7 });
      await assert.rejects(unwrapping(), { code: 'key-disabled' });
      const missing = arn.replace(/[^/]*$/, randomUUID());
      await assert.rejects(open(missing).wrap(DATA_KEY, {}, soon()), { code: 'not-found' });
    });
  }

  test('unwraps what the public half of an RSA key has wrapped, and nothing else', async () => {
    for (const spec of ['RSA_2048', 'RSA_3072', 'RSA_4096']) {
      const [arn, other] = [await createKey(spec), await createKey(spec)];
      const wrapped = await wrapRsa(arn);
      assert.deepEqual(Buffer.from(await open(arn).unwrap(wrapped, { a: '1' }, soon())), DATA_KEY);
      const changed = { ...wrapped, wrapped: wrapped.wrapped.toReversed() };
      for (const [kek, packet] of [
        [open(arn), changed],
        [open(other), { ...wrapped, key: `awskms:///${other}` }],
      ] as const) {
        await assert.rejects(kek.unwrap(packet, {}, soon()), { code: 'integrity' });
      }
    }
  });

  test('is asked by alias, and refuses what the alias wrapped before it was moved', async () => {
    const [one, other] = [await aws.createKey(), await aws.createKey()];
    const AliasName = `alias/${randomUUID()}`;
    await aws.call('CreateAlias', { AliasName, TargetKeyId: one });
    const kek = open(`awskms:///${AliasName}`);
    const wrapped = await kek.wrap(DATA_KEY, { a: '1' }, soon());
    assert.equal(wrapped.key, `awskms:///${one}`);
    await kek.unwrap(wrapped, { a: '1' }, soon());
    await aws.call('UpdateAlias', { AliasName, TargetKeyId: other });
    await assert.rejects(kek.unwrap(wrapped, { a: '1' }, soon()), { code: 'integrity' });
    await open(one).unwrap(wrapped, { a: '1' }, soon());
  });
});

/** As our backend does it; local-kms breaks down where AWS says that a key needs another algorithm, so it learns nothing. */
async function wrapRsa(arn: string): Promise<WrappedKey> {
  const { PublicKey } = JSON.parse(await aws.call('GetPublicKey', { KeyId: arn }));
  const key = readRsaPublicKey(Buffer.from(PublicKey, 'base64'));
  assert.ok(key !== undefined);
  return { key: `awskms:///${arn}`, algorithm: 'RSAES_OAEP_SHA_256', wrapped: wrapRsaOaep(arn, key, DATA_KEY) };
}
