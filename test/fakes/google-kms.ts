/**
 * A Google Cloud KMS on this machine: its REST v1 surface for symmetric and RSA decryption keys, over TLS, with real
 * AES-256-GCM and RSA-OAEP under versioned keys, CRC-32C as Google checks it, and IAM by the principal that a bearer
 * token belongs to.
 *
 *     const kms = await startFakeGoogleKms(identities, { tls });
 *     kms.createKey('projects/p/locations/global/keyRings/r/cryptoKeys/k');
 *     kms.createAsymmetricKey(other, 'RSA_DECRYPT_OAEP_3072_SHA256');
 *     kms.rotate(name);                       // a new primary version
 *     kms.setState(name, 1, 'DISABLED');      // ENABLED, DISABLED, DESTROYED
 *     kms.deny(email, 'decrypt');             // 403 IAM_PERMISSION_DENIED
 *     kms.server.faults.push({ kind: 'truncated' });      // wire.ts has them all
 *
 * `node test/fakes/google-kms-main.ts` starts one by hand.
 */
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
import { crc32c } from '../../src/kms/crc32c.ts';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import type { GoogleIdentities } from './google-identities.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

export type VersionState = 'DESTROYED' | 'DISABLED' | 'ENABLED';
/** Unwrapping is one permission for keys of both kinds. */
export type Method = 'decrypt' | 'encrypt' | 'list' | 'publicKey';

type Version<Secret> = { readonly secret: Secret; state: VersionState };
type SymmetricKey = {
  readonly kind: 'symmetric';
  readonly id: Buffer;
  readonly versions: Version<Buffer>[];
  primary: number;
};
type AsymmetricKey = {
  readonly kind: 'asymmetric';
  readonly algorithm: string;
  readonly versions: Version<KeyObject>[];
};
type Key = AsymmetricKey | SymmetricKey;

export interface FakeGoogleKms {
  readonly endpoint: string;
  readonly server: WireServer;
  /** Makes a key with one version; of the given id (8 bytes) and secret (32 bytes) where ciphertexts are fixed test data. */
  createKey(name: string, material?: { readonly id: Uint8Array; readonly secret: Uint8Array }): void;
  /** Makes an ASYMMETRIC_DECRYPT key with one version; other algorithms than RSA-OAEP get an RSA key of 2048 bits, too. */
  createAsymmetricKey(name: string, algorithm?: string): void;
  deleteKey(name: string): void;
  /** Makes a version, which becomes the primary one of a symmetric key, and returns its number. */
  rotate(name: string): number;
  setState(name: string, version: number, state: VersionState): void;
  /** What `encrypt` and others answer for a key of another purpose. */
  setWrongPurpose(status: 'FAILED_PRECONDITION' | 'INVALID_ARGUMENT'): void;
  /** Refuses `method` to a principal. */
  deny(principal: string, method: Method): void;
  permit(principal: string): void;
  close(): Promise<void>;
}

/** Thrown by the service's own code to answer with an error. */
class Refusal extends Error {
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

export async function startFakeGoogleKms(
  identities: GoogleIdentities,
  options: { readonly tls: CertificateFiles; readonly port?: number },
): Promise<FakeGoogleKms> {
  const keys = new Map<string, Key>();
  const denied = new Set<string>();
  let wrongPurpose = 'FAILED_PRECONDITION';

  function answer(request: WireRequest): WireAnswer {
    try {
      return { status: 200, body: JSON.stringify(handle(request)) };
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      throw error;
    }
  }

  function handle(request: WireRequest): unknown {
    const principal = identities.identify(request.headers.authorization);
    if (principal === undefined) {
      throw new Refusal(
        401,
        'UNAUTHENTICATED',
        'Request had invalid authentication credentials.',
        'ACCESS_TOKEN_EXPIRED',
      );
    }
    const route = ROUTE.exec(request.path);
    const [, name = '', version, method = 'list'] = route ?? [];
    if (route === null || (request.method === 'GET') !== GETS.has(method)) {
      throw new Refusal(404, 'NOT_FOUND', 'Method not found.');
    }
    if (method === 'decrypt' && version !== undefined) {
      throw new Refusal(404, 'NOT_FOUND', 'Decrypt takes the name of a CryptoKey.');
    }
    if (['asymmetricDecrypt', 'publicKey'].includes(method) && version === undefined) {
      throw new Refusal(404, 'NOT_FOUND', 'This takes the name of a CryptoKeyVersion.');
    }
    const [permitted, permission] = PERMISSIONS[method] ?? ['', ''];
    if (denied.has(`${principal} ${permitted}`)) {
      throw new Refusal(
        403,
        'PERMISSION_DENIED',
        `Permission '${permission}' denied on resource '${name}' (or it may not exist).`,
        'IAM_PERMISSION_DENIED',
      );
    }
    const key = keys.get(name);
    if (key === undefined) throw new Refusal(404, 'NOT_FOUND', `CryptoKey ${name} not found.`);
    if (method === 'list') return list(name, key);
    const message = method === 'publicKey' ? new Map<string, unknown>() : parseMessage(request.body);
    const isSymmetricMethod = method === 'encrypt' || method === 'decrypt';
    if (isSymmetricMethod && key.kind === 'symmetric') {
      return method === 'encrypt'
        ? encrypt(name, key, Number(version ?? key.primary), message)
        : decrypt(name, key, message);
    }
    if (!isSymmetricMethod && key.kind === 'asymmetric') {
      return method === 'publicKey'
        ? publicKey(name, key, Number(version))
        : asymmetricDecrypt(name, key, Number(version), message);
    }
    throw new Refusal(400, wrongPurpose, `The purpose of ${name} does not allow ${method}.`);
  }

  const server = await startWireServer(answer, options);
  const find = (name: string) => {
    const key = keys.get(name);
    if (key === undefined) throw new Error(`no fake key ${name}`);
    return key;
  };
  return {
    endpoint: server.url,
    server,
    createKey(name, material) {
      const id = Buffer.from(material?.id ?? randomBytes(8));
      keys.set(name, { kind: 'symmetric', id, versions: [createVersion(material?.secret)], primary: 1 });
    },
    createAsymmetricKey(name, algorithm = 'RSA_DECRYPT_OAEP_2048_SHA256') {
      keys.set(name, { kind: 'asymmetric', algorithm, versions: [createAsymmetricVersion(algorithm)] });
    },
    setWrongPurpose(status) {
      wrongPurpose = status;
    },
    deleteKey(name) {
      keys.delete(name);
    },
    rotate(name) {
      const key = find(name);
      if (key.kind === 'asymmetric') return key.versions.push(createAsymmetricVersion(key.algorithm));
      key.primary = key.versions.push(createVersion());
      return key.primary;
    },
    setState(name, version, state) {
      const found = find(name).versions[version - 1];
      if (found === undefined) throw new Error(`no version ${version} of the fake key ${name}`);
      found.state = state;
    },
    deny(principal, method) {
      denied.add(`${principal} ${method}`);
    },
    permit(principal) {
      for (const method of ['decrypt', 'encrypt', 'list', 'publicKey']) denied.delete(`${principal} ${method}`);
    },
    close: () => server.close(),
  };
}

const ROUTE =
  /^\/v1\/(projects\/[^/]+\/locations\/[^/]+\/keyRings\/[^/]+\/cryptoKeys\/[^/:]+)(?:\/cryptoKeyVersions\/(\d+))?(?:[:/](encrypt|decrypt|asymmetricDecrypt|publicKey)|\/cryptoKeyVersions\?filter=state%3DENABLED&pageSize=\d+)$/;
const GETS: ReadonlySet<string> = new Set(['list', 'publicKey']);
/** By method, what {@link FakeGoogleKms.deny} calls it, and what IAM does. */
const PERMISSIONS: Readonly<Record<string, readonly [Method, string]>> = {
  encrypt: ['encrypt', 'cloudkms.cryptoKeyVersions.useToEncrypt'],
  decrypt: ['decrypt', 'cloudkms.cryptoKeyVersions.useToDecrypt'],
  asymmetricDecrypt: ['decrypt', 'cloudkms.cryptoKeyVersions.useToDecrypt'],
  publicKey: ['publicKey', 'cloudkms.cryptoKeyVersions.viewPublicKey'],
  list: ['list', 'cloudkms.cryptoKeyVersions.list'],
};

/** A ciphertext is `0x0a || key id (8) || version (4) || nonce (12) || ciphertext || tag (16)`. */
const HEAD_BYTES = 13;

function encrypt(name: string, key: SymmetricKey, number: number, message: Message): unknown {
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

function decrypt(name: string, key: SymmetricKey, message: Message): unknown {
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
function list(name: string, key: Key): unknown {
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

function publicKey(name: string, key: AsymmetricKey, number: number): unknown {
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

function asymmetricDecrypt(name: string, key: AsymmetricKey, number: number, message: Message): unknown {
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

function createAsymmetricVersion(algorithm: string): Version<KeyObject> {
  const modulusLength = Number(/_OAEP_(\d+)_/.exec(algorithm)?.[1] ?? 2048);
  return { secret: generateKeyPairSync('rsa', { modulusLength }).privateKey, state: 'ENABLED' };
}

function createVersion(secret: Uint8Array = randomBytes(32)): Version<Buffer> {
  return { secret: Buffer.from(secret), state: 'ENABLED' };
}

type Message = ReadonlyMap<string, unknown>;

const FIELDS = new Set(
  ['plaintext', 'ciphertext', 'additionalAuthenticatedData'].flatMap((name) => [name, `${name}Crc32c`]),
);

function parseMessage(body: Uint8Array): Message {
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
