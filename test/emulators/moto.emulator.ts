// AWS KMS as moto plays it: what we ask, against somebody else's idea of the service. Needs Python.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAwsKms } from '../../src/kms/awskms.ts';
import { startMoto } from './python-program.ts';

let endpoint = '';
const environment = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret-of-nobody' };

async function call(operation: string, message: object): Promise<string> {
  const scope = 'Credential=AKIAEXAMPLE/20260101/eu-west-1/kms/aws4_request';
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': `TrentService.${operation}`,
      authorization: `AWS4-HMAC-SHA256 ${scope}, SignedHeaders=host, Signature=0`,
    },
    body: JSON.stringify(message),
  });
  const text = await response.text();
  assert.ok(response.ok, text);
  return text;
}

async function createKey(): Promise<string> {
  return JSON.parse(await call('CreateKey', {})).KeyMetadata.Arn;
}

function open(key: string) {
  const uri = parseKeyUri(key);
  assert.ok(uri.scheme === 'awskms');
  return openAwsKms(uri, { endpoint, environment, region: 'eu-west-1' });
}

// Not the conformance suite: moto says AccessDenied, without a reason, of a ciphertext whose key it does not find.
describe('moto', () => {
  let stop = () => {};
  before(async () => {
    ({ endpoint, stop } = await startMoto());
  });
  after(() => stop());

  for (const name of ['its ARN', 'its id', 'an alias']) {
    test(`wraps and unwraps with a key by ${name}`, async () => {
      const arn = await createKey();
      const alias = `alias/${randomUUID()}`;
      await call('CreateAlias', { AliasName: alias, TargetKeyId: arn });
      const named = { 'its ARN': arn, 'its id': `awskms:///${arn.slice(-36)}`, 'an alias': `awskms:///${alias}` }[name];
      const kek = open(named ?? '');
      for (const length of [1, 32, 193, 4096]) {
        const plaintext = randomBytes(length);
        const context = { 'ocicrypt-kms': 'v2', 'label.naïve': 'ü"' };
        const wrapped = await kek.wrap(plaintext, context, soon());
        assert.equal(wrapped.key, `awskms:///${arn}`);
        assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, context, soon())), plaintext);
        await assert.rejects(kek.unwrap(wrapped, {}, soon()), { code: 'integrity' });
        await assert.rejects(kek.unwrap(wrapped, { ...context, more: '1' }, soon()), { code: 'integrity' });
      }
      kek.close?.();
    });
  }

  test('refuses another key, and a key that is missing', async () => {
    const [one, other] = [await createKey(), await createKey()];
    const kek = open(one);
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    await assert.rejects(open(other).unwrap(wrapped, {}, soon()), { code: 'refused' });
    const missing = one.replace(/[^/]*$/, randomUUID());
    await assert.rejects(open(missing).wrap(randomBytes(32), {}, soon()), { code: 'not-found' });
  });
});

function soon(): AbortSignal {
  return AbortSignal.timeout(20_000);
}
