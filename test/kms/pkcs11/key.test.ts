// PKCS#11 against SoftHSM: the conformance suite with keys of both kinds, PINs, modules, and what is refused.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { openPkcs11, type Pkcs11Settings } from '../../../src/kms/pkcs11/key.ts';
import { createToken, ensureSoftHsm, type SoftHsm, type SoftToken, useTokenStore } from '../../fixtures/softhsm.ts';
import { code, soon } from '../expect.ts';
import { describeKek } from '../kek-conformance.ts';

const PIN = '246813579';

type World = {
  readonly hsm: SoftHsm;
  readonly directory: string;
  readonly token: SoftToken;
  readonly open: (uri: string, more?: Partial<Pkcs11Settings>) => Kek;
  readonly write: (name: string, text: string) => Promise<string>;
};

const found = await ensureSoftHsm();
if ('missing' in found) {
  test('PKCS#11 against SoftHSM', (t) => {
    if (process.env.CI === 'true') throw new Error(found.missing);
    t.skip(found.missing);
  });
} else {
  const hsm = found;
  let world: World;
  const opened: Kek[] = [];

  before(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'pkcs11-'));
    await useTokenStore(directory);
    const token = createToken(hsm, 'unit test', PIN);
    const write = async (name: string, text: string) => {
      const path = join(directory, name);
      await writeFile(path, text, { mode: 0o600 });
      return path;
    };
    const pinFile = await write('pin', `${PIN}\n`);
    world = {
      hsm,
      directory,
      token,
      write,
      open(text, more = {}) {
        const uri = parseKeyUri(text);
        assert.ok(uri.scheme === 'pkcs11');
        const settings = { modules: [hsm.module], bindingDirectory: hsm.binding, pinFile, environment: {}, ...more };
        const kek = openPkcs11(uri, settings);
        opened.push(kek);
        return kek;
      },
    };
    for (const name of ['aes-1', 'aes-2', 'aes-3']) token.createAesKey(name);
    for (const name of ['rsa-1', 'rsa-2']) token.createRsaKey(name);
    token.createRsaKey('rsa-private', { withPublic: false });
  });
  after(async () => {
    await closeAll();
    await rm(world.directory, { recursive: true, force: true });
  });

  /** The module is given back when its last key is closed, one turn later. */
  async function closeAll(): Promise<void> {
    for (const kek of opened.splice(0)) kek.close?.();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }

  const uri = (object: string) => `pkcs11:token=unit%20test;object=${object}`;

  describeKek('a token (AES-GCM)', async () => ({
    close: () => {},
    harness: {
      bindsContext: true,
      versions: 'none',
      openFirst: () => world.open(uri('aes-1')),
      openSecond: () => world.open(`${uri('aes-2')};type=secret-key`),
      secrets: () => [PIN],
    },
  }));

  describeKek('a token (RSA-OAEP)', async () => ({
    close: () => {},
    harness: {
      bindsContext: false,
      versions: 'none',
      maximumBytes: 200,
      openFirst: () => world.open(uri('rsa-1'), { oaepSha1: true }),
      openSecond: () => world.open(`${uri('rsa-2')};type=private`, { oaepSha1: true }),
      secrets: () => [PIN],
    },
  }));

  describe('a key in a token', () => {
    test('wraps with its public half without a PIN, and asks for one to unwrap', async () => {
      await closeAll();
      const settings = { oaepSha1: true, pinFile: undefined };
      const wrapped = await world.open(uri('rsa-1'), settings).wrap(randomBytes(32), {}, soon());
      assert.match(wrapped.algorithm, /^RSA-OAEP-SHA(?:1|256)$/);
      await closeAll();
      await code(world.open(uri('rsa-1'), settings).unwrap(wrapped, {}, soon()), 'unauthenticated');
      const asked: string[] = [];
      const prompt = async (question: string) => {
        asked.push(question);
        return new TextEncoder().encode(PIN);
      };
      const kek = world.open(uri('rsa-1'), { ...settings, prompt });
      await kek.unwrap(wrapped, {}, soon());
      await kek.unwrap(wrapped, {}, soon());
      await world.open(uri('aes-1'), { prompt, pinFile: undefined }).wrap(randomBytes(32), {}, soon());
      assert.equal(asked.length, 1, 'a login holds for every key of the token');
    });

    test('is not wrapped to with SHA-1 unless that was asked for, on neither side', async () => {
      const permitted = world.open(uri('rsa-1'), { oaepSha1: true });
      const wrapped = await permitted.wrap(randomBytes(32), {}, soon());
      if (wrapped.algorithm === 'RSA-OAEP-SHA256') return;
      const kek = world.open(uri('rsa-1'));
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.match(error.hint ?? '', /pkcs11\.oaepSha1/);
      await code(kek.unwrap(wrapped, {}, soon()), 'configuration');
    });

    test('is wrapped to on this machine where the token keeps no public half', async () => {
      const kek = world.open(uri('rsa-private'), { oaepSha1: true });
      const plaintext = randomBytes(32);
      const wrapped = await kek.wrap(plaintext, {}, soon());
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
      await code(kek.wrap(randomBytes(250), {}, soon()), 'bad-input');
    });

    test('is known by its object and token, never by module or PIN', async () => {
      const pin = await world.write('pin-2', PIN);
      const kek = world.open(`${uri('aes-1')}?pin-source=file:${pin}&module-name=softhsm2`, { pinFile: undefined });
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      assert.equal(wrapped.key, 'pkcs11:object=aes-1;token=unit%20test');
      assert.equal(wrapped.algorithm, 'AES-GCM');
    });

    test('that is missing, or is not the only one, is said', async () => {
      await closeAll();
      world.token.createAesKey('twin', 1);
      world.token.createAesKey('twin', 2);
      await code(world.open(uri('nobody')).wrap(randomBytes(32), {}, soon()), 'not-found');
      await code(world.open(`${uri('aes-1')};type=cert`).wrap(randomBytes(32), {}, soon()), 'not-found');
      await code(world.open('pkcs11:token=elsewhere;object=aes-1').wrap(randomBytes(32), {}, soon()), 'not-found');
      await code(world.open(uri('twin')).wrap(randomBytes(32), {}, soon()), 'configuration');
      await world.open(`${uri('twin')};id=%02`).wrap(randomBytes(32), {}, soon());
    });

    test('that is deleted meanwhile is not found', async () => {
      const kek = world.open(uri('aes-3'));
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      await closeAll();
      world.token.removeKey('aes-3');
      await code(world.open(uri('aes-3')).unwrap(wrapped, {}, soon()), 'not-found');
    });

    test('refuses what is longer than any token would have made', async () => {
      const kek = world.open(uri('aes-1'));
      const wrapped = { key: kek.key, algorithm: 'AES-GCM', wrapped: randomBytes(9000) };
      await code(kek.unwrap(wrapped, {}, soon()), 'integrity');
    });
  });

  describe('the PIN', () => {
    test('comes from the environment by the name that the operator gives', async () => {
      await closeAll();
      const settings = { pinFile: undefined, pinVariable: 'TOKEN_PIN' };
      await code(world.open(uri('aes-1'), settings).wrap(randomBytes(32), {}, soon()), 'configuration');
      const kek = world.open(uri('aes-1'), { ...settings, environment: { TOKEN_PIN: PIN } });
      await kek.wrap(randomBytes(32), {}, soon());
    });

    test('never comes from a command', async () => {
      await closeAll();
      const kek = world.open(`${uri('aes-1')}?pin-source=%7C/bin/echo%20${PIN}`);
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.ok(!`${error.message}${error.hint}`.includes(PIN));
    });

    test('is not tried where the token says that the last one was wrong, until somebody has logged in', async () => {
      await closeAll();
      const { token } = world;
      assert.equal(token.tryPin('000000'), false);
      await code(world.open(uri('aes-1')).wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      await closeAll();
      assert.equal(token.tryPin(PIN), true);
      await world.open(uri('aes-1')).wrap(randomBytes(32), {}, soon());
    });

    test('that is wrong is tried once in a process', async () => {
      await closeAll();
      const wrong = createToken(hsm, 'wrong pin', PIN);
      wrong.createAesKey('k');
      const pinFile = await world.write('wrong-pin', '111111111');
      const kek = world.open('pkcs11:token=wrong%20pin;object=k', { pinFile });
      const first = await code(kek.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
      assert.ok(!`${first.message}${first.hint}`.includes('111111111'));
      await closeAll();
      assert.equal(wrong.tryPin(PIN), true, 'the token has forgotten it');
      const again = world.open('pkcs11:token=wrong%20pin;object=k');
      await code(again.wrap(randomBytes(32), {}, soon()), 'unauthenticated');
    });
  });

  describe('a module', () => {
    test('is loaded only where the operator lists it', async () => {
      await closeAll();
      for (const [text, modules] of [
        [uri('aes-1'), []],
        [`${uri('aes-1')}?module-path=/nowhere/evil.so`, [hsm.module]],
        [`${uri('aes-1')}?module-name=evil`, [hsm.module]],
        [uri('aes-1'), ['libsofthsm2.so']],
        [uri('aes-1'), ['/nowhere/libsofthsm2.so']],
      ] as const) {
        await code(world.open(text, { modules }).wrap(randomBytes(32), {}, soon()), 'configuration');
      }
      const second = ['/nowhere/other.so', hsm.module];
      await world
        .open(`${uri('aes-1')}?module-path=${hsm.module}`, { modules: second })
        .wrap(randomBytes(32), {}, soon());
    });

    test('is not needed before the first call, and its package is asked for by name', async () => {
      await closeAll();
      const kek = world.open(uri('aes-1'), { bindingDirectory: world.directory });
      const error = await code(kek.wrap(randomBytes(32), {}, soon()), 'configuration');
      assert.match(error.hint ?? '', /npm install .*pkcs11js/);
    });
  });
}
