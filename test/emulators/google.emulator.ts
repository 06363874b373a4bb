// Google's own clients, credentials library and definitions of messages at the fake Google, beside ours. Needs Python and npm.
import assert from 'node:assert/strict';
import { constants, publicEncrypt, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { crc32c } from '../../src/kms/gcpkms/crc32c.ts';
import { openGcpKms } from '../../src/kms/gcpkms/key.ts';
import { contextBytes, type Kek } from '../../src/kms/kek.ts';
import { GoogleIdentities, type ServiceAccountFile } from '../fakes/google-identities.ts';
import { type FakeGoogleKms, startFakeGoogleKms } from '../fakes/google-kms.ts';
import { VERSION_STATES } from '../fakes/google-kms-keys.ts';
import { type FakeGoogleTokens, GOOGLE_NAMES, startFakeGoogleTokens } from '../fakes/google-tokens.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { soon } from '../kms/expect.ts';
import { bytesOf, startVendorClient, textOf, type VendorClient } from '../peers/vendors.ts';

const RING = 'projects/test-project/locations/global/keyRings/ring';
const KEY = `${RING}/cryptoKeys/key`;
const RSA = `${RING}/cryptoKeys/rsa`;
const TARGET = 'target@test-project.iam.gserviceaccount.com';
const CONTEXT = { 'ocicrypt-kms': 'v2', 'label.naïve': 'ü"' };

/** What was asked and answered, as it went over the wire. */
type Exchange = { readonly verb: string; readonly target: string; readonly body: string; readonly answer: string };

let directory: string;
let ca: string;
let account: ServiceAccountFile;
let adc: string;
let kms: FakeGoogleKms;
let tokens: FakeGoogleTokens;
let google: VendorClient;
let node: VendorClient;
let files = 0;
const exchanges: (Exchange & { readonly isOurs: boolean })[] = [];
const opened: Kek[] = [];
const identities = new GoogleIdentities();

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'google-'));
  const authority = await createCertificateAuthority(directory);
  ca = authority.certificate;
  account = identities.createServiceAccount('source');
  adc = await write(account);
  const tls = await authority.issue('google', { names: [...GOOGLE_NAMES, '127.0.0.1'] });
  kms = await startFakeGoogleKms(identities, { tls });
  tokens = await startFakeGoogleTokens(identities, tls);
  tokens.routes.set('cloudkms.googleapis.com:443', kms.server.port);
  kms.server.setFault(({ method, path, headers, body }) => ({
    kind: 'body',
    change(answer) {
      const isOurs = headers['x-goog-api-client'] === undefined;
      exchanges.push({ isOurs, verb: method, target: path, body: Buffer.from(body).toString(), answer });
      return answer;
    },
  }));
  google = await startVendorClient('google', {
    HTTPS_PROXY: tokens.proxy,
    REQUESTS_CA_BUNDLE: ca,
    GCE_METADATA_HOST: tokens.metadataHost,
  });
  await google.ask('open', { file: adc });
  node = await startVendorClient('google-node', { HTTPS_PROXY: tokens.proxy, NODE_EXTRA_CA_CERTS: ca });
  await node.ask('open', { file: adc, port: kms.server.port });
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await Promise.all([google.close(), node.close(), kms.close(), tokens.close()]);
  await rm(directory, { recursive: true, force: true });
});

async function write(json: object): Promise<string> {
  const path = join(directory, `credentials-${files++}.json`);
  await writeFile(path, JSON.stringify(json), { mode: 0o600 });
  return path;
}

function open(name: string): Kek {
  const uri = parseKeyUri(`gcpkms://${name}`);
  assert.ok(uri.scheme === 'gcpkms');
  const kek = openGcpKms(uri, {
    credentialsFile: adc,
    caFiles: [ca],
    environment: { HTTPS_PROXY: tokens.proxy },
  });
  opened.push(kek);
  return kek;
}

/** A field as Google's messages have it, with its checksum by our own reckoning. */
function checked(name: string, bytes: Uint8Array) {
  return { [name]: Buffer.from(bytes).toString('base64'), [`${name}Crc32c`]: String(crc32c(bytes)) };
}

const call = (rpc: string, request: object) => google.ask('call', { rpc, request });

describe("Google's client and ours, at one fake", () => {
  test('know the same checksums', async () => {
    for (const length of [0, 1, 32, 4099]) {
      const bytes = randomBytes(length);
      assert.equal(await google.ask('crc32c', { data: bytes.toString('base64') }), String(crc32c(bytes)));
    }
  });

  test('unwrap what the other has wrapped with a symmetric key, with its additional data', async () => {
    kms.createKey(KEY);
    kms.rotate(KEY);
    const kek = open(KEY);
    const additional = checked('additionalAuthenticatedData', contextBytes(CONTEXT));
    for (const length of [1, 32, 4096]) {
      const plaintext = randomBytes(length);
      const { wrapped } = await kek.wrap(plaintext, CONTEXT, soon());
      const theirs = await call('Decrypt', { name: KEY, ...checked('ciphertext', wrapped), ...additional });
      assert.deepEqual(bytesOf(theirs, 'plaintext'), plaintext);
      assert.equal(textOf(theirs, 'plaintextCrc32c'), String(crc32c(plaintext)));

      const answer = await call('Encrypt', { name: KEY, ...checked('plaintext', plaintext), ...additional });
      assert.equal(textOf(answer, 'name'), `${KEY}/cryptoKeyVersions/2`);
      const packet = { key: KEY, algorithm: '', wrapped: bytesOf(answer, 'ciphertext') };
      assert.equal(textOf(answer, 'ciphertextCrc32c'), String(crc32c(packet.wrapped)));
      assert.deepEqual(Buffer.from(await kek.unwrap(packet, CONTEXT, soon())), plaintext);
      await assert.rejects(kek.unwrap(packet, {}, soon()), { code: 'integrity' });
      await assert.rejects(call('Decrypt', { name: KEY, ...checked('ciphertext', wrapped) }), {
        name: 'BadRequest',
      });
    }
  });

  test('see the same versions, and unwrap what the other has wrapped with an RSA key', async () => {
    kms.createAsymmetricKey(RSA, 'RSA_DECRYPT_OAEP_3072_SHA256');
    kms.rotate(RSA);
    kms.rotate(RSA);
    kms.setState(RSA, 3, 'DISABLED');
    const listed = await call('ListCryptoKeyVersions', { parent: RSA, filter: 'state=ENABLED', pageSize: 100 });
    assert.ok(Array.isArray(listed));
    assert.deepEqual(
      listed.map((version) => textOf(version, 'name')),
      [1, 2].map((number) => `${RSA}/cryptoKeyVersions/${number}`),
    );
    const kek = open(RSA);
    const plaintext = randomBytes(32);
    const ours = await kek.wrap(plaintext, {}, soon());
    assert.equal(ours.version, '2');
    const name = `${RSA}/cryptoKeyVersions/2`;
    const theirs = await call('AsymmetricDecrypt', { name, ...checked('ciphertext', ours.wrapped) });
    assert.deepEqual(bytesOf(theirs, 'plaintext'), plaintext);

    const answer = await call('GetPublicKey', { name });
    assert.equal(textOf(answer, 'algorithm'), ours.algorithm);
    assert.equal(textOf(answer, 'pemCrc32c'), String(crc32c(Buffer.from(textOf(answer, 'pem')))));
    const wrapped = publicEncrypt(
      { key: textOf(answer, 'pem'), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
      plaintext,
    );
    assert.deepEqual(Buffer.from(await kek.unwrap({ ...ours, wrapped }, {}, soon())), plaintext);
  });

  test('are refused alike', async () => {
    const other = `${RING}/cryptoKeys/other`;
    kms.createKey(other);
    const { wrapped } = await open(KEY).wrap(randomBytes(32), {}, soon());
    const [packet, request] = [{ key: KEY, algorithm: '', wrapped }, checked('ciphertext', wrapped)];
    const both = async (name: string, ours: object, theirs: object) => {
      await assert.rejects(open(name).unwrap(packet, {}, soon()), ours);
      await assert.rejects(call('Decrypt', { name, ...request }), theirs);
    };
    await both(other, { code: 'integrity' }, { name: 'BadRequest', message: /Decryption failed/ });
    await both(`${RING}/cryptoKeys/missing`, { code: 'not-found' }, { name: 'NotFound', code: 404 });
    kms.deny(account.client_email, 'decrypt');
    const denied = { name: 'Forbidden', code: 403, reason: 'IAM_PERMISSION_DENIED' };
    await both(KEY, { code: 'refused' }, denied);
    kms.permit(account.client_email);
    const damaged = { ...request, ciphertextCrc32c: '1' };
    await assert.rejects(call('Decrypt', { name: KEY, ...damaged }), { name: 'BadRequest' });
  });

  test('find a key in every state that Google has', async () => {
    assert.deepEqual(await google.ask('states', {}), [...VERSION_STATES].sort());
    const name = `${RING}/cryptoKeys/states`;
    kms.createKey(name);
    const kek = open(name);
    const packet = await kek.wrap(randomBytes(32), {}, soon());
    const request = { name, ...checked('ciphertext', packet.wrapped) };
    for (const state of VERSION_STATES) {
      kms.setState(name, 1, state);
      if (state === 'ENABLED') {
        await call('Decrypt', request);
        await kek.unwrap(packet, {}, soon());
      } else {
        await assert.rejects(call('Decrypt', request), {
          name: 'BadRequest',
          message: new RegExp(`current state is: ${state}`),
        });
        await assert.rejects(kek.unwrap(packet, {}, soon()), { code: /^(key-disabled|unavailable)$/ });
      }
    }
  });

  test("and Google's client for Node unwraps what ours has wrapped, and the other way round", async () => {
    const name = `${RING}/cryptoKeys/node`;
    kms.createKey(name);
    const kek = open(name);
    const additional = checked('additionalAuthenticatedData', contextBytes(CONTEXT));
    const plaintext = randomBytes(32);
    const { wrapped } = await kek.wrap(plaintext, CONTEXT, soon());
    const request = { name, ...checked('ciphertext', wrapped) };
    const theirs = await node.ask('call', { rpc: 'decrypt', request: { ...request, ...additional } });
    assert.deepEqual(bytesOf(theirs, 'plaintext'), plaintext);
    assert.equal(textOf(theirs, 'plaintextCrc32c'), String(crc32c(plaintext)));
    const refused = (altered: object, error: object) =>
      assert.rejects(node.ask('call', { rpc: 'decrypt', request: { ...request, ...additional, ...altered } }), error);
    await refused(checked('additionalAuthenticatedData', contextBytes({})), { code: 3, message: /Decryption failed/ });
    await refused({ ciphertextCrc32c: '1' }, { code: 3 });

    const answer = await node.ask('call', {
      rpc: 'encrypt',
      request: { name, ...checked('plaintext', plaintext), ...additional },
    });
    const packet = { key: name, algorithm: '', wrapped: bytesOf(answer, 'ciphertext') };
    assert.equal(textOf(answer, 'ciphertextCrc32c'), String(crc32c(packet.wrapped)));
    assert.deepEqual(Buffer.from(await kek.unwrap(packet, CONTEXT, soon())), plaintext);
    await assert.rejects(kek.unwrap(packet, {}, soon()), { code: 'integrity' });

    kms.setState(name, 1, 'DISABLED');
    await refused({}, { code: 9, message: /current state is: DISABLED/ });
    await assert.rejects(kek.unwrap(packet, CONTEXT, soon()), { code: 'key-disabled' });
    kms.deleteKey(name);
    await refused({}, { code: 5 });
    await assert.rejects(kek.unwrap(packet, CONTEXT, soon()), { code: 'not-found' });
  });

  test('speak by the same definitions: whatever either has sent and got is read strictly', async () => {
    const ours = new Set<unknown>();
    for (const { isOurs, ...exchange } of exchanges) {
      const name = await google.ask('parse', exchange);
      if (isOurs) ours.add(name);
    }
    const all = ['AsymmetricDecrypt', 'Decrypt', 'Encrypt', 'GetPublicKey', 'ListCryptoKeyVersions'];
    assert.deepEqual([...ours].sort(), all);
    const encrypted = exchanges.find(({ target }) => target.includes(':encrypt'));
    assert.ok(encrypted !== undefined);
    const { isOurs, ...exchange } = encrypted;
    for (const member of ['body', 'answer'] as const) {
      const more = exchange[member].replace('{', '{"more":"1",');
      await assert.rejects(google.ask('parse', { ...exchange, [member]: more }), { name: 'ParseError' });
    }
  });
});

describe("Google's library of credentials takes a token from the fake", () => {
  const user = { type: 'authorized_user', client_id: 'i', client_secret: 's', refresh_token: 'refresh' };
  const federated = (source: object, more: object = {}) => ({
    type: 'external_account',
    audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    token_url: 'https://sts.googleapis.com/v1/token',
    credential_source: source,
    ...more,
  });
  const impersonated = {
    service_account_impersonation_url: `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${TARGET}:generateAccessToken`,
  };
  before(() => {
    kms.createKey(KEY);
    tokens.world.refreshTokens.set('refresh', 'user@test');
    tokens.world.subjectTokens.set('subject', 'workload');
    for (const source of ['user@test', 'workload']) tokens.world.impersonations.add(`${source} ${TARGET}`);
  });

  /** With whose token the client then asks the key service. */
  async function opens(file: string | null): Promise<string | undefined> {
    const token = await google.ask('open', { file });
    await call('Encrypt', { name: KEY, ...checked('plaintext', randomBytes(32)) });
    return identities.identify(`Bearer ${token}`);
  }

  test('for a service account, a user, and by impersonation', async () => {
    assert.equal(await opens(adc), account.client_email);
    assert.equal(await opens(await write(user)), 'user@test');
    const target = { type: 'impersonated_service_account', ...impersonated, source_credentials: user };
    assert.equal(await opens(await write(target)), TARGET);
    tokens.world.refreshTokens.clear();
    await assert.rejects(opens(await write(user)), { name: 'RefreshError', message: /invalid_grant/ });
  });

  test('by federation, with and without impersonation', async () => {
    const file = join(directory, 'subject');
    await writeFile(file, 'subject');
    assert.equal(await opens(await write(federated({ file }))), 'workload');
    assert.equal(await opens(await write(federated({ file }, impersonated))), TARGET);
  });

  test('from the metadata server', async () => {
    tokens.world.machine = 'machine@test';
    assert.equal(await opens(null), 'machine@test');
    tokens.world.machine = undefined;
    await assert.rejects(opens(null), { name: 'RefreshError' });
  });
});
