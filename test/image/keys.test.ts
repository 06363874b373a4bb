// Who can open an image: said by inspect, demanded by verify, changed by rewrap.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { LayerKeyWrapper } from '../../src/client/layer-keys.ts';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { inspectImage } from '../../src/image/inspect.ts';
import { describePacket } from '../../src/image/model/packets.ts';
import { addKeys, removeKeys, replaceKeys, rewrapImage } from '../../src/image/rewrap.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { verifyImage } from '../../src/image/verify.ts';
import { readImages, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { rejects, scratch } from './harness.ts';
import { jweRecipient } from './jwe-recipient.ts';
import { packetKeys, v1Recipient, v2Recipient } from './packet-recipients.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const B = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/b';
const C = 'azurekms://v.vault.azure.net/c';

test('inspect names every recipient of every layer, and verify holds the image to it', async (t) => {
  const { store, directory } = await encrypted(t, [v2Recipient([A, B])]);
  const report = await inspectImage(store);
  assert.deepEqual(
    report.platforms.map(({ platform }) => platform),
    ['linux/amd64', 'linux/arm64'],
  );
  for (const { layers } of report.platforms) {
    for (const { encrypted, cipher, keys } of layers) {
      assert.ok(encrypted);
      assert.equal(cipher, 'AES_256_CTR_HMAC_SHA256');
      assert.equal(keys[0]?.format, 'v2');
      assert.deepEqual(
        keys[0]?.recipients.map(({ key }) => key),
        [A, B],
      );
      assert.deepEqual(keys[0]?.labels, { env: 'test' });
    }
  }
  assert.equal((await verifyImage(store, { require: [A, B], only: [A, B] })).ok, true);
  assert.equal((await verifyImage(store, { only: ['gcpkms://projects/p/*'] })).ok, true);
  assert.equal((await verifyImage(store, { require: [`${A}/cryptoKeyVersions/3`] })).ok, false);
  assert.equal((await verifyImage(store, { require: [C] })).ok, false);
  assert.equal((await verifyImage(store, { only: [A] })).ok, false);
  const claimed = await verifyImage(store, { require: [A] });
  assert.equal(claimed.proven, false);
  const proven = await verifyImage(store, {
    require: [A],
    unwrapper: (key) => packetKeys(key === undefined ? [] : [key]),
  });
  assert.deepEqual([proven.ok, proven.proven], [true, true]);
  assert.equal((await verifyImage(store, { require: [A], unwrapper: () => packetKeys([C]) })).ok, false);
  await rejects('usage', verifyImage(store, { require: ['awskms:///alias/x'] }));
  await rejects('usage', verifyImage(store, { require: ['keyfile:///x'] }));

  const plain = openLayout(join(directory, 'plain'), 'latest', 'oci:plain');
  const verdict = await verifyImage(plain);
  assert.equal(verdict.ok, false);
  assert.equal(verdict.reasons.length, 4);
});

test('recipients that cannot be named satisfy nobody', async (t) => {
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'key');
  const { store } = await encrypted(t, [jweRecipient(keys.publicKey), v1Recipient(A)]);
  const report = await inspectImage(store);
  const described = report.platforms[0]?.layers[0]?.keys;
  assert.deepEqual(
    described?.map(({ format }) => format),
    ['jwe', 'v1'],
  );
  assert.equal(described?.[0]?.recipients[0]?.algorithm, 'RSA-OAEP');
  assert.equal((await verifyImage(store, { require: [A] })).ok, true);
  assert.equal((await verifyImage(store, { only: [A] })).ok, false);
});

test('packets of every writer in the field are told apart, and junk is only described', () => {
  const cases = {
    v1: { key_url: A, wrapped_key: 'AAAA', wrap_type: 'AES' },
    'aws-kms-ocicrypt': { key_url: 'alias/x', wrapped_key: 'AAAA' },
    'coco-v1': { kid: 'kbs:///a/b/c', wrapped_data: 'AAAA', iv: 'AAAA', wrap_type: 'A256GCM' },
    'coco-v2': { kid: 'k', wrapped_data: 'AAAA', provider: 'aws', version: '0.1.0' },
    'secure-key-release': {
      kid: 'k',
      wrapped_data: 'AAAA',
      wrap_type: 'rsa_3072',
      attester_endpoint: 'x',
      kms_endpoint: 'y',
    },
    tpm: { key_url: 'tpm', session_key: 'AAAA', wrapped_key: 'AAAA', wrap_type: 'AES' },
    unknown: { something: 'else' },
  };
  for (const [format, packet] of Object.entries(cases)) {
    const described = describePacket({ scheme: 'provider.x', packet: Buffer.from(JSON.stringify(packet)) });
    assert.equal(described.format, format);
    if (format !== 'unknown') assert.ok(described.recipients[0]?.key !== undefined);
  }
  for (const junk of ['', '{', '[]', '\0', 'x'.repeat(9999), '{"version":"ocicrypt-kms/v9"}']) {
    for (const scheme of ['provider.x', 'jwe', 'pgp', 'new']) describePacket({ scheme, packet: Buffer.from(junk) });
  }
});

test('rewrap replaces, adds and removes recipients and touches nothing but manifests', async (t) => {
  const { store, directory, plainDigest } = await encrypted(t, [v2Recipient([A])]);
  const path = join(directory, 'enc');
  const before = await readImages(path, 'latest');
  const blobs = new Set(await readdir(join(path, 'blobs/sha256')));
  const opener = packetKeys([A, B]);

  const dry = await rewrapImage(store, { keys: replaceKeys(opener, [v2Recipient([B])]), dryRun: true });
  assert.deepEqual([dry.written, (await store.readRoot()).digest], [false, dry.previousDigest]);
  assert.equal(opener.calls(), 3);
  assert.deepEqual(new Set(await readdir(join(path, 'blobs/sha256'))), blobs);

  const added = await rewrapImage(store, { keys: addKeys(packetKeys([A]), [v2Recipient([B])]) });
  assert.equal((await store.readRoot()).digest, added.digest);
  assert.notEqual(added.digest, added.previousDigest);
  const name = 'org.opencontainers.image.enc.keys.provider.kmscrypt';
  const old = before[0]?.layers[0]?.annotations?.[name] ?? '?';
  const images = await readImages(path, 'latest');
  assert.ok(images[0]?.layers[0]?.annotations?.[name]?.startsWith(`${old},`));
  assert.deepEqual(
    images.map(({ layers }) => layers.map(({ digest }) => digest)),
    before.map(({ layers }) => layers.map(({ digest }) => digest)),
  );
  assert.equal(
    (await verifyImage(store, { require: [A, B], only: [A, B], unwrapper: (key) => packetKeys([key ?? '']) })).ok,
    true,
  );

  const remove = removeKeys(
    packetKeys([B]),
    ({ key }) => key === A,
    () => assert.fail('nothing has to be wrapped'),
  );
  await rewrapImage(store, { keys: remove });
  assert.equal((await verifyImage(store, { require: [B], only: [B] })).ok, true);
  await rejects('not-found', rewrapImage(store, { keys: remove }));
  await rejects(
    'bad-input',
    rewrapImage(store, {
      keys: removeKeys(
        packetKeys([B]),
        () => true,
        () => v2Recipient([]),
      ),
    }),
  );

  await rewrapImage(store, { keys: replaceKeys(packetKeys([B]), [v2Recipient([A, B, C])]) });
  const keep = removeKeys(
    packetKeys([B]),
    ({ key }) => key === A,
    (_, keys) => v2Recipient(keys),
  );
  await rewrapImage(store, { keys: keep });
  assert.equal((await verifyImage(store, { require: [B, C], only: [B, C] })).ok, true);

  const failing = { rewrap: async () => assert.fail('one layer fails') };
  const root = await store.readRoot();
  await assert.rejects(rewrapImage(store, { keys: failing }));
  assert.equal((await store.readRoot()).digest, root.digest);
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(store, back, { keys: packetKeys([C]) })).digest, plainDigest);
  assert.ok((await readFile(join(path, 'index.json'), 'utf8')).includes(root.digest));
});

async function encrypted(t: TestContext, recipients: readonly LayerKeyWrapper[]) {
  const directory = await scratch(t);
  const shared = { seed: 'shared', size: 1000 };
  const made = await writeIndex(join(directory, 'plain'), [
    { platform: { os: 'linux', architecture: 'amd64' }, layers: [shared, {}] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [shared, {}] },
  ]);
  const plain = openLayout(made.directory, 'latest', made.reference);
  const store = openLayout(join(directory, 'enc'), 'latest', 'oci:enc');
  await encryptImage(plain, store, { recipients });
  return { directory, store, plainDigest: made.digest };
}
