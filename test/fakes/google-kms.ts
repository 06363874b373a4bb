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
import { type KeyObject, randomBytes } from 'node:crypto';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import type { GoogleIdentities } from './google-identities.ts';
import { createGrpcSurface } from './google-kms-grpc.ts';
import {
  asymmetricDecrypt,
  createAsymmetricVersion,
  createVersion,
  decrypt,
  encrypt,
  type Key,
  list,
  parseMessage,
  publicKey,
  Refusal,
  type VersionState,
} from './google-kms-keys.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

/** Unwrapping is one permission for keys of both kinds. */
export type Method = 'decrypt' | 'encrypt' | 'list' | 'publicKey';

export interface FakeGoogleKms {
  readonly endpoint: string;
  readonly server: WireServer;
  /** Makes a key with one version; of the given id (8 bytes) and secret (32 bytes) where ciphertexts are fixed test data. */
  createKey(name: string, material?: { readonly id: Uint8Array; readonly secret: Uint8Array }): void;
  /** Makes an ASYMMETRIC_DECRYPT key with one version; other algorithms than RSA-OAEP get an RSA key of 2048 bits, too. */
  createAsymmetricKey(name: string, algorithm?: string): void;
  deleteKey(name: string): void;
  /** The private key of an asymmetric key's first version, for a second implementation of it. */
  privateKey(name: string): KeyObject;
  /** Makes a version, which becomes the primary one of a symmetric key, and returns its number. */
  rotate(name: string): number;
  setState(name: string, version: number, state: VersionState): void;
  /** What `encrypt` and others answer for a key of another purpose. */
  setWrongPurpose(status: 'FAILED_PRECONDITION' | 'INVALID_ARGUMENT'): void;
  /** Refuses `method` to a principal. */
  deny(principal: string, method: Method): void;
  permit(principal: string): void;
  /** Whether every call is refused as unavailable, over REST (503) and gRPC alike. */
  setUnavailable(unavailable: boolean): void;
  close(): Promise<void>;
}

export async function startFakeGoogleKms(
  identities: GoogleIdentities,
  options: { readonly tls: CertificateFiles; readonly port?: number; readonly grpc?: boolean },
): Promise<FakeGoogleKms> {
  const keys = new Map<string, Key>();
  const denied = new Set<string>();
  let wrongPurpose = 'FAILED_PRECONDITION';
  let isUnavailable = false;

  function answer(request: WireRequest): WireAnswer {
    try {
      if (isUnavailable) throw new Refusal(503, 'UNAVAILABLE', 'The service is currently unavailable.');
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
    const [path = '', query] = request.path.split('?');
    const route = ROUTE.exec(path);
    const [, name = '', version, method = 'list'] = route ?? [];
    if (route === null || (request.method === 'GET') !== GETS.has(method)) {
      throw new Refusal(404, 'NOT_FOUND', 'Method not found.');
    }
    checkQuery(new URLSearchParams(query), method);
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

  const { grpc, ...wire } = options;
  const server = await startWireServer(answer, grpc ? { ...wire, http2: createGrpcSurface(answer) } : wire);
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
    privateKey(name) {
      const key = find(name);
      const [version] = key.kind === 'asymmetric' ? key.versions : [];
      if (version === undefined) throw new Error(`no private key ${name}`);
      return version.secret;
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
    setUnavailable(unavailable) {
      isUnavailable = unavailable;
    },
    close: () => server.close(),
  };
}

const ROUTE =
  /^\/v1\/(projects\/[^/]+\/locations\/[^/]+\/keyRings\/[^/]+\/cryptoKeys\/[^/:]+)(?:\/cryptoKeyVersions\/(\d+))?(?:[:/](encrypt|decrypt|asymmetricDecrypt|publicKey)|\/cryptoKeyVersions)$/;
const GETS: ReadonlySet<string> = new Set(['list', 'publicKey']);
/** What this service knows of lists, and Google's own clients' wish for numbers, which their reading does not need. */
const QUERIES: Readonly<Record<string, RegExp>> = {
  $alt: /^json(;enum-encoding=int)?$/,
  filter: /^state=ENABLED$/i,
  pageSize: /^\d+$/,
};

function checkQuery(query: URLSearchParams, method: string): void {
  for (const [name, value] of query) {
    if ((name !== '$alt' && method !== 'list') || QUERIES[name]?.test(value) !== true) {
      throw new Refusal(400, 'INVALID_ARGUMENT', `Invalid value at '${name}'.`);
    }
  }
  if (method === 'list' && !query.has('filter'))
    throw new Refusal(400, 'INVALID_ARGUMENT', 'A fake has no other list.');
}

/** By method, what {@link FakeGoogleKms.deny} calls it, and what IAM does. */
const PERMISSIONS: Readonly<Record<string, readonly [Method, string]>> = {
  encrypt: ['encrypt', 'cloudkms.cryptoKeyVersions.useToEncrypt'],
  decrypt: ['decrypt', 'cloudkms.cryptoKeyVersions.useToDecrypt'],
  asymmetricDecrypt: ['decrypt', 'cloudkms.cryptoKeyVersions.useToDecrypt'],
  publicKey: ['publicKey', 'cloudkms.cryptoKeyVersions.viewPublicKey'],
  list: ['list', 'cloudkms.cryptoKeyVersions.list'],
};
