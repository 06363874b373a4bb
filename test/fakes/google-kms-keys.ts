/** What the fake Google Cloud KMS does with its keys, and how it refuses: the work behind google-kms.ts. */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  randomBytes,
} from 'node:crypto';
import { crc32c } from '../../src/kms/gcpkms/crc32c.ts';
import type { WireAnswer } from './wire.ts';

/** All that Google has (CryptoKeyVersionState), of which one can be used. */
export const VERSION_STATES = [
  'ENABLED',
  'DISABLED',
  'DESTROYED',
  'DESTROY_SCHEDULED',
  'PENDING_GENERATION',
  'GENERATION_FAILED',
  'PENDING_IMPORT',
  'IMPORT_FAILED',
  'PENDING_EXTERNAL_DESTRUCTION',
  'EXTERNAL_DESTRUCTION_FAILED',
] as const;
export type VersionState = (typeof VERSION_STATES)[number];

export type Version<Secret> = { readonly secret: Secret; state: VersionState };
export type SymmetricKey = {
  readonly kind: 'symmetric';
  readonly id: Buffer;
  readonly versions: Version<Buffer>[];
  primary: number;
};
export type AsymmetricKey = {
  readonly kind: 'asymmetric';
  readonly algorithm: string;
  readonly versions: Version<KeyObject>[];
};
export type Key = AsymmetricKey | SymmetricKey;

/** Thrown by the service's own code to answer with an error. */
export class Refusal extends Error {
  readonly answer: WireAnswer;
  constructor(status: number, rpc: string, message: string, reason?: string) {
    super(message);
    const details =
      reason === undefined
        ? []
        : [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason, domain: 'cloudkms.googleapis.com' }];
    this.answer = { status, body: JSON.stringify({ error: { code: status, message, status: rpc, details } }) };
  }
}

/** A ciphertext is `0x0a || key id (8) || version (4) || nonce (12) || ciphertext || tag (16)`. */
const HEAD_BYTES = 13;

export function encrypt(name: string, key: SymmetricKey, number: number, message: Message): unknown {
  const plaintext = readField(message, 'plaintext');
  const additional = readField(message, 'additionalAuthenticatedData');
  const version = usable(name, key.versions, number);
  const head = Buffer.alloc(HEAD_BYTES);
  head[0] = 0x0a;
  key.id.copy(head, 1);
  head.writeUInt32BE(number, 9);
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', version.secret, nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.concat([head, additional.bytes]));
  const sealed = Buffer.concat([cipher.update(plaintext.bytes), cipher.final()]);
  const ciphertext = Buffer.concat([head, nonce, sealed, cipher.getAuthTag()]);
  return {
    name: `${name}/cryptoKeyVersions/${number}`,
    ciphertext: ciphertext.toString('base64'),
    ciphertextCrc32c: String(crc32c(ciphertext)),
    // Set only where the request had the checksum, as in the service.
    ...(plaintext.isChecked ? { verifiedPlaintextCrc32c: true } : {}),
    ...(additional.isChecked ? { verifiedAdditionalAuthenticatedDataCrc32c: true } : {}),
    protectionLevel: 'SOFTWARE',
  };
}

export function decrypt(name: string, key: SymmetricKey, message: Message): unknown {
  const ciphertext = readField(message, 'ciphertext').bytes;
  const additional = readField(message, 'additionalAuthenticatedData').bytes;
  const failed = new Refusal(
    400,
    'INVALID_ARGUMENT',
    "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
  );
  if (ciphertext.length < HEAD_BYTES + 28 || ciphertext[0] !== 0x0a || !ciphertext.subarray(1, 9).equals(key.id)) {
    throw failed;
  }
  const number = ciphertext.readUInt32BE(9);
  if (key.versions[number - 1] === undefined) throw failed;
  const version = usable(name, key.versions, number);
  const nonce = ciphertext.subarray(HEAD_BYTES, HEAD_BYTES + 12);
  const decipher = createDecipheriv('aes-256-gcm', version.secret, nonce, { authTagLength: 16 });
  decipher.setAAD(Buffer.concat([ciphertext.subarray(0, HEAD_BYTES), additional]));
  decipher.setAuthTag(ciphertext.subarray(-16));
  let plaintext: Buffer;
  try {
    plaintext = Buffer.concat([decipher.update(ciphertext.subarray(HEAD_BYTES + 12, -16)), decipher.final()]);
  } catch {
    throw failed;
  }
  return {
    ...(plaintext.length === 0 ? {} : { plaintext: plaintext.toString('base64') }),
    plaintextCrc32c: String(crc32c(plaintext)),
    usedPrimary: number === key.primary,
    protectionLevel: 'SOFTWARE',
  };
}

/** Only what is enabled, of the 100 that the caller asks for at the most. */
export function list(name: string, key: Key): unknown {
  const entries = key.versions.flatMap(({ state }, index) =>
    state === 'ENABLED'
      ? [
          {
            name: `${name}/cryptoKeyVersions/${index + 1}`,
            state,
            protectionLevel: 'SOFTWARE',
            algorithm: key.kind === 'symmetric' ? 'GOOGLE_SYMMETRIC_ENCRYPTION' : key.algorithm,
          },
        ]
      : [],
  );
  return {
    ...(entries.length === 0 ? {} : { cryptoKeyVersions: entries.slice(0, 100) }),
    ...(entries.length > 100 ? { nextPageToken: 'more' } : {}),
    totalSize: entries.length,
  };
}

export function publicKey(name: string, key: AsymmetricKey, number: number): unknown {
  const { secret } = usable(name, key.versions, number);
  const pem = createPublicKey(secret).export({ type: 'spki', format: 'pem' }).toString();
  return {
    pem,
    algorithm: key.algorithm,
    pemCrc32c: String(crc32c(Buffer.from(pem))),
    name: `${name}/cryptoKeyVersions/${number}`,
    protectionLevel: 'SOFTWARE',
  };
}

export function asymmetricDecrypt(name: string, key: AsymmetricKey, number: number, message: Message): unknown {
  const ciphertext = readField(message, 'ciphertext');
  const { secret } = usable(name, key.versions, number);
  const oaepHash = key.algorithm.replace(/^.*_SHA/, 'sha');
  let plaintext: Buffer;
  try {
    plaintext = privateDecrypt({ key: secret, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, ciphertext.bytes);
  } catch {
    throw new Refusal(400, 'INVALID_ARGUMENT', 'Decryption failed.');
  }
  return {
    plaintext: plaintext.toString('base64'),
    plaintextCrc32c: String(crc32c(plaintext)),
    ...(ciphertext.isChecked ? { verifiedCiphertextCrc32c: true } : {}),
    protectionLevel: 'SOFTWARE',
  };
}

function usable<Secret>(name: string, versions: readonly Version<Secret>[], number: number): Version<Secret> {
  const version = versions[number - 1];
  if (version === undefined)
    throw new Refusal(404, 'NOT_FOUND', `CryptoKeyVersion ${name}/cryptoKeyVersions/${number} not found.`);
  if (version.state === 'ENABLED') return version;
  throw new Refusal(
    400,
    'FAILED_PRECONDITION',
    `${name}/cryptoKeyVersions/${number} is not enabled, current state is: ${version.state}.`,
  );
}

export function createAsymmetricVersion(algorithm: string): Version<KeyObject> {
  const modulusLength = Number(/_OAEP_(\d+)_/.exec(algorithm)?.[1] ?? 2048);
  return { secret: generateKeyPairSync('rsa', { modulusLength }).privateKey, state: 'ENABLED' };
}

export function createVersion(secret: Uint8Array = randomBytes(32)): Version<Buffer> {
  return { secret: Buffer.from(secret), state: 'ENABLED' };
}

type Message = ReadonlyMap<string, unknown>;

const FIELDS = new Set(
  ['plaintext', 'ciphertext', 'additionalAuthenticatedData'].flatMap((name) => [name, `${name}Crc32c`]),
);

export function parseMessage(body: Uint8Array): Message {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString());
  } catch {}
  if (typeof json !== 'object' || json === null)
    throw new Refusal(400, 'INVALID_ARGUMENT', 'Invalid JSON payload received.');
  const message = new Map<string, unknown>(Object.entries(json));
  for (const name of message.keys()) {
    if (!FIELDS.has(name)) throw new Refusal(400, 'INVALID_ARGUMENT', `Unknown name "${name}": Cannot find field.`);
  }
  return message;
}

function readField(message: Message, name: string): { readonly bytes: Buffer; readonly isChecked: boolean } {
  const value = message.get(name) ?? '';
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value)) {
    throw new Refusal(400, 'INVALID_ARGUMENT', `Invalid value at '${name}' (TYPE_BYTES).`);
  }
  const bytes = Buffer.from(value, 'base64');
  if (bytes.length > 65536 + 4096) throw new Refusal(400, 'INVALID_ARGUMENT', `The value of ${name} is too large.`);
  const checksum = message.get(`${name}Crc32c`);
  if (checksum !== undefined && String(checksum) !== String(crc32c(bytes))) {
    throw new Refusal(
      400,
      'INVALID_ARGUMENT',
      `The checksum in field ${name}_crc32c did not match the data in field ${name}.`,
    );
  }
  return { bytes, isChecked: checksum !== undefined };
}
