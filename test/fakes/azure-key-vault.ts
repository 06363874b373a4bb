/**
 * An Azure Key Vault (or managed HSM) and its token service on this machine: the REST surface of keys over TLS, with
 * real RSA-OAEP-256, A256KW and A256GCM under versioned keys, permissions, and tokens that are good for one audience.
 *
 *     const vault = await startFakeAzureVault({ tls });
 *     vault.createKey('image', { type: 'RSA' });
 *     vault.rotate('image'); vault.setEnabled('image', false); vault.deny('unwrapKey');
 *     vault.setDates('image', { until: 0 });                // wrapping is refused, unwrapping is not
 *     vault.deleteKey('image'); vault.recoverKey('image');  // a deleted key is kept, as soft deletion has it
 *     vault.server.faults.push({ kind: 'truncated' });      // wire.ts has them all
 */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
  verify,
  X509Certificate,
} from 'node:crypto';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

export type Permission = 'decrypt' | 'encrypt' | 'get' | 'unwrapKey' | 'wrapKey';
export type KeyOptions = {
  readonly type: 'RSA' | 'oct-HSM';
  readonly bits?: number;
  readonly operations?: readonly Permission[];
};

type Material = { readonly privateKey: KeyObject } | { readonly secret: Buffer };
/** Milliseconds since 1970. */
export type KeyDates = { readonly from?: number; readonly until?: number };

type Key = {
  readonly options: KeyOptions;
  readonly versions: Map<string, Material>;
  newest: string;
  enabled: boolean;
  dates: KeyDates;
};

export interface FakeAzureVault {
  readonly endpoint: string;
  readonly host: string;
  readonly server: WireServer;
  readonly tenant: string;
  readonly client: { readonly id: string; readonly secret: string };
  /** A token that the token service takes for the client's, as Kubernetes projects it. */
  readonly assertion: string;
  /** A certificate of the application, whose key may sign assertions. @param pem the certificate */
  trustCertificate(pem: string): void;
  /** How long tokens live, in seconds. */
  lifetime: number;
  createKey(name: string, options: KeyOptions): void;
  /** The newest version of a key, and its secret or private key: for a second implementation of it. */
  material(name: string): { readonly version: string; readonly material: Buffer | KeyObject };
  /** Keeps it, so that it can be recovered and no other key of its name be made. */
  deleteKey(name: string): void;
  recoverKey(name: string): void;
  /** Makes a version, which becomes the newest. */
  rotate(name: string): void;
  setEnabled(name: string, enabled: boolean): void;
  setDates(name: string, dates: KeyDates): void;
  /** The versions of the API that it knows, the newest last: a private cloud is years behind. */
  apiVersions: readonly string[];
  deny(...permissions: Permission[]): void;
  permit(): void;
  /** A token for an audience, good for some seconds. */
  issue(audience: string, seconds?: number): string;
  /** Makes every token that was issued useless. */
  revokeTokens(): void;
  close(): Promise<void>;
}

/** Thrown by the service's own code to answer with an error. */
class Refusal extends Error {
  readonly answer: WireAnswer;
  constructor(
    status: number,
    code: string,
    inner?: string,
    { headers = {}, message = 'told' }: { headers?: Readonly<Record<string, string>>; message?: string } = {},
  ) {
    super(code);
    const innererror = inner === undefined ? undefined : { code: inner };
    this.answer = { status, headers, body: JSON.stringify({ error: { code, message, innererror } }) };
  }
}

/** How a JWT begins that PS256 has signed: {"alg":"PS256" */
const PS256 = Buffer.from('{"alg":"PS256"').toString('base64url').slice(0, 18);

const OPERATIONS: Readonly<Record<string, Permission>> = {
  decrypt: 'decrypt',
  encrypt: 'encrypt',
  unwrapkey: 'unwrapKey',
  wrapkey: 'wrapKey',
};

export async function startFakeAzureVault(options: {
  readonly tls: CertificateFiles;
  readonly host?: string;
  readonly port?: number;
}): Promise<FakeAzureVault> {
  const host = options.host ?? 'testvault.vault.azure.net';
  const audience = `https://${host.replace(/^[^.]*\./, '')}`;
  const keys = new Map<string, Key>();
  const denied = new Set<Permission>();
  const tokens = new Map<string, { readonly audience: string; readonly end: number }>();
  const tenant = '11111111-2222-3333-4444-555555555555';
  const client = { id: '66666666-7777-8888-9999-aaaaaaaaaaaa', secret: randomBytes(24).toString('base64') };
  const assertion = [randomBytes(8), randomBytes(64), randomBytes(64)]
    .map((part) => part.toString('base64url'))
    .join('.');

  const certificates = new Map<string, KeyObject>();

  function answer(request: WireRequest): WireAnswer {
    try {
      return { status: 200, body: JSON.stringify(handle(request)) };
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      throw error;
    }
  }

  function handle(request: WireRequest): unknown {
    const ofTenant = /^\/([^/]+)\/oauth2\/v2\.0\/token$/.exec(request.path)?.[1];
    if (ofTenant !== undefined) return giveToken(ofTenant, request);
    if (request.path === `/${tenant}/v2.0/.well-known/openid-configuration`) return describeTokenService();
    authenticate(request);
    const { pathname, searchParams } = new URL(request.path, server.url);
    const route = /^\/keys\/([0-9A-Za-z-]+)(?:\/([0-9a-f]{32})?(?:\/([a-z]+))?)?$/.exec(pathname);
    const asked = searchParams.get('api-version') ?? '';
    if (!vault.apiVersions.includes(asked)) {
      const message = `The specified version (${asked}) is not recognized. Consider using the latest supported version (${vault.apiVersions.at(-1)}).`;
      throw new Refusal(400, 'BadParameter', undefined, { message });
    }
    if (route === null) throw new Refusal(400, 'BadParameter');
    const [, name = '', version, operation] = route;
    const permission = operation === undefined ? 'get' : OPERATIONS[operation];
    if (permission === undefined || request.method !== (permission === 'get' ? 'GET' : 'POST')) {
      throw new Refusal(405, 'MethodNotAllowed');
    }
    if (denied.has(permission)) throw new Refusal(403, 'Forbidden', 'ForbiddenByRbac');
    const key = keys.get(name.toLowerCase());
    const number = version ?? key?.newest ?? '';
    const material = key?.versions.get(number);
    if (key === undefined || material === undefined) throw new Refusal(404, 'KeyNotFound');
    const kid = `https://${host}/keys/${name}/${number}`;
    if (permission === 'get') return describe(kid, key, material);
    if (!key.enabled) throw new Refusal(403, 'Forbidden', 'KeyDisabled');
    const { from = 0, until = Number.POSITIVE_INFINITY } = key.dates;
    if (permission === 'wrapKey' || permission === 'encrypt') {
      if (Date.now() >= until) throw new Refusal(403, 'Forbidden', 'KeyExpired');
      if (Date.now() < from) throw new Refusal(403, 'Forbidden', 'KeyNotYetValid');
    }
    if (key.options.operations?.includes(permission) === false)
      throw new Refusal(403, 'Forbidden', 'KeyOperationForbidden');
    return { kid, ...operate(permission, material, parseMessage(request.body)) };
  }

  /** Microsoft's library asks first where the tokens are (OpenID Connect Discovery). */
  function describeTokenService(): unknown {
    const authority = `https://login.microsoftonline.com/${tenant}`;
    return {
      issuer: `${authority}/v2.0`,
      authorization_endpoint: `${authority}/oauth2/v2.0/authorize`,
      token_endpoint: `${authority}/oauth2/v2.0/token`,
    };
  }

  /** The client credentials grant, and the number of what is wrong with it. */
  function giveToken(asked: string, { body, path }: WireRequest): unknown {
    const form = new URLSearchParams(Buffer.from(body).toString());
    const shown = form.get('client_assertion');
    const isAssertion =
      form.get('client_assertion_type') === 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' && shown !== null;
    const number = () => {
      if (asked !== tenant) return 90002;
      if (form.get('client_id') !== client.id) return 700016;
      if (!isAssertion) return form.get('client_secret') === client.secret ? undefined : 7000215;
      if (shown === assertion) return undefined;
      if (!shown.startsWith(PS256)) return 700213;
      return isSignedFor(shown, `${server.url}${path}`) ? undefined : 700027;
    };
    const fault = form.get('grant_type') === 'client_credentials' ? number() : 70003;
    if (fault !== undefined) {
      const error = { error: 'invalid_client', error_description: 'told', error_codes: [fault] };
      throw Object.assign(new Refusal(401, ''), { answer: { status: 401, body: JSON.stringify(error) } });
    }
    const scope = form.get('scope') ?? '';
    const access_token = issue(scope.replace(/\/\.default$/, ''), vault.lifetime);
    return { token_type: 'Bearer', expires_in: vault.lifetime, access_token };
  }

  function isSignedFor(jwt: string, audience: string): boolean {
    const [header = '', claims = '', signature = ''] = jwt.split('.');
    const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());
    const key = certificates.get(read(header)['x5t#S256']);
    const { aud, iss, sub, exp, nbf, jti } = read(claims);
    const now = Date.now() / 1000;
    const isRight = aud === audience && iss === client.id && sub === client.id && nbf <= now && now < exp && jti;
    if (key === undefined || !isRight) return false;
    const padding = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
    return verify(
      'sha256',
      Buffer.from(`${header}.${claims}`),
      { key, ...padding },
      Buffer.from(signature, 'base64url'),
    );
  }

  function issue(to: string, seconds = 3600): string {
    const token = `eyJ0.${randomBytes(32).toString('base64url')}`;
    tokens.set(token, { audience: to, end: Date.now() + seconds * 1000 });
    return token;
  }

  function authenticate(request: WireRequest): void {
    const token = tokens.get(/^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '');
    if (token !== undefined && token.audience === audience && Date.now() < token.end) return;
    const challenge = `Bearer authorization="https://login.microsoftonline.com/${tenant}", resource="${audience}"`;
    throw new Refusal(401, 'Unauthorized', undefined, { headers: { 'WWW-Authenticate': challenge } });
  }

  const server = await startWireServer(answer, {
    tls: options.tls,
    ...(options.port === undefined ? {} : { port: options.port }),
  });
  const find = (name: string) => {
    const key = keys.get(name);
    if (key === undefined) throw new Error(`no fake key ${name}`);
    return key;
  };
  const deleted = new Map<string, Key>();
  const vault: FakeAzureVault = {
    endpoint: server.url,
    host,
    server,
    tenant,
    client,
    assertion,
    lifetime: 3599,
    trustCertificate(pem) {
      const { fingerprint256, publicKey } = new X509Certificate(pem);
      const thumbprint = Buffer.from(fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
      certificates.set(thumbprint, publicKey);
    },
    apiVersions: ['7.1', '7.2', '7.3', '7.4'],
    createKey(name, keyOptions) {
      if (deleted.has(name)) throw new Error(`the fake key ${name} is deleted, and can be recovered`);
      const version = randomBytes(16).toString('hex');
      const versions = new Map([[version, createMaterial(keyOptions)]]);
      keys.set(name, { options: keyOptions, versions, newest: version, enabled: true, dates: {} });
    },
    deleteKey(name) {
      deleted.set(name, find(name));
      keys.delete(name);
    },
    recoverKey(name) {
      const key = deleted.get(name);
      if (key === undefined) throw new Error(`the fake key ${name} is not deleted`);
      keys.set(name, key);
      deleted.delete(name);
    },
    material(name) {
      const { newest, versions } = find(name);
      const material = versions.get(newest);
      if (material === undefined) throw new Error(`no fake key ${name}`);
      return { version: newest, material: 'secret' in material ? material.secret : material.privateKey };
    },
    rotate(name) {
      const key = find(name);
      key.newest = randomBytes(16).toString('hex');
      key.versions.set(key.newest, createMaterial(key.options));
    },
    setEnabled(name, enabled) {
      find(name).enabled = enabled;
    },
    setDates(name, dates) {
      find(name).dates = dates;
    },
    deny(...permissions) {
      for (const permission of permissions) denied.add(permission);
    },
    permit: () => denied.clear(),
    issue,
    revokeTokens: () => tokens.clear(),
    close: () => server.close(),
  };
  return vault;
}

function createMaterial({ type, bits }: KeyOptions): Material {
  if (type === 'oct-HSM') return { secret: randomBytes(32) };
  return { privateKey: generateKeyPairSync('rsa', { modulusLength: bits ?? 2048 }).privateKey };
}

function describe(kid: string, key: Key, material: Material): unknown {
  const jwk = 'secret' in material ? {} : createPublicKey(material.privateKey).export({ format: 'jwk' });
  const operations = key.options.operations ?? ['wrapKey', 'unwrapKey', 'encrypt', 'decrypt'];
  return {
    key: { kid, kty: key.options.type, key_ops: operations, ...('n' in jwk ? { n: jwk.n, e: jwk.e } : {}) },
    attributes: {
      enabled: key.enabled,
      ...(key.dates.from === undefined ? {} : { nbf: Math.floor(key.dates.from / 1000) }),
      ...(key.dates.until === undefined ? {} : { exp: Math.floor(key.dates.until / 1000) }),
      recoveryLevel: 'Recoverable',
    },
  };
}

type Message = ReadonlyMap<string, string>;

function operate(permission: Permission, material: Material, message: Message): Readonly<Record<string, string>> {
  const algorithm = message.get('alg');
  const value = readBytes(message, 'value');
  if ('privateKey' in material) {
    if (algorithm !== 'RSA-OAEP-256') throw new Refusal(400, 'BadParameter');
    const options = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const { privateKey: key } = material;
    const wraps = permission === 'wrapKey' || permission === 'encrypt';
    const use = () =>
      wraps
        ? publicEncrypt({ key: createPublicKey(key), ...options }, value)
        : privateDecrypt({ key, ...options }, value);
    return { value: attempt(use).toString('base64url') };
  }
  if (algorithm === 'A256KW' && permission !== 'encrypt' && permission !== 'decrypt') {
    return { value: attempt(() => keyWrap(material.secret, value, permission === 'wrapKey')).toString('base64url') };
  }
  if (algorithm !== 'A256GCM' || (permission !== 'encrypt' && permission !== 'decrypt'))
    throw new Refusal(400, 'BadParameter');
  const additional = readBytes(message, 'aad');
  if (permission === 'encrypt') {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', material.secret, iv, { authTagLength: 16 });
    cipher.setAAD(additional);
    const sealed = Buffer.concat([cipher.update(value), cipher.final()]);
    const parts = { value: sealed, iv, tag: cipher.getAuthTag(), aad: additional };
    return Object.fromEntries(Object.entries(parts).map(([name, bytes]) => [name, bytes.toString('base64url')]));
  }
  return {
    value: attempt(() => {
      const decipher = createDecipheriv('aes-256-gcm', material.secret, readBytes(message, 'iv'), {
        authTagLength: 16,
      });
      decipher.setAAD(additional);
      decipher.setAuthTag(readBytes(message, 'tag'));
      return Buffer.concat([decipher.update(value), decipher.final()]);
    }).toString('base64url'),
  };
}

/** RFC 3394, sections 2.2.1 and 2.2.2, by hand: not every runtime has this cipher. */
function keyWrap(secret: Buffer, input: Buffer, wraps: boolean): Buffer {
  const initial = Buffer.alloc(8, 0xa6);
  const [head, body] = wraps ? [initial, input] : [input.subarray(0, 8), input.subarray(8)];
  if (body.length % 8 !== 0 || body.length < 16) throw new Error('not multiples of eight bytes');
  const blocks = Array.from({ length: body.length / 8 }, (_, index) => body.subarray(index * 8, index * 8 + 8));
  let register = Buffer.from(head);
  for (let count = 0; count < 6 * blocks.length; count++) {
    const step = wraps ? count + 1 : 6 * blocks.length - count;
    const index = (step - 1) % blocks.length;
    const counted = wraps ? register : xorCounter(register, step);
    const whole = blockCipher(secret, Buffer.concat([counted, blocks[index] ?? initial]), wraps);
    register = wraps ? xorCounter(whole.subarray(0, 8), step) : whole.subarray(0, 8);
    blocks[index] = whole.subarray(8);
  }
  if (!wraps && !register.equals(initial)) throw new Error('integrity');
  return wraps ? Buffer.concat([register, ...blocks]) : Buffer.concat(blocks);
}

function xorCounter(register: Buffer, step: number): Buffer<ArrayBuffer> {
  const result = Buffer.from(register);
  result.writeUInt32BE((result.readUInt32BE(4) ^ step) >>> 0, 4);
  return result;
}

function blockCipher(secret: Buffer, block: Buffer, encrypts: boolean): Buffer<ArrayBuffer> {
  const cipher = encrypts ? createCipheriv('aes-256-ecb', secret, null) : createDecipheriv('aes-256-ecb', secret, null);
  cipher.setAutoPadding(false);
  return Buffer.concat([cipher.update(block), cipher.final()]);
}

function attempt(work: () => Buffer): Buffer {
  try {
    return work();
  } catch {
    throw new Refusal(400, 'BadParameter');
  }
}

const MEMBERS = new Set(['alg', 'value', 'iv', 'tag', 'aad']);

function parseMessage(body: Uint8Array): Message {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString());
  } catch {}
  if (typeof json !== 'object' || json === null) throw new Refusal(400, 'BadParameter');
  const message = new Map<string, string>();
  for (const [name, value] of Object.entries(json)) {
    if (!MEMBERS.has(name) || typeof value !== 'string') throw new Refusal(400, 'BadParameter');
    message.set(name, value);
  }
  return message;
}

function readBytes(message: Message, name: string): Buffer {
  const value = message.get(name) ?? '';
  if (!/^[A-Za-z0-9_-]*$/.test(value)) throw new Refusal(400, 'BadParameter');
  return Buffer.from(value, 'base64url');
}
