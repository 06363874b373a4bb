// Makes packets: every recipient of the call, all or none.

import { eitherSignal } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import type { EncryptionContext, Kek, WrappedKey } from '../kms/kek.ts';
import { type Limits, withAttempts } from './attempts.ts';
import type { Labels } from './labels.ts';
import { isLayerKeyRecord } from './layer-key.ts';
import { nameKey } from './name-key.ts';
import { encodePacketV1 } from './packet.ts';
import { encodePacketCocoAws, notForCoco } from './packet-coco.ts';
import { domainContext, MAXIMUM_RECIPIENTS, sealPacketV2 } from './packet-v2.ts';
import { MAXIMUM_PACKET_BYTES } from './protocol.ts';

/** Which packets are written: `reference` is v1 for a single Google key and v2 for all else. */
export type PacketChoice = 'coco-v2' | 'v1' | 'v2' | 'reference';

export type WrapOptions = {
  readonly packet: PacketChoice;
  readonly labels: Labels;
  readonly openKek: (uri: KeyUri) => Promise<Kek>;
  readonly limits: Limits;
};

/** A packet, and which format was chosen for it. */
export type WrappedPacket = { readonly packet: Uint8Array; readonly format: 'coco-v2' | 'v1' | 'v2' };

/**
 * Wraps a layer-key record for every key in `keys`, which policy has allowed.
 *
 * @throws OcicryptError `bad-input` for what could not be unwrapped again; whatever a key service answers
 */
export async function wrapLayerKey(
  record: Uint8Array,
  keys: readonly KeyUri[],
  options: WrapOptions,
  signal: AbortSignal,
): Promise<WrappedPacket> {
  if (!isLayerKeyRecord(record)) {
    throw new OcicryptError('bad-input', '"optsdata" is not a layer-key record', {
      hint: 'expected are symkey (32 bytes), digest and cipheroptions.nonce (16 bytes)',
    });
  }
  if (keys.length > MAXIMUM_RECIPIENTS) {
    throw new OcicryptError('bad-input', `${keys.length} keys for one layer`, {
      hint: `at most ${MAXIMUM_RECIPIENTS} are possible`,
    });
  }
  if (options.packet === 'coco-v2') return { packet: await wrapCoco(record, keys, options, signal), format: 'coco-v2' };
  const v1 = chooseFormat(keys, options) === 'v1' ? await wrapV1(record, keys, options, signal) : undefined;
  const format = v1 === undefined ? 'v2' : 'v1';
  const packet = v1 ?? (await wrapV2(record, keys, options, signal));
  if (packet.length > MAXIMUM_PACKET_BYTES) {
    throw new OcicryptError('bad-input', `the packet for ${keys.length} keys has ${packet.length} bytes`, {
      hint: `at most ${MAXIMUM_PACKET_BYTES} are possible: name fewer keys`,
    });
  }
  return { packet, format };
}

function chooseFormat(keys: readonly KeyUri[], options: WrapOptions): 'v1' | 'v2' {
  const possible = keys.length === 1 && keys[0]?.scheme === 'gcpkms' && Object.keys(options.labels).length === 0;
  if (options.packet === 'v1' && !possible) throw notForV1();
  return options.packet !== 'v2' && possible ? 'v1' : 'v2';
}

/** How a symmetric Google key says that it is one: an asymmetric one has the same URI. */
const SYMMETRIC = 'GOOGLE_SYMMETRIC_ENCRYPTION';

/** Undefined if the key turns out to be asymmetric (perhaps too small) and v1 was not asked for. */
async function wrapV1(
  record: Uint8Array,
  keys: readonly KeyUri[],
  options: WrapOptions,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  try {
    const [wrapped] = await wrapToAll(record, keys, {}, options, signal);
    if (wrapped === undefined) throw new OcicryptError('internal', 'no key to wrap with');
    if (wrapped.algorithm !== SYMMETRIC) throw notForV1();
    return encodePacketV1(wrapped);
  } catch (error) {
    if (options.packet !== 'v1' && error instanceof OcicryptError && error.code === 'bad-input') return undefined;
    throw error;
  }
}

function notForV1(): OcicryptError {
  return new OcicryptError('bad-input', 'a v1 packet holds one symmetric Google key and no labels', {
    hint: `use ${setting('packet')} v2`,
  });
}

/** The layer-key record itself, bound to the labels in a domain of its own: it is no data key of a v2 packet. */
async function wrapCoco(
  record: Uint8Array,
  keys: readonly KeyUri[],
  options: WrapOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (keys.length !== 1 || keys[0]?.scheme !== 'awskms') throw notForCoco();
  const context = domainContext('coco-v2', options.labels);
  const [wrapped] = await wrapToAll(record, keys, context, options, signal);
  if (wrapped === undefined) throw new OcicryptError('internal', 'no key to wrap with');
  return encodePacketCocoAws(wrapped, context);
}

function wrapV2(
  record: Uint8Array,
  keys: readonly KeyUri[],
  options: WrapOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return sealPacketV2(record, options.labels, (dataKey, context) => wrapToAll(dataKey, keys, context, options, signal));
}

/** All at once; the first failure ends the others. */
async function wrapToAll(
  plaintext: Uint8Array,
  keys: readonly KeyUri[],
  context: EncryptionContext,
  options: WrapOptions,
  signal: AbortSignal,
): Promise<readonly WrappedKey[]> {
  // A single one has no others to end, and a server makes no signal for it.
  const others = keys.length > 1 ? new AbortController() : undefined;
  const either = others === undefined ? signal : eitherSignal(signal, others.signal);
  try {
    return await Promise.all(
      keys.map(async (uri) => {
        const kek = await options.openKek(uri);
        const name = formatKeyUri(uri);
        return withAttempts(options.limits, either, `key ${name}`, (attempt) =>
          kek.wrap(plaintext, context, attempt).catch((error: unknown) => {
            throw nameKey(error, name);
          }),
        );
      }),
    );
  } catch (error) {
    others?.abort();
    throw error;
  }
}
