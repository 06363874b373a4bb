/**
 * One set of keys for two providers: the product with its real back ends against the fakes of every service, and the
 * second one, which plays the same services with the same secrets.
 */
import { createCipheriv, createDecipheriv, createHash, KeyObject, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri, type KeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import { cannotBeUnwrapped, contextBytes, type Kek } from '../../src/kms/kek.ts';
import { openKek } from '../../src/kms/open.ts';
import { createKekStore } from '../../src/kms/store.ts';
import { createProvider } from '../../src/provider/handle.ts';
import { type AllowRule, parseAllowRule } from '../../src/provider/policy.ts';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { GoogleIdentities } from '../fakes/google-identities.ts';
import { startFakeGoogleKms } from '../fakes/google-kms.ts';
import { startFakeVault } from '../fakes/vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { type Second, type SecondAnswer, type SecondService, startSecond } from '../peers/second.ts';

/** A vector's set-up with paths in place of names, and whether it is a server's. */
export type WorldSetup = {
  readonly command?: 'kms_oci_crypt';
  readonly server?: boolean;
  readonly keys?: readonly string[];
  readonly allow?: readonly string[];
  readonly kmsURI?: string;
  readonly provider?: string;
  readonly packet?: 'v1' | 'v2' | 'coco-v2';
  readonly context?: Readonly<Record<string, string>>;
  readonly 'kbs-key'?: Readonly<Record<string, string>>;
};

export type World = {
  readonly second: Second;
  /** Canonical names of the keys, without versions, by what they are; `versions` has those that a key may be named with. */
  readonly keys: readonly string[];
  readonly versions: ReadonlyMap<string, string>;
  readonly aliases: readonly string[];
  readonly files: Readonly<
    Record<'directory' | 'identity' | 'missing' | 'one' | 'printable' | 'readable' | 'short' | 'three' | 'two', string>
  >;
  /** Recipients of age: those of the identity file, and {@link stranger}, whose identity is nowhere. */
  readonly recipients: readonly string[];
  readonly stranger: string;
  /** All keys there are, for whoever opens or forges. */
  readonly everything: WorldSetup;
  /** Packets of other programs for a record: with a key of the broker, and with an AWS key. */
  readonly foreign: (record: Uint8Array) => Promise<readonly Buffer[]>;
  readonly askProduct: (setup: WorldSetup, request: Uint8Array) => Promise<SecondAnswer>;
  readonly askSecond: (setup: WorldSetup, request: Uint8Array) => Promise<SecondAnswer>;
  readonly close: () => Promise<void>;
};

const RING = 'projects/p-1/locations/global/keyRings/ring/cryptoKeys';
const AZURE = 'testhsm.managedhsm.azure.net';
export const BROKER_KEY = 'kbs:///default/key/one';
export const TOKEN_KEY = 'pkcs11:object=layers;token=images';

export async function startWorld(): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'ocicrypt-second-'));
  const authority = await createCertificateAuthority(directory);
  const tls = await authority.issue('server');
  const identities = new GoogleIdentities();
  const credentialsFile = join(directory, 'adc.json');
  await writeFile(credentialsFile, JSON.stringify(identities.createServiceAccount('both')), { mode: 0o600 });
  const google = await startFakeGoogleKms(identities, { tls });
  const aws = await startFakeAwsKms({ tls });
  const azure = await startFakeAzureVault({ tls, host: AZURE });
  const vault = await startFakeVault({ tls });
  const caFiles = [authority.certificate];
  const settings = {
    gcpkms: { credentialsFile, endpoint: google.endpoint, caFiles, environment: {} },
    awskms: {
      endpoint: aws.endpoint,
      caFiles,
      region: 'eu-west-1',
      environment: {
        HOME: directory,
        AWS_ACCESS_KEY_ID: aws.accessKey.id,
        AWS_SECRET_ACCESS_KEY: aws.accessKey.secret,
        AWS_EC2_METADATA_DISABLED: 'true',
      },
    },
    azurekms: {
      endpoint: azure.endpoint,
      caFiles,
      environment: {
        AZURE_TENANT_ID: azure.tenant,
        AZURE_CLIENT_ID: azure.client.id,
        AZURE_CLIENT_SECRET: azure.client.secret,
        AZURE_AUTHORITY_HOST: azure.endpoint,
      },
    },
    hashivault: {
      environment: {
        VAULT_ADDR: vault.address,
        VAULT_TOKEN: vault.createToken({
          'transit/*': ['create', 'update', 'read'],
          'kms/*': ['create', 'update', 'read'],
        }),
        VAULT_CACERT: authority.certificate,
      },
    },
  };
  const services: SecondService[] = [];

  for (const name of ['one', 'two']) {
    const [id, secret] = [randomBytes(8), randomBytes(32)];
    google.createKey(`${RING}/${name}`, { id, secret });
    const head = base64(Buffer.concat([Buffer.of(0x0a), id]));
    const key = `gcpkms://${RING}/${name}`;
    services.push({ key, algorithm: 'GOOGLE_SYMMETRIC_ENCRYPTION', version: '1', head, secret: base64(secret) });
  }
  for (const hash of ['SHA1', 'SHA256', 'SHA512']) {
    const algorithm = `RSA_DECRYPT_OAEP_2048_${hash}`;
    const name = `${RING}/rsa-${hash}`;
    google.createAsymmetricKey(name, algorithm);
    services.push({ key: `gcpkms://${name}`, algorithm, version: '1', ...material(google.privateKey(name)) });
  }
  const [symmetric, other, rsa] = [aws.createKey(), aws.createKey(), aws.createKey({ rsa: 2048 })];
  for (const arn of [symmetric, other, rsa]) {
    const algorithm = arn === rsa ? 'RSAES_OAEP_SHA_256' : 'SYMMETRIC_DEFAULT';
    const fingerprint = createHash('sha256').update(arn.replace(/^.*\//, '')).digest().subarray(0, 16);
    const head = arn === rsa ? '' : base64(Buffer.concat([fingerprint, Buffer.alloc(2)]));
    const key = `awskms:///${arn}`;
    const service = { algorithm, head, answer: key, ...material(aws.material(arn)) };
    const alias = `alias/${arn === rsa ? 'rsa' : arn === symmetric ? 'images' : 'others'}`;
    aws.createAlias(alias, arn);
    services.push({ key, ...service }, { key: `awskms:///${alias}`, ...service });
    services.push({ key: key.replace(/key\/.*$/, alias), ...service });
  }
  for (const [name, algorithm, options] of [
    ['rsa', 'RSA-OAEP-256', { type: 'RSA' }],
    ['gcm', 'A256GCM', { type: 'oct-HSM' }],
    ['kw', 'A256KW', { type: 'oct-HSM', operations: ['wrapKey', 'unwrapKey'] }],
  ] as const) {
    azure.createKey(name, options);
    const { version, material: made } = azure.material(name);
    services.push({ key: `azurekms://${AZURE}/${name}`, algorithm, version, ...material(made) });
  }
  for (const [path, key, algorithm] of [
    ['transit/images', 'hashivault://images', 'transit-aead'],
    ['kms/images', 'hashivault://images?engine=kms', 'transit-aead'],
    ['transit/rsa', 'hashivault://rsa', 'transit-rsa-oaep'],
  ] as const) {
    vault.createKey(path, algorithm === 'transit-aead' ? 'aes256-gcm96' : 'rsa-2048');
    services.push({ key, algorithm, version: '1', ...material(vault.material(path)) });
  }
  const tokenSecret = randomBytes(32);
  services.push({ key: TOKEN_KEY, algorithm: 'AES-GCM', answer: TOKEN_KEY, secret: base64(tokenSecret) });

  const ageIdentities = [await generateX25519Identity(), await generateX25519Identity()];
  const path = (name: string) => join(directory, name);
  const write = async (name: string, bytes: Uint8Array | string, mode = 0o600) => {
    await writeFile(path(name), bytes, { mode });
    return path(name);
  };
  const files = {
    one: await write('one', randomBytes(32)),
    two: await write('two', randomBytes(32)),
    three: await write('three', randomBytes(32)),
    short: await write('short', randomBytes(31)),
    printable: await write('printable', '0123456789abcdef0123456789abcdef'),
    readable: await write('readable', randomBytes(32), 0o644),
    identity: await write('identity', `# made by hand\n\n${ageIdentities.join('\n')}\n`),
    missing: path('missing'),
    directory,
  };

  const stranger = await identityToRecipient(await generateX25519Identity());
  const recipients = [...(await Promise.all(ageIdentities.map((one) => identityToRecipient(one)))), stranger];
  const second = await startSecond();
  await second.ask({ services });
  const store = createKekStore(settings);
  const open = (uri: KeyUri, setup: WorldSetup): Promise<Kek> | Kek => {
    if (uri.scheme === 'pkcs11') return tokenKey(uri, tokenSecret);
    if (!['age', 'kbs', 'keyfile'].includes(uri.scheme)) return store.open(uri);
    const kbs = { files: new Map(Object.entries(setup['kbs-key'] ?? {})) };
    return openKek(uri, { age: { identityFiles: setup.keys ?? [] }, kbs });
  };
  const foreign = async (record: Uint8Array): Promise<readonly Buffer[]> => {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', await readFile(files.one), iv, { authTagLength: 16 });
    const sealed = Buffer.concat([cipher.update(record), cipher.final(), cipher.getAuthTag()]);
    const kek = await store.open(parseKeyUri(symmetric));
    const { wrapped } = await kek.wrap(record, {}, AbortSignal.timeout(10_000));
    return [
      { kid: BROKER_KEY, wrapped_data: base64(sealed), iv: base64(iv), wrap_type: 'A256GCM' },
      { key_url: symmetric, wrapped_key: base64(wrapped) },
    ].map((members) => Buffer.from(JSON.stringify(members)));
  };
  const keys = services.filter(({ key }) => !key.includes('alias/')).map(({ key }) => key);
  return {
    second,
    everything: {
      server: true,
      allow: keys,
      keys: [files.one, files.two, files.three, files.identity],
      'kbs-key': { [BROKER_KEY]: files.one },
    },
    foreign,
    keys,
    versions: new Map(services.flatMap(({ key, version }) => (version === undefined ? [] : [[key, version]]))),
    aliases: services.filter(({ key }) => key.includes('alias/')).map(({ key }) => key),
    files,
    recipients,
    stranger,
    async askProduct(setup, request) {
      try {
        const reply = await productOf(setup, async (uri) => open(uri, setup)).handle(request);
        return { code: 'ok', reply: Buffer.from(reply).toString() };
      } catch (error) {
        return { code: asOcicryptError(error).code };
      }
    },
    askSecond: (setup, request) => second.ask({ setup, request: base64(request) }),
    async close() {
      await Promise.all([second.stop(), store.close()]);
      await Promise.all([google, aws, azure, vault].map((fake) => 'close' in fake && fake.close()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The product as the command or the server makes it of such options. */
function productOf(setup: WorldSetup, open: (uri: KeyUri) => Promise<Kek>) {
  const files = (setup.keys ?? []).map((path) => `keyfile://${path}`);
  const kmsURI = setup.kmsURI === undefined ? [] : [setup.kmsURI];
  const reference = setup.command === 'kms_oci_crypt';
  return createProvider({
    openKek: open,
    rules: [...(setup.allow ?? []), ...kmsURI, ...files, ...Object.keys(setup['kbs-key'] ?? {})].map(parseRule),
    callerKeysAllowed: setup.server !== true,
    names: { configured: setup.provider, fallback: setup.server === true ? 'grpc-keyprovider' : 'kmscrypt' },
    packet: setup.packet ?? (reference ? 'reference' : 'v2'),
    versions: reference ? 'ignored' : 'exact',
    ...(setup.context === undefined ? {} : { labels: setup.context }),
    ...(setup.kmsURI === undefined ? {} : { defaultKey: parseKeyUri(setup.kmsURI) }),
  });
}

function parseRule(text: string): AllowRule {
  try {
    return parseAllowRule(text);
  } catch (error) {
    throw error instanceof OcicryptError ? new OcicryptError('configuration', error.message) : error;
  }
}

/** An AES key in a token, without the token. */
function tokenKey(uri: KeyUri, secret: Uint8Array): Kek {
  const key = formatKeyUri(uri);
  return {
    local: true,
    key,
    async wrap(plaintext, context) {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', secret, nonce, { authTagLength: 16 }).setAAD(contextBytes(context));
      const wrapped = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
      return { key, algorithm: 'AES-GCM', wrapped };
    },
    async unwrap({ algorithm, wrapped }, context) {
      try {
        if (algorithm !== 'AES-GCM') throw new Error('another algorithm');
        const bytes = Buffer.from(wrapped);
        const decipher = createDecipheriv('aes-256-gcm', secret, bytes.subarray(0, 12), { authTagLength: 16 });
        decipher.setAAD(contextBytes(context)).setAuthTag(bytes.subarray(-16));
        return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
      } catch {
        throw cannotBeUnwrapped(key);
      }
    },
  };
}

function material(made: Uint8Array | KeyObject): Pick<SecondService, 'rsa' | 'secret'> {
  if (made instanceof KeyObject) return { rsa: made.export({ format: 'jwk' }) };
  return { secret: base64(made) };
}

export function base64(bytes: Uint8Array | string): string {
  return Buffer.from(bytes).toString('base64');
}
