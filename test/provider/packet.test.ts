import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../src/base/errors.ts';
import type { WrappedKey } from '../../src/kms/kek.ts';
import { contextBytes } from '../../src/kms/kek.ts';
import { checkLabels, sameLabels, showLabels } from '../../src/provider/labels.ts';
import { decodePacket, encodePacketV1 } from '../../src/provider/packet.ts';
import {
  contentDigest,
  encodePacketV2,
  openPacketV2,
  type PacketV2,
  packetContext,
  sealPacketV2,
} from '../../src/provider/packet-v2.ts';
import { isCode } from '../fixtures/codes.ts';
import {
  additionalData,
  canonicalJson,
  contextOf,
  DATA_KEY,
  KEYFILES,
  keyfileEntry,
  OPTSDATA,
  sealMembers,
  thumbprint,
} from '../fixtures/packets.ts';
import { createRandom, runs, sample, seeded } from '../fixtures/seed.ts';

const term = fc.stringMatching(/^[A-Za-z0-9_.+:-]{1,64}$/);
const recipient: fc.Arbitrary<WrappedKey> = fc
  .tuple(
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
    term,
    fc.option(term, { nil: undefined }),
    fc.uint8Array({ minLength: 1, maxLength: 300 }),
  )
  .map(([id, algorithm, version, wrapped]) => ({
    key: thumbprint(id),
    algorithm,
    wrapped: Uint8Array.from(wrapped),
    version,
  }));
const labels = fc.dictionary(
  fc.stringMatching(/^[A-Za-z][A-Za-z0-9_.-]{0,20}$/),
  fc.stringMatching(/^[!-~](?:[ -~]{0,20}[!-~])?$/),
  { maxKeys: 8, noNullPrototype: true },
);
const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Uint8Array.from(array));
const packet: fc.Arbitrary<PacketV2> = fc.record({
  format: fc.constant('v2' as const),
  labels,
  recipients: fc.array(recipient, { minLength: 1, maxLength: 16 }),
  mac: bytes(32),
  nonce: bytes(12),
  ciphertext: fc.uint8Array({ minLength: 17, maxLength: 300 }).map((array) => Uint8Array.from(array)),
});

test(seeded('decoding what was encoded is the identity'), () => {
  fc.assert(
    fc.property(packet, (value) => {
      const encoded = encodePacketV2(value);
      assert.deepEqual(decodePacket(encoded), { ...value, labels: { ...value.labels } });
      assert.deepEqual(Buffer.from(encoded).toString(), canonicalJson(JSON.parse(Buffer.from(encoded).toString())));
    }),
    sample(300),
  );
});

test(seeded('encoding what was decoded is the identity, whatever the bytes'), () => {
  const good = Buffer.from(
    canonicalJson(
      sealMembers({ labels: { a: 'x' }, recipients: [keyfileEntry(KEYFILES.first, { labels: { a: 'x' } })] }),
    ),
  );
  const random = createRandom();
  let read = 0;
  for (let count = 0; count < runs(20_000); count++) {
    const changed = Buffer.from(good);
    for (let edits = 1 + random(2); edits > 0; edits--) changed[random(changed.length)] = random(256);
    try {
      const decoded = decodePacket(changed);
      if (decoded.format !== 'v2') continue;
      assert.deepEqual(Buffer.from(encodePacketV2(decoded)), changed);
      read++;
    } catch (error) {
      assert.ok(error instanceof OcicryptError && error.code === 'bad-input', String(error));
    }
  }
  assert.ok(read > 0, 'some changes leave a packet that can be read');
});

test('every single bit of a packet counts: none can be changed unseen', () => {
  const good = Buffer.from(canonicalJson(sealMembers({ recipients: [keyfileEntry(KEYFILES.first)] })));
  const wrapped = keyfileEntry(KEYFILES.first);
  for (let bit = 0; bit < good.length * 8; bit++) {
    const changed = Buffer.from(good);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.throws(
      () => {
        const decoded = decodePacket(changed);
        // With the right data key in hand, so that only the MAC and the seal are in the way.
        if (decoded.format === 'v2') openPacketV2(decoded, DATA_KEY);
      },
      (error) => error instanceof OcicryptError && (error.code === 'bad-input' || error.code === 'integrity'),
      `bit ${bit}`,
    );
  }
  assert.ok(good.toString().includes(String(wrapped.wrapped_key)));
});

test('a packet opens with its data key and with no other', async () => {
  let dataKey: Uint8Array | undefined;
  const sealed = await sealPacketV2(OPTSDATA, { env: 'prod' }, async (key) => {
    dataKey = Uint8Array.from(key);
    return [{ key: thumbprint(KEYFILES.first), algorithm: 'X', wrapped: Uint8Array.of(1) }];
  });
  const decoded = decodePacket(sealed);
  assert.ok(decoded.format === 'v2' && dataKey !== undefined);
  assert.deepEqual(Buffer.from(openPacketV2(decoded, dataKey)), OPTSDATA);
  for (const other of [randomBytes(32), new Uint8Array(32), dataKey.subarray(0, 31), new Uint8Array(0)]) {
    assert.throws(() => openPacketV2(decoded, other), isCode('integrity'));
  }
});

test('the data key is wiped, whether wrapping succeeds or not', async () => {
  for (const fails of [false, true]) {
    let seen: Uint8Array | undefined;
    const work = sealPacketV2(OPTSDATA, {}, async (key) => {
      seen = key;
      assert.ok(key.some((byte) => byte !== 0));
      if (fails) throw new OcicryptError('unavailable', 'gone');
      return [{ key: thumbprint(KEYFILES.first), algorithm: 'X', wrapped: Uint8Array.of(1) }];
    });
    await work.catch(() => {});
    assert.ok(seen?.every((byte) => byte === 0));
  }
});

test('no two packets of one record are alike', async () => {
  const seal = () =>
    sealPacketV2(OPTSDATA, {}, async () => [
      { key: thumbprint(KEYFILES.first), algorithm: 'X', wrapped: Uint8Array.of(1) },
    ]);
  const [one, two] = [
    JSON.parse(Buffer.from(await seal()).toString()),
    JSON.parse(Buffer.from(await seal()).toString()),
  ];
  for (const member of ['ciphertext', 'mac', 'nonce']) assert.notEqual(one[member], two[member]);
});

test('v1 is three members in the reference provider’s order', () => {
  const key = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';
  const encoded = encodePacketV1({ key, wrapped: Uint8Array.of(1, 2) });
  assert.equal(Buffer.from(encoded).toString(), `{"key_url":"${key}","wrapped_key":"AQI=","wrap_type":"AES"}`);
  const recipient = { key, algorithm: '', wrapped: Uint8Array.of(1, 2) };
  assert.deepEqual(decodePacket(encoded), { format: 'v1', recipient, context: {} });
});

test('a context is a domain of our own, the sealed record and the labels, in canonical bytes', () => {
  const sealed = decodePacket(Buffer.from(canonicalJson(sealMembers({ recipients: [keyfileEntry(KEYFILES.first)] }))));
  assert.ok(sealed.format === 'v2');
  const content = contentDigest(sealed);
  assert.deepEqual(packetContext({}, content), { 'ocicrypt-kms': 'v2', content });
  const labels = { b: '2', a: 'x "y"', B: '1' };
  assert.deepEqual(packetContext(labels, content), contextOf({ labels }));
  assert.deepEqual(Buffer.from(contextBytes(packetContext(labels, content))), additionalData(contextOf({ labels })));
  assert.equal(
    Buffer.from(contextBytes(packetContext(labels, 'D'))).toString(),
    '{"content":"D","label.B":"1","label.a":"x \\"y\\"","label.b":"2","ocicrypt-kms":"v2"}',
  );
  assert.equal(contextBytes({}).length, 0);
});

test(seeded('labels are the same exactly when they are shown alike, whatever they hold'), () => {
  const few = fc.dictionary(fc.constantFrom('env', 'team'), fc.stringMatching(/^[a=, "\\]{1,4}$/), { maxKeys: 2 });
  fc.assert(
    fc.property(few, few, (one, other) => {
      assert.equal(sameLabels(one, other), showLabels(one) === showLabels(other));
      assert.equal(sameLabels(one, { ...one }), true);
    }),
    sample(1000),
  );
  assert.equal(sameLabels({ env: 'prod,team=a' }, { env: 'prod', team: 'a' }), false);
  assert.equal(showLabels({ env: 'prod,team=a' }), 'env="prod,team=a"');
  assert.equal(showLabels({ team: 'a', env: 'prod  x' }), 'env="prod  x" team=a');
  assert.equal(showLabels({}), '(none)');
  assert.equal(sameLabels(JSON.parse('{"__proto__":"x"}'), { y: 'x' }), false);
});

test('two entries of one key become the first of them, two versions of it stay two', async () => {
  const entry = { key: thumbprint(KEYFILES.first), algorithm: 'X' };
  const sealed = await sealPacketV2(OPTSDATA, {}, async () => [
    { ...entry, wrapped: Uint8Array.of(1) },
    { ...entry, wrapped: Uint8Array.of(2) },
    { ...entry, wrapped: Uint8Array.of(3), version: '1' },
    { ...entry, wrapped: Uint8Array.of(4), version: '2' },
  ]);
  const decoded = decodePacket(sealed);
  assert.ok(decoded.format === 'v2');
  assert.deepEqual(
    decoded.recipients.map(({ wrapped }) => wrapped[0]),
    [1, 3, 4],
  );
});

test('a packet of a later version is refused with what to do', () => {
  const later = canonicalJson(sealMembers({ recipients: [keyfileEntry(KEYFILES.first)] })).replace('/v2"', '/v3"');
  assert.throws(() => decodePacket(Buffer.from(later)), { code: 'bad-input', hint: /update ocicrypt-kms$/ });
});

test('labels of the operator are checked as those of packets are', () => {
  checkLabels({ env: 'prod', 'a.b-c_1': 'x y', constructor: '~' });
  const many = (length: number) => Object.fromEntries(Array.from({ length }, (_, index) => [`l${index}`, 'x']));
  checkLabels(many(8));
  for (const bad of [
    { '': 'x' },
    { '1': 'x' },
    { 'a=b': 'x' },
    { a: '' },
    { a: ' x' },
    { a: 'é' },
    { a: 'x'.repeat(257) },
    { ['a'.repeat(65)]: 'x' },
    JSON.parse('{"__proto__":"x"}'),
    many(9),
  ]) {
    assert.throws(() => checkLabels(bad), isCode('usage'), JSON.stringify(bad));
  }
});
