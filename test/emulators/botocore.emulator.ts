// Botocore's client, chain of credentials and model of messages at the fake AWS KMS, beside ours. Needs Python.
import assert from 'node:assert/strict';
import { constants, createPublicKey, publicEncrypt, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAwsKms } from '../../src/kms/awskms/key.ts';
import type { Kek } from '../../src/kms/kek.ts';
import {
  type AwsWorld,
  processOutput,
  ROLE,
  SSO_CONFIG,
  ssoCache,
  ssoSession,
  startAwsWorld,
  WEB_IDENTITY,
} from '../kms/awskms/world.ts';
import { soon } from '../kms/expect.ts';
import { bytesOf, startVendorClient, textOf, type VendorClient } from '../peers/vendors.ts';

const CONTEXT = { 'ocicrypt-kms': 'v2', 'label.naïve': 'ü"' };

let world: AwsWorld;
let boto: VendorClient;
let common: Readonly<Record<string, string>>;
let own: Readonly<Record<string, string>>;
const opened: Kek[] = [];
const exchanges: object[] = [];
const operations = new Set<string>();

before(async () => {
  world = await startAwsWorld();
  const { kms, directory, sts } = world;
  kms.server.setFault(({ method, path, headers, body }) => ({
    kind: 'body',
    change(answer) {
      const exchange = { verb: method, target: path, headers, body: JSON.parse(Buffer.from(body).toString()) };
      exchanges.push({ ...exchange, answer: JSON.parse(answer) });
      if (headers['user-agent']?.includes('Botocore') !== true) operations.add(headers['x-amz-target'] ?? '');
      return answer;
    },
  }));
  boto = await startVendorClient('aws', { HOME: directory });
  common = {
    AWS_CA_BUNDLE: join(directory, 'ca.crt'),
    AWS_DEFAULT_REGION: 'eu-west-1',
    AWS_ENDPOINT_URL_STS: sts.url,
    AWS_ENDPOINT_URL_SSO: sts.url,
    AWS_EC2_METADATA_DISABLED: 'true',
  };
  own = { AWS_ACCESS_KEY_ID: kms.accessKey.id, AWS_SECRET_ACCESS_KEY: kms.accessKey.secret };
  assert.equal(await connect(own), 'env');
});
after(async () => {
  for (const kek of opened) kek.close?.();
  await boto.close();
  await world.close();
});

const connect = (environment: Readonly<Record<string, string>>) =>
  boto.ask('open', { endpoint: world.kms.endpoint, environment: { ...common, ...environment } });
const call = (operation: string, request: object) => boto.ask('call', { operation, request });
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

function open(arn: string): Kek {
  const uri = parseKeyUri(arn);
  assert.ok(uri.scheme === 'awskms');
  const caFiles = [join(world.directory, 'ca.crt')];
  const kek = openAwsKms(uri, { endpoint: world.kms.endpoint, caFiles, environment: own });
  opened.push(kek);
  return kek;
}

describe("Botocore's client and ours, at one fake", () => {
  test('unwrap what the other has wrapped, with its encryption context', async () => {
    const { kms } = world;
    const arn = kms.createKey();
    kms.createAlias('alias/images', arn);
    const kek = open(arn);
    for (const length of [1, 32, 4096]) {
      const plaintext = randomBytes(length);
      const ours = await kek.wrap(plaintext, CONTEXT, soon());
      const request = { KeyId: arn, CiphertextBlob: base64(ours.wrapped) };
      const theirs = await call('Decrypt', { ...request, EncryptionContext: CONTEXT });
      assert.deepEqual(bytesOf(theirs, 'Plaintext'), plaintext);
      await assert.rejects(call('Decrypt', request), { name: 'InvalidCiphertextException' });

      for (const KeyId of [arn, arn.slice(-36), 'alias/images']) {
        const answer = await call('Encrypt', { KeyId, Plaintext: base64(plaintext), EncryptionContext: CONTEXT });
        assert.equal(textOf(answer, 'KeyId'), arn);
        const packet = { key: `awskms:///${arn}`, algorithm: '', wrapped: bytesOf(answer, 'CiphertextBlob') };
        assert.deepEqual(Buffer.from(await kek.unwrap(packet, CONTEXT, soon())), plaintext);
        await assert.rejects(kek.unwrap(packet, {}, soon()), { code: 'integrity' });
      }
      kms.rotate(arn);
    }
  });

  test('unwrap what the other has wrapped with an RSA key, and with a replica', async () => {
    const { kms } = world;
    const arn = kms.createKey({ rsa: 2048 });
    const kek = open(arn);
    const plaintext = randomBytes(32);
    const ours = await kek.wrap(plaintext, {}, soon());
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256';
    const theirs = await call('Decrypt', { KeyId: arn, CiphertextBlob: base64(ours.wrapped), EncryptionAlgorithm });
    assert.deepEqual(bytesOf(theirs, 'Plaintext'), plaintext);
    const key = createPublicKey({
      key: bytesOf(await call('GetPublicKey', { KeyId: arn }), 'PublicKey'),
      format: 'der',
      type: 'spki',
    });
    const oaep = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const wrapped = publicEncrypt(oaep, plaintext);
    assert.deepEqual(Buffer.from(await kek.unwrap({ ...ours, wrapped }, {}, soon())), plaintext);
    const encrypted = await call('Encrypt', { KeyId: arn, Plaintext: base64(plaintext), EncryptionAlgorithm });
    const packet = { ...ours, wrapped: bytesOf(encrypted, 'CiphertextBlob') };
    assert.deepEqual(Buffer.from(await kek.unwrap(packet, {}, soon())), plaintext);

    const first = kms.createKey({ region: 'us-east-1', multiRegion: true });
    const replica = kms.replicate(first, 'eu-west-1');
    const answer = await call('Encrypt', { KeyId: replica, Plaintext: base64(plaintext) });
    const there = { key: `awskms:///${replica}`, algorithm: '', wrapped: bytesOf(answer, 'CiphertextBlob') };
    assert.deepEqual(Buffer.from(await open(first).unwrap(there, {}, soon())), plaintext);
  });

  test('are refused alike', async () => {
    const { kms } = world;
    const [arn, other] = [kms.createKey(), kms.createKey()];
    const packet = await open(arn).wrap(randomBytes(32), {}, soon());
    const both = async (key: string, code: string, name: string) => {
      await assert.rejects(open(key).unwrap(packet, {}, soon()), { code });
      const message = { KeyId: key, CiphertextBlob: base64(packet.wrapped) };
      const error = await call('Decrypt', message).then(
        () => assert.fail('it succeeded'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof Error);
      assert.match(`${error.name} ${error.message}`, new RegExp(`\\b${name}\\b`));
    };
    await both(other, 'integrity', 'IncorrectKeyException');
    await both(arn.replace(/[^/]*$/, '11111111-2222-3333-4444-555555555555'), 'not-found', 'NotFoundException');
    kms.setState(arn, 'Disabled');
    await both(arn, 'key-disabled', 'DisabledException');
    kms.setState(arn, 'PendingDeletion');
    await both(arn, 'key-disabled', 'KMSInvalidStateException');
    kms.setState(arn, 'Enabled');
    kms.deny('Decrypt');
    await both(arn, 'refused', 'AccessDeniedException');
    kms.permit();
    await connect({ ...own, AWS_SECRET_ACCESS_KEY: 'another' });
    const request = { KeyId: arn, Plaintext: 'AA==' };
    await assert.rejects(call('Encrypt', request), { message: /InvalidSignatureException/ });
    await connect(own);
    await call('Encrypt', request);
  });

  test('speak by the same model: whatever either has sent and got is read strictly', async () => {
    for (const exchange of exchanges) await boto.ask('parse', exchange);
    assert.deepEqual([...operations].sort(), [
      'TrentService.Decrypt',
      'TrentService.Encrypt',
      'TrentService.GetPublicKey',
    ]);
    const headers = { 'x-amz-target': 'TrentService.Encrypt', 'content-type': 'application/x-amz-json-1.1' };
    const exchange = { verb: 'POST', target: '/', headers, body: { KeyId: 'k', Plaintext: 'AA==' }, answer: {} };
    await boto.ask('parse', exchange);
    await assert.rejects(boto.ask('parse', { ...exchange, body: { KeyId: 'k' } }), { name: 'ValueError' });
    await assert.rejects(boto.ask('parse', { ...exchange, answer: { More: '' } }), { name: 'KeyError' });
  });
});

describe("Botocore's chain finds credentials at the fakes", () => {
  /** By what it is and how botocore calls it: the variables that lead to it, and files of the home directory. */
  type Source = {
    readonly method: string;
    readonly environment: (metadata: string) => Readonly<Record<string, string>>;
    readonly files?: () => Readonly<Record<string, string>>;
  };
  const sources: Readonly<Record<string, Source>> = {
    'the machine': {
      method: 'iam-role',
      environment: (url) => ({ AWS_EC2_METADATA_DISABLED: 'false', AWS_EC2_METADATA_SERVICE_ENDPOINT: url }),
    },
    'the container': {
      method: 'container-role',
      environment: (url) => ({
        AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/container`,
        AWS_CONTAINER_AUTHORIZATION_TOKEN: 'pod',
      }),
    },
    'a web identity': {
      method: 'assume-role-with-web-identity',
      environment: () => ({ AWS_ROLE_ARN: ROLE, AWS_WEB_IDENTITY_TOKEN_FILE: join(world.directory, 'token') }),
      files: () => ({ token: WEB_IDENTITY }),
    },
    'a process': {
      method: 'custom-process',
      environment: () => ({ AWS_PROFILE: 'process' }),
      files: () => ({
        '.aws/config': '[profile process]\ncredential_process = sh -c "cat ~/output"\n',
        output: processOutput(),
      }),
    },
    'a role of a profile': {
      method: 'assume-role',
      environment: () => ({ AWS_PROFILE: 'role' }),
      files: () => ({
        '.aws/config': `[profile role]\nrole_arn = ${ROLE}\nsource_profile = own\n`,
        '.aws/credentials': `[own]\naws_access_key_id = ${own.AWS_ACCESS_KEY_ID}\naws_secret_access_key = ${own.AWS_SECRET_ACCESS_KEY}\n`,
      }),
    },
    'single sign-on': {
      method: 'sso',
      environment: () => ({ AWS_PROFILE: 'sso' }),
      files: () => ({ '.aws/config': SSO_CONFIG, [ssoCache('s')]: ssoSession('2099-01-01T00:00:00Z') }),
    },
  };
  for (const [what, { method, environment, files }] of Object.entries(sources)) {
    test(`of ${what}`, async () => {
      for (const [name, content] of Object.entries(files?.() ?? {})) await world.write(name, content);
      assert.equal(await connect(environment(world.metadata.url)), method);
      await call('Encrypt', { KeyId: world.arn, Plaintext: 'AA==' });
    });
  }
});
