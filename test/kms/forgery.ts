// The forgery that a recipient can try who may only unwrap: it knows the data key, and puts another record or other
// labels beside the wrapped key, under a right MAC. docs/packet.md section 6 says for which keys it works.
import assert from 'node:assert/strict';
import { asOcicryptError, type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import type { Kek, WrappedKey } from '../../src/kms/kek.ts';
import { createProvider } from '../../src/provider/handle.ts';
import { decodePacket } from '../../src/provider/packet.ts';
import { contentDigest, packetContext, sealPacketV2 } from '../../src/provider/packet-v2.ts';
import { canonicalJson, OPTSDATA, SWAPPED, sealMembers } from '../fixtures/packets.ts';
import { unwrapRequest } from '../fixtures/vectors/shape.ts';
import { soon } from './expect.ts';
import type { KekHarness } from './kek-conformance.ts';

const LABELS = { env: 'prod' };

/**
 * Asserts that forged packets are refused where the key binds the context, and are opened where it does not: what a
 * packet proves for such a recipient is documented as nothing.
 */
export async function assertForgery(kek: Kek, bindsContext: boolean): Promise<void> {
  const honest = await sealPacketV2(OPTSDATA, LABELS, async (dataKey, context) => [
    await kek.wrap(dataKey, context, soon()),
  ]);
  assert.deepEqual(await open(kek, honest), OPTSDATA);
  const packet = decodePacket(honest);
  const [entry] = packet.format === 'v2' ? packet.recipients : [];
  assert.ok(packet.format === 'v2' && entry !== undefined);
  // All that is needed for it: the permission to unwrap this one packet.
  const dataKey = await kek.unwrap(entry, packetContext(LABELS, contentDigest(packet)), soon());
  const recipients = [entryOf(entry)];
  for (const [sealing, record] of [
    [{ labels: LABELS, optsdata: SWAPPED }, SWAPPED],
    [{ labels: { env: 'dev' } }, OPTSDATA],
    [{}, OPTSDATA],
  ] as const) {
    const forged = canonicalJson(sealMembers({ ...sealing, dataKey, recipients }));
    const opened = await open(kek, Buffer.from(forged)).catch(asOcicryptError);
    if (bindsContext) assert.ok(opened instanceof OcicryptError && opened.code === 'integrity', String(opened));
    else assert.deepEqual(opened, record);
  }
}

/** Asserts what comes of a version that one who knows the data key writes into a packet in place of the right one. */
export async function assertVersions(kek: Kek, versions: KekHarness['versions']): Promise<void> {
  const sealed = (change: (honest: WrappedKey) => WrappedKey) =>
    sealPacketV2(OPTSDATA, {}, async (dataKey, context) => [change(await kek.wrap(dataKey, context, soon()))]);
  const honest = decodePacket(await sealed((entry) => entry));
  const [wrapped] = honest.format === 'v2' ? honest.recipients : [];
  const hasOwn = versions === 'found in the ciphertext' || versions === 'enforced';
  assert.equal(wrapped?.version !== undefined, hasOwn, 'which keys say a version beside their name');
  const opened = await open(kek, await sealed((entry) => ({ ...entry, version: '7' }))).catch(asOcicryptError);
  if (versions === 'none' || versions === 'found in the ciphertext') assert.deepEqual(opened, OPTSDATA);
  else if (versions === 'enforced') assertCode(opened, ['integrity', 'not-found']);
  else {
    assertCode(opened, ['bad-input']);
    const other = await sealed((entry) => ({ ...entry, key: entry.key.replace(/[0-9a-f]{32}$/, '0'.repeat(32)) }));
    assertCode(await open(kek, other).catch(asOcicryptError), ['integrity', 'not-found']);
  }
}

function assertCode(error: unknown, codes: readonly ErrorCode[]): void {
  assert.ok(error instanceof OcicryptError && codes.includes(error.code), String(error));
}

function entryOf({ key, version, algorithm, wrapped }: WrappedKey) {
  const wrapped_key = Buffer.from(wrapped).toString('base64');
  return { algorithm, key, ...(version === undefined ? {} : { version }), wrapped_key };
}

async function open(kek: Kek, packet: Uint8Array): Promise<Uint8Array> {
  const provider = createProvider({
    openKek: async () => kek,
    rules: [kek.key, ...(kek.otherKeys ?? [])].map((key) => ({ kind: 'key', uri: parseKeyUri(key) })),
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
  });
  const reply = await provider.handle(Buffer.from(unwrapRequest(packet)));
  return Buffer.from(JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata, 'base64');
}
