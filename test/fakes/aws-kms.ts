/**
 * An AWS KMS on this machine: JSON 1.1 over TLS, Signature Version 4 recomputed from the definition, real AES-256-GCM
 * under rotating key material with the encryption context as additional data, real RSA keys, aliases, multi-Region
 * replicas, key states, and a policy by the access key that signed.
 *
 *     const kms = await startFakeAwsKms({ tls });
 *     const arn = kms.createKey();                       // eu-west-1, symmetric
 *     kms.createAlias('alias/x', arn);
 *     kms.rotate(arn); kms.setState(arn, 'Disabled'); kms.deny('AKIA…', 'Decrypt');
 *     kms.server.faults.push({ kind: 'truncated' });      // wire.ts has them all
 */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
  randomUUID,
} from 'node:crypto';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import { isSignedBy, readSignature } from './aws-signature.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

export type KeyState = 'Disabled' | 'Enabled' | 'PendingDeletion';
export type AwsOperation = 'Decrypt' | 'Encrypt' | 'GetPublicKey';
export type AccessKey = { readonly id: string; readonly secret: string; readonly token?: string };

type Material =
  | { readonly kind: 'symmetric'; readonly secrets: Buffer[] }
  | { readonly kind: 'rsa'; readonly privateKey: KeyObject };
/** Replicas share the material and have a state each. */
type Key = { readonly arn: string; readonly material: Material; state: KeyState };

export interface FakeAwsKms {
  readonly endpoint: string;
  readonly server: WireServer;
  /** The access key that is accepted from the start. */
  readonly accessKey: AccessKey;
  /** Makes a key and returns its ARN. */
  createKey(options?: { readonly region?: string; readonly rsa?: number; readonly multiRegion?: boolean }): string;
  /** Replicates a multi-Region key and returns the ARN of the replica. */
  replicate(arn: string, region: string): string;
  createAlias(name: string, arn: string): void;
  /** The first secret of a key, or its private key: for a second implementation of it. */
  material(arn: string): Buffer | KeyObject;
  deleteKey(arn: string): void;
  rotate(arn: string): void;
  setState(arn: string, state: KeyState): void;
  deny(operation: AwsOperation): void;
  permit(): void;
  /** Accepts another access key, as STS makes them. */
  issue(accessKey: AccessKey): void;
  /** Answers ExpiredTokenException to it from now on. */
  expire(id: string): void;
  /** How far this side's clock is ahead, in seconds. */
  setClockSkew(seconds: number): void;
  close(): Promise<void>;
}

const ACCOUNT = '111122223333';

/** Thrown by the service's own code to answer with an error. */
class Refusal extends Error {
  readonly answer: WireAnswer;
  constructor(type: string, message = '', status = 400) {
    super(message);
    this.answer = { status, body: JSON.stringify({ __type: type, message }) };
  }
}

export async function startFakeAwsKms(options: {
  readonly tls: CertificateFiles;
  readonly port?: number;
}): Promise<FakeAwsKms> {
  const keys = new Map<string, Key>();
  const aliases = new Map<string, string>();
  const accessKeys = new Map<string, AccessKey>();
  const expired = new Set<string>();
  const denied = new Set<string>();
  let skew = 0;
  const accessKey = {
    id: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`,
    secret: randomBytes(30).toString('base64'),
  };
  accessKeys.set(accessKey.id, accessKey);

  function answer(request: WireRequest): WireAnswer {
    try {
      return {
        status: 200,
        headers: { 'Content-Type': 'application/x-amz-json-1.1' },
        body: JSON.stringify(handle(request)),
      };
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      throw error;
    }
  }

  function handle(request: WireRequest): unknown {
    const region = authenticate(request);
    const operation = /^TrentService\.(Encrypt|Decrypt|GetPublicKey)$/.exec(request.headers['x-amz-target'] ?? '')?.[1];
    if (operation === undefined) throw new Refusal('UnknownOperationException');
    if (request.headers['content-type'] !== 'application/x-amz-json-1.1') throw new Refusal('SerializationException');
    const message = parseMessage(request.body);
    const keyId = message.get('KeyId');
    if (typeof keyId !== 'string') throw new Refusal('ValidationException', 'KeyId is required here');
    const key = find(keyId, region);
    if (denied.has(operation))
      throw new Refusal('AccessDeniedException', `not authorized to perform: kms:${operation}`);
    if (key.state === 'Disabled') throw new Refusal('DisabledException', `${key.arn} is disabled.`);
    if (key.state === 'PendingDeletion')
      throw new Refusal('KMSInvalidStateException', `${key.arn} is pending deletion.`);
    switch (operation) {
      case 'Encrypt':
        return encrypt(key, message);
      case 'Decrypt':
        return decrypt(key, message);
      default:
        return publicKeyOf(key);
    }
  }

  /** The region that the request is signed for. */
  function authenticate(request: WireRequest): string {
    const signature = readSignature(request);
    const known = accessKeys.get(signature?.id ?? '');
    if (signature === undefined) throw new Refusal('MissingAuthenticationTokenException');
    if (known === undefined) throw new Refusal('UnrecognizedClientException');
    if (expired.has(known.id)) throw new Refusal('ExpiredTokenException');
    if (request.headers['x-amz-security-token'] !== known.token) throw new Refusal('UnrecognizedClientException');
    const now = Date.now() + skew * 1000;
    if (!signature.names.includes('x-amz-target') || !isSignedBy(request, signature, known.secret, now)) {
      throw new Refusal('InvalidSignatureException');
    }
    return signature.region;
  }

  /** By ARN, alias ARN, alias or id; a key of another region is not there. */
  function find(keyId: string, region: string): Key {
    const prefix = `arn:aws:kms:${region}:${ACCOUNT}:`;
    if (keyId.startsWith('arn:') && !keyId.startsWith(prefix)) throw new Refusal('NotFoundException', 'Invalid arn');
    const resource = keyId.replace(prefix, '');
    const name = resource.startsWith('alias/')
      ? aliases.get(`${region} ${resource}`)
      : `${prefix}${resource.replace(/^(?:key\/)?/, 'key/')}`;
    const key = keys.get(name ?? '');
    if (key === undefined) throw new Refusal('NotFoundException', `${keyId} is not found.`);
    return key;
  }

  const server = await startWireServer(answer, options);
  const get = (arn: string) => {
    const key = keys.get(arn);
    if (key === undefined) throw new Error(`no fake key ${arn}`);
    return key;
  };
  return {
    endpoint: server.url,
    server,
    accessKey,
    createKey({ region = 'eu-west-1', rsa, multiRegion = false } = {}) {
      const id = multiRegion ? `mrk-${randomBytes(16).toString('hex')}` : randomUUID();
      const arn = `arn:aws:kms:${region}:${ACCOUNT}:key/${id}`;
      const material: Material =
        rsa === undefined
          ? { kind: 'symmetric', secrets: [randomBytes(32)] }
          : { kind: 'rsa', privateKey: generateKeyPairSync('rsa', { modulusLength: rsa }).privateKey };
      keys.set(arn, { arn, material, state: 'Enabled' });
      return arn;
    },
    replicate(arn, region) {
      const copy = arn.replace(/(:kms:)[^:]+/, `$1${region}`);
      keys.set(copy, { arn: copy, material: get(arn).material, state: 'Enabled' });
      return copy;
    },
    createAlias(name, arn) {
      aliases.set(`${arn.split(':')[3]} ${name}`, arn);
    },
    material(arn) {
      const { material } = get(arn);
      return material.kind === 'rsa' ? material.privateKey : (material.secrets[0] ?? Buffer.alloc(0));
    },
    deleteKey: (arn) => void keys.delete(arn),
    rotate(arn) {
      const { material } = get(arn);
      if (material.kind === 'symmetric') material.secrets.push(randomBytes(32));
    },
    setState(arn, state) {
      get(arn).state = state;
    },
    deny: (operation) => void denied.add(operation),
    permit: () => denied.clear(),
    issue: (key) => void accessKeys.set(key.id, key),
    expire: (id) => void expired.add(id),
    setClockSkew(seconds) {
      skew = seconds;
    },
    close: () => server.close(),
  };
}

/** A ciphertext is `key id hash (16) || material (2) || nonce (12) || ciphertext || tag (16)`. */
const HEAD_BYTES = 18;

function encrypt(key: Key, message: Message): unknown {
  const plaintext = readBytes(message, 'Plaintext', 4096);
  const algorithm = message.get('EncryptionAlgorithm') ?? 'SYMMETRIC_DEFAULT';
  if (key.material.kind === 'rsa') {
    if (algorithm !== 'RSAES_OAEP_SHA_256') throw new Refusal('InvalidKeyUsageException');
    const wrapped = publicEncrypt(oaep(createPublicKey(key.material.privateKey)), plaintext);
    return { CiphertextBlob: wrapped.toString('base64'), KeyId: key.arn, EncryptionAlgorithm: algorithm };
  }
  if (algorithm !== 'SYMMETRIC_DEFAULT') throw new Refusal('InvalidKeyUsageException');
  const number = key.material.secrets.length - 1;
  const head = Buffer.concat([fingerprint(key), Buffer.from([number >> 8, number & 255])]);
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key.material.secrets[number] ?? '', nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.concat([head, readContext(message)]));
  const sealed = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  const blob = Buffer.concat([head, nonce, sealed, cipher.getAuthTag()]);
  return { CiphertextBlob: blob.toString('base64'), KeyId: key.arn, EncryptionAlgorithm: algorithm };
}

function decrypt(key: Key, message: Message): unknown {
  const blob = readBytes(message, 'CiphertextBlob', 6144);
  const algorithm = message.get('EncryptionAlgorithm') ?? 'SYMMETRIC_DEFAULT';
  const plaintext =
    key.material.kind === 'rsa'
      ? decryptRsa(key.material.privateKey, algorithm, blob)
      : decryptSymmetric(key, key.material.secrets, algorithm, blob, readContext(message));
  return { Plaintext: plaintext.toString('base64'), KeyId: key.arn, EncryptionAlgorithm: algorithm };
}

function decryptRsa(privateKey: KeyObject, algorithm: unknown, blob: Buffer): Buffer {
  if (algorithm !== 'RSAES_OAEP_SHA_256') throw new Refusal('InvalidKeyUsageException');
  try {
    return privateDecrypt(oaep(privateKey), blob);
  } catch {
    throw new Refusal('InvalidCiphertextException');
  }
}

function decryptSymmetric(
  key: Key,
  secrets: readonly Buffer[],
  algorithm: unknown,
  blob: Buffer,
  context: Buffer,
): Buffer {
  if (algorithm !== 'SYMMETRIC_DEFAULT') throw new Refusal('InvalidKeyUsageException');
  if (blob.length < HEAD_BYTES + 28) throw new Refusal('InvalidCiphertextException');
  // A well-formed blob of another key is told apart from a broken one, as in the service.
  if (!blob.subarray(0, 16).equals(fingerprint(key))) throw new Refusal('IncorrectKeyException');
  const secret = secrets[blob.readUInt16BE(16)];
  if (secret === undefined) throw new Refusal('InvalidCiphertextException');
  const nonce = blob.subarray(HEAD_BYTES, HEAD_BYTES + 12);
  const decipher = createDecipheriv('aes-256-gcm', secret, nonce, { authTagLength: 16 });
  decipher.setAAD(Buffer.concat([blob.subarray(0, HEAD_BYTES), context]));
  decipher.setAuthTag(blob.subarray(-16));
  try {
    return Buffer.concat([decipher.update(blob.subarray(HEAD_BYTES + 12, -16)), decipher.final()]);
  } catch {
    throw new Refusal('InvalidCiphertextException');
  }
}

function publicKeyOf(key: Key): unknown {
  if (key.material.kind !== 'rsa') throw new Refusal('UnsupportedOperationException');
  const der = createPublicKey(key.material.privateKey).export({ type: 'spki', format: 'der' });
  return {
    KeyId: key.arn,
    PublicKey: der.toString('base64'),
    KeyUsage: 'ENCRYPT_DECRYPT',
    EncryptionAlgorithms: ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'],
  };
}

/** The same for replicas, whose ids are the same. */
function fingerprint(key: Key): Buffer {
  return createHash('sha256').update(key.arn.replace(/^.*\//, '')).digest().subarray(0, 16);
}

function oaep(key: KeyObject) {
  return { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
}

type Message = ReadonlyMap<string, unknown>;

const MEMBERS = new Set(['KeyId', 'Plaintext', 'CiphertextBlob', 'EncryptionContext', 'EncryptionAlgorithm']);

function parseMessage(body: Uint8Array): Message {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString());
  } catch {}
  if (typeof json !== 'object' || json === null) throw new Refusal('SerializationException');
  const message = new Map<string, unknown>(Object.entries(json));
  for (const name of message.keys()) if (!MEMBERS.has(name)) throw new Refusal('SerializationException', name);
  return message;
}

function readBytes(message: Message, name: string, maximum: number): Buffer {
  const value = message.get(name);
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]+={0,2}$/.test(value))
    throw new Refusal('ValidationException', name);
  const bytes = Buffer.from(value, 'base64');
  if (bytes.length > maximum) throw new Refusal('ValidationException', name);
  return bytes;
}

/** Sorted, because the order of pairs does not matter. */
function readContext(message: Message): Buffer {
  const context = message.get('EncryptionContext') ?? {};
  if (typeof context !== 'object' || context === null) throw new Refusal('SerializationException');
  const pairs: [string, unknown][] = Object.entries(context);
  if (pairs.length === 0) return Buffer.alloc(0);
  if (!pairs.every(([, value]) => typeof value === 'string')) throw new Refusal('SerializationException');
  return Buffer.from(JSON.stringify(Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)))));
}
