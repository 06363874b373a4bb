// An entry of the operator's with a version: what it allows, for the services whose keys can be named with one.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { asKeyUri, formatKeyUri, type KeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import { openAzureKms } from '../../src/kms/azurekms/key.ts';
import type { Kek, WrappedKey } from '../../src/kms/kek.ts';
import { DEFAULT_LIMITS } from '../../src/provider/attempts.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { encodePacketV1 } from '../../src/provider/packet.ts';
import { sealPacketV2 } from '../../src/provider/packet-v2.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { probeKey } from '../../src/provider/probe.ts';
import { type FakeAzureVault, startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { OPTSDATA } from '../fixtures/packets.ts';
import { base64, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';
import { soon } from './expect.ts';
import { FIRST, RING, startWorld, type World } from './gcpkms/world.ts';

type Open = (uri: KeyUri) => Kek;

function provider(open: Open, allow: string, more: Partial<ProviderOptions> = {}) {
  return createProvider({
    openKek: async (uri) => open(uri),
    rules: [parseAllowRule(allow)],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    ...more,
  });
}

/** The record in base64, or the error. */
async function unwrap(open: Open, allow: string, packet: Uint8Array, more: Partial<ProviderOptions> = {}) {
  const reply = await provider(open, allow, more)
    .handle(Buffer.from(unwrapRequest(packet)))
    .catch(asOcicryptError);
  return reply instanceof OcicryptError ? reply : JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata;
}

/** A packet whose entry says what somebody who knows the data key has written there. */
function sealed(kek: Kek, change: (entry: WrappedKey) => WrappedKey = (entry) => entry): Promise<Uint8Array> {
  return sealPacketV2(OPTSDATA, {}, async (dataKey, context) => [change(await kek.wrap(dataKey, context, soon()))]);
}

const RECORD = base64(OPTSDATA);

describe('a version of a Google key in an entry', () => {
  const rsa = `${RING}/cryptoKeys/versions-rsa`;
  let world: World;
  let open: Open;
  before(async () => {
    world = await startWorld();
    open = (uri) => world.open(formatKeyUri(uri));
    world.kms.createAsymmetricKey(rsa);
    world.kms.rotate(rsa);
  });
  after(() => world.close());

  test('of a symmetric one allows wrapping, and unwrapping never, whatever a packet says', async () => {
    const first = world.open(`${FIRST}/cryptoKeyVersions/1`);
    const honest = await sealed(first);
    const insider = await sealed(first, (entry) => ({ ...entry, version: '2' }));
    const v1 = await first.wrap(OPTSDATA, {}, soon());
    world.kms.rotate(FIRST);
    for (const [version, packet] of [
      ['2', insider],
      ['1', honest],
      ['2', encodePacketV1({ ...v1, key: `gcpkms://${FIRST}/cryptoKeyVersions/2` })],
      ['2', encodePacketV1(v1)],
    ] as const) {
      const error = await unwrap(open, `gcpkms://${FIRST}/cryptoKeyVersions/${version}`, packet);
      assert.ok(error instanceof OcicryptError && error.code === 'not-allowed', String(error));
      assert.ok(error.message.includes('wrapping only') && error.hint?.includes(`gcpkms://${FIRST}, and disable`));
      assert.equal(await unwrap(open, `gcpkms://${FIRST}`, packet), RECORD, 'the fix that is named');
      // Under the reference provider's name versions are one key, as they are there.
      const ignored = await unwrap(open, `gcpkms://${FIRST}/cryptoKeyVersions/${version}`, packet, {
        versions: 'ignored',
      });
      assert.equal(ignored, RECORD);
    }
    const named = await provider(open, `gcpkms://${FIRST}`)
      .handle(Buffer.from(unwrapRequest(honest, [`gcpkms://${FIRST}/cryptoKeyVersions/1`])))
      .catch(asOcicryptError);
    assert.ok(named instanceof OcicryptError && named.code === 'not-allowed');
    const wrapping = `gcpkms://${FIRST}/cryptoKeyVersions/1`;
    const reply = await provider(open, wrapping).handle(Buffer.from(wrapRequest([wrapping])));
    const packet = Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64');
    assert.equal(JSON.parse(packet.toString()).recipients[0].version, '1');
  });

  test('of a symmetric one is not got round by a packet that calls it asymmetric', async () => {
    const lying = await sealed(world.open(FIRST), (entry) => ({
      ...entry,
      algorithm: 'RSA_DECRYPT_OAEP_2048_SHA256',
      version: '2',
      wrapped: new Uint8Array(256),
    }));
    const error = await unwrap(open, `gcpkms://${FIRST}/cryptoKeyVersions/2`, lying);
    assert.ok(error instanceof OcicryptError && error.code !== 'not-allowed', String(error));
  });

  test('is told by doctor to allow wrapping only, where it does', async () => {
    const limits = { ...DEFAULT_LIMITS, attempts: 1 };
    for (const [key, wrapsOnly] of [
      [`${FIRST}/cryptoKeyVersions/1`, true],
      [FIRST, undefined],
      [`${rsa}/cryptoKeyVersions/1`, undefined],
    ] as const) {
      const probe = await probeKey(parseKeyUri(key), { openKek: async (uri) => open(uri), labels: {}, limits });
      assert.deepEqual([probe.failure, probe.wrapsOnly], [undefined, wrapsOnly], key);
    }
  });

  test('of an asymmetric one allows just that version, since Google is asked for it by its name', async () => {
    const one = world.open(`${rsa}/cryptoKeyVersions/1`);
    const honest = await sealed(one);
    const insider = await sealed(one, (entry) => ({ ...entry, version: '2' }));
    assert.equal(await unwrap(open, `gcpkms://${rsa}/cryptoKeyVersions/1`, honest), RECORD);
    const other = await unwrap(open, `gcpkms://${rsa}/cryptoKeyVersions/2`, honest);
    assert.ok(other instanceof OcicryptError && other.code === 'not-allowed');
    const forged = await unwrap(open, `gcpkms://${rsa}/cryptoKeyVersions/2`, insider);
    assert.ok(forged instanceof OcicryptError && forged.code === 'integrity', String(forged));
    const both = await sealed(one, (entry) => ({ ...entry, key: `${entry.key}/cryptoKeyVersions/2`, version: '1' }));
    const twice = await unwrap(open, `gcpkms://${rsa}/cryptoKeyVersions/2`, both);
    assert.ok(twice instanceof OcicryptError && twice.code === 'bad-input', String(twice));
  });
});

describe('a version of an Azure key in an entry', () => {
  let directory: string;
  let vault: FakeAzureVault;
  let open: Open;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'versions-'));
    const authority = await createCertificateAuthority(directory);
    const host = 'testhsm.managedhsm.azure.net';
    vault = await startFakeAzureVault({ tls: await authority.issue('server'), host });
    const environment = {
      AZURE_TENANT_ID: vault.tenant,
      AZURE_CLIENT_ID: vault.client.id,
      AZURE_CLIENT_SECRET: vault.client.secret,
      AZURE_AUTHORITY_HOST: vault.endpoint,
    };
    open = (uri) => {
      assert.ok(uri.scheme === 'azurekms');
      return openAzureKms(uri, { endpoint: vault.endpoint, caFiles: [authority.certificate], environment });
    };
  });
  after(async () => {
    await vault.close();
    await rm(directory, { recursive: true, force: true });
  });

  for (const [name, options] of [
    ['rsa', { type: 'RSA' }],
    ['gcm', { type: 'oct-HSM' }],
    ['kw', { type: 'oct-HSM', operations: ['wrapKey', 'unwrapKey'] }],
  ] as const) {
    test(`allows just that version, of a key for ${name}`, async () => {
      vault.createKey(name, options);
      const key = `azurekms://testhsm.managedhsm.azure.net/${name}`;
      const kek = open(parseKeyUri(key));
      const old = await sealed(kek);
      const first: string = JSON.parse(Buffer.from(old).toString()).recipients[0].key;
      vault.rotate(name);
      const second: string = JSON.parse(Buffer.from(await sealed(kek)).toString()).recipients[0].key;
      assert.notEqual(first, second);
      assert.equal(await unwrap(open, first, old), RECORD);
      assert.equal(await unwrap(open, key, old), RECORD);
      const other = await unwrap(open, second, old);
      assert.ok(other instanceof OcicryptError && other.code === 'not-allowed');
      // The ciphertext of the first version, wrapped under the first, in an entry that says it is of the second.
      const insider = await sealed(open(parseKeyUri(first)), (entry) => ({ ...entry, key: second }));
      const forged = await unwrap(open, second, insider);
      assert.ok(forged instanceof OcicryptError && forged.code === 'integrity', String(forged));
    });
  }
});

test('keys of all other services cannot be named with a version', () => {
  for (const key of [
    'awskms:///1234abcd-12ab-34cd-56ef-1234567890ab/2',
    'awskms:///alias/a?version=2',
    'hashivault://image?version=2',
    'hashivault://image/2',
    'pkcs11:object=k?version=2',
    `${`age1${'q'.repeat(58)}`}/2`,
    `keyfile:sha256:${'ab'.repeat(32)}/2`,
    'kbs:///default/key/one/2',
  ]) {
    assert.equal(asKeyUri(key), undefined, key);
  }
});
