/**
 * A Vault (or OpenBao) on this machine: transit engines in namespaces with real ciphers under versioned keys, tokens
 * with policies by path and capability, and the logins that give tokens. Errors have the service's own words, because
 * the code under test tells them apart by these.
 *
 *     const vault = await startFakeVault({ tls });
 *     vault.createKey('transit/k');                                   // or 'NAMESPACE/MOUNT/k', 'rsa-2048'
 *     const token = vault.createToken({ 'transit/encrypt/k': ['update'] });
 *     vault.sealed = true;
 */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { startWireServer, type WireAnswer, type WireOptions, type WireRequest, type WireServer } from './wire.ts';

export type Capability = 'create' | 'read' | 'update';
/** Capabilities by path; a path may end in `*`. */
export type Policy = Readonly<Record<string, readonly Capability[]>>;
export type KeyType = 'aes256-gcm96' | 'rsa-2048' | 'rsa-4096' | 'ecdsa-p256';

type Version = { readonly secret: Buffer; readonly pair: { publicKey: KeyObject; privateKey: KeyObject } | undefined };
type Key = { readonly type: KeyType; readonly versions: Version[]; minimum: number; isDeleted: boolean };
type Login = {
  readonly mount: string;
  readonly credentials: Readonly<Record<string, string>>;
  readonly policy: Policy;
  readonly seconds: number | undefined;
};

export interface FakeVault {
  readonly server: WireServer;
  readonly address: string;
  sealed: boolean;
  /** Whose words it has for a token that it does not know. */
  product: 'OpenBao' | 'Vault';
  /** A server from before Vault 1.13, which ignores `associated_data`. */
  isOld: boolean;
  /** How long the tokens of logins live that have no time of their own, in seconds. */
  lifetime: number;
  /** The logins so far. */
  readonly logins: number;
  /** @param path `[NAMESPACE/]MOUNT/KEY` */
  createKey(path: string, type?: KeyType): void;
  hasKey(path: string): boolean;
  /** The secret of a key's first version, or its private key: for a second implementation of it. */
  material(path: string): Buffer | KeyObject;
  deleteKey(path: string): void;
  setDeleted(path: string, isDeleted: boolean): void;
  rotate(path: string): number;
  setMinimum(path: string, version: number): void;
  createToken(policy: Policy): string;
  /** Ends every token that a login gave. */
  revokeLogins(): void;
  /** Permits a login at `auth/MOUNT/login` by whoever sends exactly these credentials. */
  permitLogin(mount: string, credentials: Readonly<Record<string, string>>, policy: Policy, seconds?: number): void;
  /** Changes what every token may do. */
  setDenied(path: string | undefined): void;
  close(): Promise<void>;
}

class Refusal extends Error {
  readonly answer: WireAnswer;
  constructor(status: number, ...errors: readonly string[]) {
    super(errors.join());
    this.answer = { status, body: JSON.stringify({ errors }) };
  }
}

export async function startFakeVault(options: WireOptions): Promise<FakeVault> {
  const keys = new Map<string, Key>();
  const tokens = new Map<string, { readonly policy: Policy }>();
  const logins: Login[] = [];
  const given = new Set<string>();
  let denied: string | undefined;
  let loginCount = 0;

  function answer(request: WireRequest): WireAnswer {
    try {
      return { status: 200, body: JSON.stringify({ request_id: 'r', ...handle(request) }) };
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      throw error;
    }
  }

  function handle({ method, path, headers, body }: WireRequest): object {
    if (vault.sealed) throw new Refusal(503, 'Vault is sealed');
    if (headers['x-vault-request'] !== 'true') throw new Refusal(412, 'missing X-Vault-Request header');
    const segments = path.split('/').slice(2).map(decodeURIComponent);
    if (!path.startsWith('/v1/') || method !== 'POST') throw new Refusal(405, 'unsupported operation');
    const message = parseMessage(body);
    if (segments[0] === 'auth' && segments.at(-1) === 'login') return logIn(segments.slice(1, -1).join('/'), message);
    return transit(segments, headers, message);
  }

  function logIn(mount: string, message: Message): object {
    const login = logins.find(
      (one) =>
        one.mount === mount &&
        Object.keys(message).length === Object.keys(one.credentials).length &&
        Object.entries(one.credentials).every(([name, value]) => message[name] === value),
    );
    if (login === undefined) throw refusalOf(mount, message, logins);
    loginCount++;
    const token = createToken(login.policy);
    given.add(token);
    return {
      auth: {
        client_token: token,
        lease_duration: login.seconds ?? vault.lifetime,
        renewable: true,
        policies: ['default'],
      },
    };
  }

  function transit(segments: readonly string[], headers: WireRequest['headers'], message: Message): object {
    const name = segments.at(-1) ?? '';
    const method = segments.at(-2) ?? '';
    const mount = segments.slice(0, -2).join('/');
    const namespace = headers['x-vault-namespace'];
    const id = [...(namespace === undefined ? [] : [namespace]), mount, name].join('/');
    const key = keys.get(id);
    const token = tokens.get(headers['x-vault-token'] ?? '');
    if (token === undefined) {
      throw new Refusal(
        403,
        vault.product === 'OpenBao'
          ? 'permission denied'
          : '2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n',
      );
    }
    const wanted: Capability = method === 'encrypt' && key === undefined ? 'create' : 'update';
    const path = `${mount}/${method}/${name}`;
    if (path === denied || !permits(token.policy, path, wanted)) {
      throw new Refusal(403, '1 error occurred:\n\t* permission denied\n\n');
    }
    const mounts = [...keys.keys()].map((known) => known.slice(0, known.lastIndexOf('/')));
    if (!mounts.includes(id.slice(0, id.lastIndexOf('/')))) throw new Refusal(404, `no handler for route "${path}".`);
    if (method === 'encrypt') return encrypt(key ?? create(id, message), message);
    if (method === 'decrypt') return decrypt(key, message);
    throw new Refusal(404);
  }

  function create(id: string, message: Message): Key {
    const type = message.type ?? 'aes256-gcm96';
    if (type === 'ecdsa-p256') throw new Refusal(400, `key type ${type} not supported for this operation`);
    if (type !== 'aes256-gcm96') throw new Refusal(400, `unknown key type ${type}`);
    vault.createKey(id, type);
    return find(id);
  }

  function encrypt(key: Key, message: Message): object {
    const plaintext = readBase64(message, 'plaintext');
    checkType(key);
    const version = key.versions.length;
    const { secret, pair } = key.versions[version - 1] ?? createVersion(key.type);
    const associated = readAssociated(key, message);
    let raw: Buffer;
    if (pair !== undefined) {
      try {
        raw = publicEncrypt({ key: pair.publicKey, ...OAEP }, plaintext);
      } catch {
        throw new Refusal(
          500,
          '1 error occurred:\n\t* failed to RSA encrypt the plaintext: message too long for RSA key size',
        );
      }
    } else {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', secret, nonce).setAAD(associated);
      raw = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    }
    return { data: { ciphertext: `vault:v${version}:${raw.toString('base64')}`, key_version: version } };
  }

  function decrypt(key: Key | undefined, message: Message): object {
    if (key === undefined) throw new Refusal(400, 'encryption key not found');
    checkType(key);
    const associated = readAssociated(key, message);
    const [, number = '', text = ''] = /^vault:v(\d+):(.*)$/s.exec(String(message.ciphertext)) ?? [];
    if (number === '') throw new Refusal(400, 'invalid ciphertext: no prefix');
    const version = key.versions[Number(number) - 1];
    if (version === undefined) throw new Refusal(400, 'invalid ciphertext: version is too new');
    if (Number(number) < key.minimum) {
      throw new Refusal(400, 'ciphertext or signature version is disallowed by policy (too old)');
    }
    const raw = Buffer.from(text, 'base64');
    try {
      if (version.pair !== undefined) return opened(privateDecrypt({ key: version.pair.privateKey, ...OAEP }, raw));
      const decipher = createDecipheriv('aes-256-gcm', version.secret, raw.subarray(0, 12), { authTagLength: 16 });
      decipher.setAAD(associated).setAuthTag(raw.subarray(-16));
      return opened(Buffer.concat([decipher.update(raw.subarray(12, -16)), decipher.final()]));
    } catch {
      if (version.pair !== undefined) {
        throw new Refusal(500, '1 error occurred:\n\t* failed to RSA decrypt the ciphertext: decryption error\n\n');
      }
      throw new Refusal(400, 'cipher: message authentication failed');
    }
  }

  function readAssociated(key: Key, message: Message): Buffer {
    if (message.associated_data === undefined || vault.isOld) return Buffer.alloc(0);
    if (key.type === 'aes256-gcm96') return readBase64(message, 'associated_data');
    throw new Refusal(400, `'[0].associated_data' provided for non-AEAD cipher suite ${key.type}`);
  }

  function createToken(policy: Policy): string {
    const token = `hvs.${randomBytes(24).toString('base64url')}`;
    tokens.set(token, { policy });
    return token;
  }

  function find(path: string): Key {
    const key = keys.get(path);
    if (key === undefined) throw new Error(`no fake key ${path}`);
    return key;
  }

  const server = await startWireServer(answer, options);
  const vault: FakeVault = {
    server,
    address: server.url,
    sealed: false,
    product: 'OpenBao',
    lifetime: 3600,
    isOld: false,
    get logins() {
      return loginCount;
    },
    createKey(path, type = 'aes256-gcm96') {
      keys.set(path, { type, versions: [createVersion(type)], minimum: 1, isDeleted: false });
    },
    hasKey: (path) => keys.has(path),
    material(path) {
      const [version] = find(path).versions;
      if (version === undefined) throw new Error(`no fake key ${path}`);
      return version.pair?.privateKey ?? version.secret;
    },
    deleteKey: (path) => void keys.delete(path),
    setDeleted(path, isDeleted) {
      find(path).isDeleted = isDeleted;
    },
    rotate(path) {
      const key = find(path);
      return key.versions.push(createVersion(key.type));
    },
    setMinimum(path, version) {
      find(path).minimum = version;
    },
    createToken,
    revokeLogins() {
      for (const token of given) tokens.delete(token);
    },
    permitLogin(mount, credentials, policy, seconds) {
      logins.push({ mount, credentials, policy, seconds });
    },
    setDenied(path) {
      denied = path;
    },
    close: () => server.close(),
  };
  return vault;
}

/** What each login of OpenBao says of credentials that it does not take. */
function refusalOf(mount: string, message: Message, logins: readonly Login[]): Refusal {
  const known = logins.filter((login) => login.mount === mount);
  if (known.length === 0) return new Refusal(403, 'permission denied');
  if ('role_id' in message) return new Refusal(400, 'invalid role or secret ID');
  const hasRole = known.some(({ credentials }) => credentials.role === message.role);
  if ('jwt' in message && mount.includes('kubernetes')) {
    return hasRole
      ? new Refusal(403, 'permission denied')
      : new Refusal(400, `invalid role name ${JSON.stringify(message.role)}`);
  }
  if ('jwt' in message) {
    return hasRole
      ? new Refusal(400, 'error validating token: told')
      : new Refusal(400, `role ${JSON.stringify(message.role)} could not be found`);
  }
  return new Refusal(400, 'invalid certificate or no client certificate supplied');
}

const OAEP = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };

function createVersion(type: KeyType): Version {
  const bits = /^rsa-(\d+)$/.exec(type)?.[1];
  return {
    secret: randomBytes(32),
    pair: bits === undefined ? undefined : generateKeyPairSync('rsa', { modulusLength: Number(bits) }),
  };
}

function checkType(key: Key): void {
  if (key.isDeleted) throw new Refusal(400, 'refusing to use soft-deleted key');
  if (key.type === 'ecdsa-p256') throw new Refusal(400, 'message encryption not supported for key type ecdsa-p256');
}

function opened(plaintext: Buffer): object {
  return { data: { plaintext: plaintext.toString('base64') } };
}

function permits(policy: Policy, path: string, wanted: Capability): boolean {
  return Object.entries(policy).some(
    ([pattern, capabilities]) =>
      (pattern === path || (pattern.endsWith('*') && path.startsWith(pattern.slice(0, -1)))) &&
      capabilities.includes(wanted),
  );
}

type Message = Readonly<Record<string, unknown>>;

function parseMessage(body: Uint8Array): Message {
  const json: unknown = JSON.parse(Buffer.from(body).toString());
  if (typeof json !== 'object' || json === null) throw new Refusal(400, 'failed to parse JSON input');
  return { ...json };
}

function readBase64(message: Message, name: string): Buffer {
  const value = message[name];
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value)) {
    throw new Refusal(400, `illegal base64 data in ${name}`);
  }
  return Buffer.from(value, 'base64');
}
