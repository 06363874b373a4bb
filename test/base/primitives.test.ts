/**
 * The primitives that packets, key files and RSA keys rest on, called as src calls them: answers from the standards,
 * agreement with an independent implementation over random inputs and edge lengths, and every fault that must be seen.
 */
import assert from 'node:assert/strict';
import {
  constants,
  createHmac,
  createSecretKey,
  generateKeyPairSync,
  hkdfSync,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { describe, test } from 'node:test';
import { gcm } from '@noble/ciphers/aes.js';
import { hkdf } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { openGcm, sealGcm } from '../../src/base/aes-gcm.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../../src/kms/rsa-oaep.ts';

const hex = (text: string) => Buffer.from(text, 'hex');
/** Around the blocks of AES (16) and SHA-256 (64), and the sizes that occur. */
const LENGTHS = [0, 1, 12, 15, 16, 17, 31, 32, 33, 55, 56, 63, 64, 65, 193, 4096];

describe('AES-256-GCM', () => {
  const seal = (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array) =>
    Buffer.from(sealGcm(createSecretKey(key), nonce, plaintext, aad));
  const open = (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Buffer | undefined => {
    const plaintext = openGcm(createSecretKey(key), nonce, sealed, aad);
    return plaintext && Buffer.from(plaintext);
  };
  const NONE = new Uint8Array(0);

  test('gives the answers of the specification (test cases 13 and 14)', () => {
    const [key, nonce] = [new Uint8Array(32), new Uint8Array(12)];
    assert.deepEqual(seal(key, nonce, NONE, NONE), hex('530f8afbc74536b9a963b4f1c4cb738b'));
    assert.deepEqual(
      seal(key, nonce, NONE, new Uint8Array(16)),
      hex('cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919'),
    );
  });

  test('agrees with an independent implementation, both ways', () => {
    for (const length of LENGTHS) {
      const [key, nonce, aad, plaintext] = [32, 12, length % 70, length].map((size) => randomBytes(size));
      assert.ok(key && nonce && aad && plaintext);
      const sealed = seal(key, nonce, aad, plaintext);
      assert.deepEqual(Buffer.from(gcm(key, nonce, aad).encrypt(plaintext)), sealed);
      assert.deepEqual(open(key, nonce, aad, gcm(key, nonce, aad).encrypt(plaintext)), plaintext);
    }
  });

  test('sees a change of any bit of tag, nonce, key, additional data or ciphertext', () => {
    const parts = [32, 12, 9, 40].map((size) => randomBytes(size));
    const [key, nonce, aad, plaintext] = parts;
    assert.ok(key && nonce && aad && plaintext);
    const sealed = seal(key, nonce, aad, plaintext);
    for (const [index, part] of [key, nonce, aad, sealed].entries()) {
      for (let bit = 0; bit < part.length * 8; bit += index === 3 ? 1 : 7) {
        const changed = Buffer.from(part);
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        const [k, n, a, s] = [key, nonce, aad, sealed].map((one, at) => (at === index ? changed : one));
        assert.ok(k && n && a && s);
        assert.ok(open(k, n, a, s) === undefined);
      }
    }
  });

  test('takes no shortened tag', () => {
    const [key, nonce] = [randomBytes(32), randomBytes(12)];
    const tag = seal(key, nonce, NONE, NONE);
    assert.equal(open(key, nonce, NONE, tag)?.length, 0);
    for (const length of [0, 4, 8, 12, 15]) assert.equal(open(key, nonce, NONE, tag.subarray(0, length)), undefined);
  });

  test('without additional data is the same as with none of it', () => {
    const [key, nonce] = [createSecretKey(randomBytes(32)), randomBytes(12)];
    const sealed = sealGcm(key, nonce, new Uint8Array(5));
    assert.deepEqual(sealed, sealGcm(key, nonce, new Uint8Array(5), NONE));
    assert.deepEqual(openGcm(key, nonce, sealed), Buffer.alloc(5));
  });
});

describe('HMAC-SHA256', () => {
  test('gives the answers of RFC 4231 (test cases 1 and 2)', () => {
    for (const [key, text, mac] of [
      [Buffer.alloc(20, 0x0b), 'Hi There', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
      [
        Buffer.from('Jefe'),
        'what do ya want for nothing?',
        '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
      ],
    ] as const) {
      assert.deepEqual(createHmac('sha256', createSecretKey(key)).update(text).digest(), hex(mac));
    }
  });

  test('agrees with an independent implementation', () => {
    for (const length of LENGTHS) {
      for (const keyLength of [1, 32, 64, 65]) {
        const [key, data] = [randomBytes(keyLength), randomBytes(length)];
        assert.deepEqual(
          createHmac('sha256', createSecretKey(key)).update(data).digest(),
          Buffer.from(hmac(sha256, key, data)),
        );
      }
    }
  });
});

describe('HKDF-SHA256', () => {
  test('gives the answer of RFC 5869 (A.1)', () => {
    const okm = hkdfSync(
      'sha256',
      createSecretKey(Buffer.alloc(22, 0x0b)),
      hex('000102030405060708090a0b0c'),
      hex('f0f1f2f3f4f5f6f7f8f9'),
      42,
    );
    assert.deepEqual(
      Buffer.from(okm),
      hex('3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865'),
    );
  });

  test('agrees with an independent implementation', () => {
    for (const length of LENGTHS) {
      const [key, salt, info] = [randomBytes(32), randomBytes(length % 80), randomBytes(length % 200)];
      const own = Buffer.from(hkdfSync('sha256', createSecretKey(key), salt, info, 32));
      assert.deepEqual(own, Buffer.from(hkdf(sha256, key, salt, info, 32)));
    }
  });
});

describe('RSA-OAEP', () => {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const publicKey = readRsaPublicKey({ pem: pair.publicKey.export({ type: 'spki', format: 'pem' }).toString() });
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  const open = (sealed: Uint8Array, oaepHash: string, oaepLabel?: Buffer) =>
    privateDecrypt({ key: pair.privateKey, padding, oaepHash, ...(oaepLabel ? { oaepLabel } : {}) }, sealed);

  test('takes what RFC 8017 lets it take and not a byte more', () => {
    assert.ok(publicKey);
    for (const [hash, maximum] of [
      ['sha1', 214],
      ['sha256', 190],
      ['sha512', 126],
    ] as const) {
      for (const length of [1, 32, maximum]) {
        const plaintext = randomBytes(length);
        assert.deepEqual(open(wrapRsaOaep('k', publicKey, plaintext, hash), hash), plaintext);
      }
      assert.throws(() => wrapRsaOaep('k', publicKey, randomBytes(maximum + 1), hash));
    }
  });

  test('is opened by the same hash and label only, and by nothing that was changed', () => {
    assert.ok(publicKey);
    const sealed = wrapRsaOaep('k', publicKey, randomBytes(32));
    assert.throws(() => open(sealed, 'sha1'));
    assert.throws(() => open(sealed, 'sha256', Buffer.from('label')));
    for (const changed of [new Uint8Array(256), Buffer.alloc(256, 0xff), sealed.subarray(1), sealed.toReversed()]) {
      assert.throws(() => open(changed, 'sha256'));
    }
    const pkcs1 = publicEncrypt({ key: pair.publicKey, padding: constants.RSA_PKCS1_PADDING }, randomBytes(32));
    assert.throws(() => open(pkcs1, 'sha256'));
  });

  test('is not done with a key that is too small or is no RSA key', () => {
    for (const { publicKey: other } of [
      generateKeyPairSync('rsa', { modulusLength: 1024 }),
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ]) {
      assert.equal(readRsaPublicKey({ pem: other.export({ type: 'spki', format: 'pem' }).toString() }), undefined);
    }
  });
});
