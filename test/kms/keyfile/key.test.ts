// Key files: the conformance suite, and what a key file is and is not.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createKeyfile, openKeyfile } from '../../../src/kms/keyfile/key.ts';
import { describeKek } from '../kek-conformance.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'keyfile-'));
});
after(() => rm(directory, { recursive: true, force: true }));

describeKek('a file', async () => {
  const home = await mkdtemp(join(tmpdir(), 'keyfile-'));
  createKeyfile(join(home, 'one'));
  createKeyfile(join(home, 'two'));
  return {
    harness: {
      bindsContext: true,
      versions: 'none',
      openFirst: () => openKeyfile(join(home, 'one')),
      openSecond: () => openKeyfile(join(home, 'two')),
    },
    close: () => rm(home, { recursive: true, force: true }),
  };
});

describe('a key file', () => {
  test('is 32 bytes that only its owner can read, known by a thumbprint and not by its path', () => {
    const path = join(directory, 'made');
    const key = createKeyfile(path);
    const raw = readFileSync(path);
    assert.equal(raw.length, 32);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const thumbprint = createHash('sha256').update('ocicrypt-kms keyfile v1\0').update(raw).digest('hex');
    assert.equal(key, `keyfile:sha256:${thumbprint}`);
    assert.equal(openKeyfile(path).key, key);
  });

  test('is never overwritten', () => {
    const path = join(directory, 'precious');
    writeFileSync(path, 'precious', { mode: 0o600 });
    assert.throws(() => createKeyfile(path), { code: 'configuration' });
    assert.equal(readFileSync(path, 'utf8'), 'precious');
    symlinkSync(join(directory, 'nowhere'), join(directory, 'dangling'));
    assert.throws(() => createKeyfile(join(directory, 'dangling')), { code: 'configuration' });
    assert.ok(!existsSync(join(directory, 'nowhere')));
  });

  test('is not made where there is no directory', () => {
    assert.throws(() => createKeyfile(join(directory, 'missing', 'key')), { code: 'not-written' });
  });

  test('must hold exactly 32 bytes', () => {
    for (const length of [0, 1, 31, 33, 64, 100_000]) {
      const path = join(directory, `length-${length}`);
      writeFileSync(path, randomBytes(length), { mode: 0o600 });
      assert.throws(() => openKeyfile(path), { code: 'configuration' });
    }
  });

  test('must be closed to group and others, and the refusal says chmod', () => {
    const path = join(directory, 'open');
    createKeyfile(path);
    for (const mode of [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666, 0o777]) {
      chmodSync(path, mode);
      assert.throws(() => openKeyfile(path), { code: 'configuration', hint: `chmod 600 ${path}` });
    }
    for (const mode of [0o600, 0o400]) {
      chmodSync(path, mode);
      openKeyfile(path);
    }
  });

  test('may be reached by a link, which makes an open target no better', () => {
    const path = join(directory, 'target');
    const link = join(directory, 'link');
    const key = createKeyfile(path);
    symlinkSync(path, link);
    assert.equal(openKeyfile(link).key, key);
    chmodSync(path, 0o644);
    assert.throws(() => openKeyfile(link), { code: 'configuration' });
  });

  test('is a regular file that exists', () => {
    assert.throws(() => openKeyfile(directory), { code: 'configuration' });
    assert.throws(() => openKeyfile('/dev/zero'), { code: 'configuration' });
    assert.throws(() => openKeyfile(join(directory, 'absent')), { code: 'not-found' });
  });

  test('unwraps nothing once it is closed', async () => {
    const path = join(directory, 'closed');
    createKeyfile(path);
    const kek = openKeyfile(path);
    const wrapped = await kek.wrap(randomBytes(32), {}, AbortSignal.timeout(1000));
    kek.close?.();
    await assert.rejects(kek.unwrap(wrapped, {}, AbortSignal.timeout(1000)), { code: 'internal' });
  });

  test('wraps as nonce, ciphertext and tag, by which another program can read it', async () => {
    const path = join(directory, 'format');
    createKeyfile(path);
    const plaintext = randomBytes(193);
    const { wrapped, algorithm } = await openKeyfile(path).wrap(
      plaintext,
      { b: '2', a: '1' },
      AbortSignal.timeout(1000),
    );
    assert.equal(algorithm, 'AES-256-GCM');
    assert.equal(wrapped.length, 12 + 193 + 16);
    const key = await crypto.subtle.importKey('raw', readFileSync(path), 'AES-GCM', false, ['decrypt']);
    const parameters = { name: 'AES-GCM', iv: wrapped.slice(0, 12), additionalData: Buffer.from('{"a":"1","b":"2"}') };
    const opened = await crypto.subtle.decrypt(parameters, key, wrapped.slice(12));
    assert.deepEqual(Buffer.from(opened), plaintext);
  });
});

test('what plainly is not random is refused with the reason, as its digest is public', () => {
  const directory = mkdtempSync(join(tmpdir(), 'keyfile-'));
  try {
    const text = '0123456789abcdef0123456789abcde';
    const cases = [Buffer.alloc(32), Buffer.alloc(32, 0xff), Buffer.from(`${text}f`), Buffer.from(`${text}\n`)];
    for (const [index, bytes] of cases.entries()) {
      const path = join(directory, String(index));
      writeFileSync(path, bytes, { mode: 0o600 });
      assert.throws(() => openKeyfile(path), { code: 'configuration', message: /random/ });
    }
    for (const byte of [0, 0x08, 0x0e, 0x1f, 0x7f, 0x80]) {
      const path = join(directory, `good-${byte}`);
      writeFileSync(path, Buffer.concat([Buffer.from(text), Buffer.of(byte)]), { mode: 0o600 });
      openKeyfile(path).close?.();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
