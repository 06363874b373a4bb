// JWE recipients: what one key wraps only that key opens, in the serialisations that ocicrypt writes and reads.
import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ErrorCode } from '../../src/base/errors.ts';
import { createJweHolder, createJweWrapper } from '../../src/client/jwe.ts';
import { isCode } from '../fixtures/codes.ts';

const RECORD = new TextEncoder().encode('{"symkey":"not looked at here"}');
const SIGNAL = new AbortController().signal;

test('each of several keys opens what was wrapped for all, and no other key does', async (t) => {
  const save = await keyDirectory(t);
  const keys = await Promise.all([
    save('rsa', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey),
    save('p256', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    save('p521', generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey),
  ]);
  const stranger = await save('other', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
  for (const recipients of [...keys.map((key) => [key]), keys]) {
    const wrapper = await createJweWrapper(recipients.map(({ publicKey }) => publicKey));
    const [packet = new Uint8Array()] = await wrapper.wrap(RECORD, SIGNAL);
    const jwe = JSON.parse(new TextDecoder().decode(packet));
    assert.equal(jwe.recipients.length, recipients.length);
    assert.equal(JSON.parse(Buffer.from(jwe.protected, 'base64url').toString()).enc, 'A256GCM');
    const open = (file: string, bytes: Uint8Array = packet) =>
      createJweHolder([file]).open({ scheme: 'jwe', packet: bytes }, SIGNAL);
    for (const { privateKey } of recipients) assert.deepEqual(new Uint8Array(await open(privateKey)), RECORD);
    await rejects('integrity', () => open(stranger.privateKey));
    const changed = JSON.stringify({ ...jwe, tag: Buffer.alloc(16).toString('base64url') });
    await rejects('integrity', () => open(recipients[0]?.privateKey ?? '', new TextEncoder().encode(changed)));
  }
});

test('junk is no JWE', async (t) => {
  const save = await keyDirectory(t);
  const { privateKey } = await save('rsa', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
  for (const text of ['', 'eyJ.a.b.c.d', '{}', '[]', '{"ciphertext":1,"iv":"","tag":""}']) {
    const packet = new TextEncoder().encode(text);
    await rejects('bad-input', () => createJweHolder([privateKey]).open({ scheme: 'jwe', packet }, SIGNAL));
  }
});

test('files that hold no usable key, or a secret where others can read it, are refused', async (t) => {
  const save = await keyDirectory(t);
  const small = await save('small', generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey);
  const good = await save('good', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
  const edwards = await save('edwards', generateKeyPairSync('ed25519').privateKey);
  for (const { publicKey, privateKey } of [small, edwards]) {
    await rejects('configuration', () => createJweWrapper([publicKey]));
    await rejects('configuration', async () => createJweHolder([privateKey]));
  }
  await rejects('configuration', () => createJweWrapper([good.privateKey]));
  await rejects('not-found', () => createJweWrapper([`${good.publicKey}.missing`]));
  const open = join(good.privateKey, '../open.pem');
  await writeFile(open, generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export(PEM), { mode: 0o644 });
  await rejects('configuration', async () => createJweHolder([open]));
  const sealed = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const protectedFile = join(good.privateKey, '../sealed.pem');
  const passphrase = { ...PEM, cipher: 'aes-256-cbc', passphrase: 'secret' };
  await writeFile(protectedFile, sealed.export(passphrase), { mode: 0o600 });
  await rejects('configuration', async () => createJweHolder([protectedFile]));
});

const PEM = { format: 'pem', type: 'pkcs8' } as const;

async function keyDirectory(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'jwe-'));
  t.after(() => rm(directory, { recursive: true }));
  return async (name: string, key: KeyObject) => {
    const files = { privateKey: join(directory, `${name}.pem`), publicKey: join(directory, `${name}.pub.pem`) };
    await writeFile(files.privateKey, key.export(PEM), { mode: 0o600 });
    await writeFile(files.publicKey, createPublicKey(key).export({ format: 'pem', type: 'spki' }));
    return files;
  };
}

async function rejects(code: ErrorCode, run: () => Promise<unknown>): Promise<void> {
  await assert.rejects(run, isCode(code));
}
