// AWS KMS as moto plays it: what we ask, against somebody else's idea of the service. Needs Python.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { soon } from '../kms/expect.ts';
import { fetchPython } from '../peers/fetched.ts';
import { findPort, startProgram } from '../peers/started.ts';
import { awsOf } from './aws.ts';

// Not the conformance suite: moto says AccessDenied, without a reason, of a ciphertext whose key it does not find.
describe('moto', () => {
  let stop = async () => {};
  let { call, createKey, open } = awsOf('');
  before(async () => {
    const PYTHONPATH = await fetchPython('moto[server]==5.2.5');
    const port = await findPort();
    const words = ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)];
    ({ stop } = await startProgram('python3', words, { port, environment: { PYTHONPATH } }));
    ({ call, createKey, open } = awsOf(`http://127.0.0.1:${port}`));
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
