// The only code that wraps and unwraps layer keys with JWE (RFC 7516), as every ocicrypt does with plain RSA and EC keys.
// containers/ocicrypt keywrap/jwe: general JSON serialisation, A256GCM, RSA-OAEP or ECDH-ES+A256KW.

import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import { readPublicFile, readSecretFile } from '../base/secret-file.ts';
import { showPath } from '../base/shown.ts';
import type { KeyHolder } from './holders.ts';
import type { LayerKeyWrapper } from './layer-keys.ts';

const MAXIMUM_KEY_FILE_BYTES = 64 * 1024;
const MINIMUM_RSA = 2048;
const CURVES = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

/** All that ocicrypt takes. */
const KEY_ALGORITHMS = ['RSA-OAEP', 'RSA-OAEP-256', 'ECDH-ES+A128KW', 'ECDH-ES+A192KW', 'ECDH-ES+A256KW'];
const CONTENT_ALGORITHMS = ['A128GCM', 'A192GCM', 'A256GCM', 'A128CBC-HS256', 'A192CBC-HS384', 'A256CBC-HS512'];

/**
 * Recipients by their public keys, all in one JWE.
 *
 * @param files PEM files: public keys or certificates, RSA of 2048 bits at the least or P-256, P-384, P-521
 * @throws OcicryptError `not-found`, `configuration`
 * @example
 * const recipient = await createJweWrapper(['public.pem']);
 */
export async function createJweWrapper(files: readonly string[]): Promise<LayerKeyWrapper> {
  const keys = await Promise.all(files.map(readPublicKey));
  return {
    scheme: 'jwe',
    async wrap(record) {
      const { GeneralEncrypt } = await import('jose');
      const jwe = new GeneralEncrypt(record).setProtectedHeader({ enc: 'A256GCM' });
      for (const key of keys) {
        const alg = key.asymmetricKeyType === 'ec' ? 'ECDH-ES+A256KW' : 'RSA-OAEP';
        jwe.addRecipient(key).setUnprotectedHeader({ alg });
      }
      return [new TextEncoder().encode(JSON.stringify(await jwe.encrypt()))];
    },
  };
}

/**
 * What opens layer keys with these private keys.
 *
 * @param files PEM files without passphrase, readable by us alone
 * @throws OcicryptError `not-found`, `configuration`
 * @example
 * const holder = createJweHolder(['private.pem']);
 */
export function createJweHolder(files: readonly string[]): KeyHolder {
  const keys = files.map((file) => ({ file, key: readPrivateKey(file) }));
  return {
    opens: (scheme) => scheme === 'jwe',
    async open({ packet }) {
      const jwe = parseJwe(packet);
      const { generalDecrypt } = await import('jose');
      const options = {
        keyManagementAlgorithms: KEY_ALGORITHMS,
        contentEncryptionAlgorithms: CONTENT_ALGORITHMS,
      };
      for (const { key } of keys) {
        try {
          return (await generalDecrypt(jwe, key, options)).plaintext;
        } catch {
          // Not for this key, or changed: which of them is not said (docs/promises.md, P15).
        }
      }
      throw new OcicryptError('integrity', `the JWE cannot be unwrapped with ${files.map(showPath).join(', ')}`, {
        hint: 'the image was encrypted to another key, or its annotation was changed',
      });
    },
  };
}

/** Whether the file holds a private key in PEM, so that it is one for JWE and no key file of ours. */
export async function isPemFile(file: string): Promise<boolean> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = readPublicFile(file, 'the key file', MAXIMUM_KEY_FILE_BYTES);
  } catch {
    return false;
  }
  const found = Buffer.from(bytes.buffer).includes('-----BEGIN ');
  wipe(bytes);
  return found;
}

async function readPublicKey(file: string): Promise<KeyObject> {
  const pem = Buffer.from(readPublicFile(file, 'the public key', MAXIMUM_KEY_FILE_BYTES));
  if (pem.includes('PRIVATE KEY-----')) {
    wipe(pem);
    throw new OcicryptError('configuration', `${showPath(file)} is a private key`, {
      hint: `make its public key: openssl pkey -in ${showPath(file)} -pubout -out PUBLIC.pem`,
    });
  }
  return checkKey(file, () => createPublicKey(pem));
}

function readPrivateKey(file: string): KeyObject {
  const pem = Buffer.from(readSecretFile(file, 'the private key', MAXIMUM_KEY_FILE_BYTES));
  try {
    if (pem.includes('ENCRYPTED')) {
      throw new OcicryptError('configuration', `${showPath(file)} has a passphrase`, {
        hint: `make a copy without: openssl pkey -in ${showPath(file)} -out PLAIN.pem, mode 0600`,
      });
    }
    return checkKey(file, () => createPrivateKey(pem));
  } finally {
    wipe(pem);
  }
}

function checkKey(file: string, parse: () => KeyObject): KeyObject {
  let key: KeyObject | undefined;
  try {
    key = parse();
  } catch {
    // Without a cause: the error may quote the file.
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key ?? {};
  const usable =
    (type === 'rsa' && (details?.modulusLength ?? 0) >= MINIMUM_RSA) ||
    (type === 'ec' && CURVES.has(details?.namedCurve ?? ''));
  if (key !== undefined && usable) return key;
  throw new OcicryptError('configuration', `${showPath(file)} holds no key that JWE can use`, {
    hint: 'expected is PEM: RSA of 2048 bits or more, or EC on P-256, P-384 or P-521',
  });
}

type Jwe = Parameters<typeof import('jose').generalDecrypt>[0];

/** Strictly; ocicrypt writes the flattened serialisation for a single recipient. */
function parseJwe(packet: Uint8Array): Jwe {
  const object = asObject(parseJson(packet, 'the JWE'));
  const text = (member: string) => asText(object?.get(member));
  const [ciphertext, iv, tag] = [text('ciphertext'), text('iv'), text('tag')];
  const shared = text('protected');
  const aad = text('aad');
  if (object === undefined || ciphertext === undefined || iv === undefined || tag === undefined) {
    throw new OcicryptError('bad-input', 'the JWE is not in JSON serialisation');
  }
  const entries = asArray(object.get('recipients'))?.map(asObject) ?? [object];
  return {
    ciphertext,
    iv,
    tag,
    ...(shared === undefined ? {} : { protected: shared }),
    ...(aad === undefined ? {} : { aad }),
    ...headerOf(object, 'unprotected'),
    recipients: entries.slice(0, MAXIMUM_RECIPIENTS).map((entry) => {
      const encrypted = asText(entry?.get('encrypted_key'));
      return { ...(encrypted === undefined ? {} : { encrypted_key: encrypted }), ...headerOf(entry, 'header') };
    }),
  };
}

/** Each costs a private-key operation. */
const MAXIMUM_RECIPIENTS = 32;

/** Members are texts, but for the ephemeral public key. */
function headerOf(object: JsonObject | undefined, member: string): { readonly [name: string]: object } {
  const header = asObject(object?.get(member));
  if (header === undefined) return {};
  const texts = (from: JsonObject): object =>
    Object.fromEntries(
      [...from].map(([name, value]) => {
        const inner = asObject(value);
        return [name, inner === undefined ? asText(value) : texts(inner)];
      }),
    );
  return { [member]: texts(header) };
}
