// A recipient for tests that every ocicrypt knows: JWE with RSA-OAEP and A256GCM (RFC 7516), by node:crypto alone.
import { constants, createCipheriv, createDecipheriv, privateDecrypt, publicEncrypt, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { OcicryptError } from '../../src/base/errors.ts';
import type { LayerKeyUnwrapper, LayerKeyWrapper } from '../../src/client/layer-keys.ts';

const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha1' };

/** Wraps for the public key in a PEM file, and counts how often it is asked. */
export function jweRecipient(publicKey: string): LayerKeyWrapper & { readonly calls: () => number } {
  let calls = 0;
  return {
    scheme: 'jwe',
    calls: () => calls,
    async wrap(record) {
      calls++;
      const key = randomBytes(32);
      const iv = randomBytes(12);
      const header = Buffer.from('{"alg":"RSA-OAEP","enc":"A256GCM"}').toString('base64url');
      const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(header));
      const ciphertext = Buffer.concat([cipher.update(record), cipher.final()]);
      const encrypted = publicEncrypt({ key: await readFile(publicKey), ...oaep }, key);
      const jwe = {
        protected: header,
        encrypted_key: encrypted.toString('base64url'),
        iv: iv.toString('base64url'),
        ciphertext: ciphertext.toString('base64url'),
        tag: cipher.getAuthTag().toString('base64url'),
      };
      return [Buffer.from(JSON.stringify(jwe))];
    },
  };
}

/** Opens with the private key in a PEM file, and counts how often it is asked. */
export function jweKey(privateKey: string): LayerKeyUnwrapper & { readonly calls: () => number } {
  let calls = 0;
  return {
    calls: () => calls,
    async unwrap(keys) {
      calls++;
      for (const { scheme, packet } of keys) {
        if (scheme !== 'jwe') continue;
        try {
          const jwe = JSON.parse(Buffer.from(packet).toString());
          const bytes = (member: string) => Buffer.from(jwe[member], 'base64url');
          const key = privateDecrypt({ key: await readFile(privateKey), ...oaep }, bytes('encrypted_key'));
          const decipher = createDecipheriv('aes-256-gcm', key, bytes('iv')).setAAD(Buffer.from(jwe.protected));
          decipher.setAuthTag(bytes('tag'));
          return new Uint8Array(Buffer.concat([decipher.update(bytes('ciphertext')), decipher.final()]));
        } catch {
          // Not for this key.
        }
      }
      throw new OcicryptError('integrity', 'no key opens this layer');
    },
  };
}
