/** What our fake of Vault repeats of the transit engine's own words, asked of an engine that others wrote. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import type { Kek } from '../../src/kms/kek.ts';
import { code, soon } from '../kms/expect.ts';

export type TransitWorld = {
  /** Opens a key of the engine with a token that may do everything. */
  readonly open: (key: string) => Kek;
  readonly post: (path: string, body?: object) => Promise<unknown>;
  readonly keyStatus: (key: string) => Promise<number>;
};

export function describeTransitEngine(name: string, { open, post, keyStatus }: TransitWorld): void {
  describe(name, () => {
    test('makes no key that is missing, for us', async () => {
      await code(open('missing').wrap(randomBytes(32), { a: '1' }, soon()), 'not-found');
      assert.equal(await keyStatus('missing'), 404);
      await post('encrypt/careless', { plaintext: Buffer.alloc(32).toString('base64') });
      assert.equal(await keyStatus('careless'), 200, 'but for others it does');
    });

    test('says what is wrong in words that we know', async () => {
      await post('keys/signer', { type: 'ecdsa-p256' });
      await post('keys/derived', { derived: true });
      await post('keys/small', { type: 'rsa-2048' });
      await post('keys/old');
      const wrapped = await open('old').wrap(randomBytes(32), { a: '1' }, soon());
      await post('keys/old/rotate');
      await post('keys/old/config', { min_decryption_version: 2 });
      for (const [work, expected] of [
        [() => open('signer').wrap(randomBytes(32), {}, soon()), 'configuration'],
        [() => open('derived').wrap(randomBytes(32), {}, soon()), 'configuration'],
        [() => open('small').wrap(randomBytes(300), { a: '1' }, soon()), 'bad-input'],
        [() => open('old').unwrap(wrapped, { a: '1' }, soon()), 'key-disabled'],
        [() => open('missing').unwrap(wrapped, { a: '1' }, soon()), 'not-found'],
      ] as const) {
        await code(work(), expected);
      }
    });
  });
}
