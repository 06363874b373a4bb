// A key service of one's own, as keys named x-acme:NAME, and an image that is encrypted to such a key:
// node own-key.ts PLAIN ENCRYPTED OPENED, each the name of an image, as oci:DIR:TAG.

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import process from 'node:process';
import {
  cannotBeUnwrapped,
  contextBytes,
  type Kek,
  OcicryptError,
  type OwnKeyUri,
  openImageKeys,
  parseKeyUri,
} from 'ocicrypt-kms';

/** The service, here in this process: 32 bytes for each name. A real one is asked over TLS, with `signal` to end the call. */
const service = new Map([['images/app', randomBytes(32)]]);

/** Opens one key; called when it is first needed, and only if policy allows the key. */
function openAcmeKey(uri: OwnKeyUri): Kek {
  const key = `${uri.scheme}:${uri.value}`;
  const secret = service.get(uri.value);
  if (secret === undefined) {
    throw new OcicryptError('not-found', `${key} does not exist`, { hint: 'make it, or check its name' });
  }
  return {
    key,
    local: false,
    async wrap(plaintext, context) {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', secret, nonce).setAAD(contextBytes(context));
      const wrapped = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
      return { key, algorithm: 'ACME-GCM', wrapped };
    },
    async unwrap({ algorithm, wrapped }, context) {
      // What a packet says is a stranger's word: everything that does not fit ends alike.
      if (algorithm !== 'ACME-GCM' || wrapped.length < 28) throw cannotBeUnwrapped(key);
      const decipher = createDecipheriv('aes-256-gcm', secret, wrapped.subarray(0, 12), { authTagLength: 16 });
      decipher.setAAD(contextBytes(context)).setAuthTag(wrapped.subarray(-16));
      const plaintext = decipher.update(wrapped.subarray(12, -16));
      try {
        decipher.final();
        return plaintext;
      } catch {
        plaintext.fill(0);
        throw cannotBeUnwrapped(key);
      }
    },
  };
}

const [plain = '', encrypted = '', opened = ''] = process.argv.slice(2);
const keys = await openImageKeys(['x-acme:images/app'], { own: { 'x-acme': openAcmeKey } });
try {
  await keys.encrypt(plain, encrypted);
  await keys.verify(encrypted, { require: ['x-acme:images/app'], only: ['x-acme:images/app'], content: true });
  await keys.decrypt(encrypted, opened);
  process.stdout.write(`${parseKeyUri('x-acme:images/app').scheme} opens what it encrypts\n`);
} finally {
  await keys.close();
}
