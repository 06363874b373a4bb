// The only code that makes and opens v2 packets: an envelope in the manner of age. Specified in docs/packet.md.

import {
  createHash,
  createHmac,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { NONCE_BYTES, openGcm, sealGcm, TAG_BYTES } from '../base/aes-gcm.ts';
import { equalBytes, wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asBytes, asObject, asText, type JsonObject, type JsonValue } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { asKeyUri, formatKeyUri } from '../base/key-uri.ts';
import {
  cannotBeUnwrapped,
  type EncryptionContext,
  MAXIMUM_WRAPPED_KEY_BYTES,
  PACKET_TERM,
  type WrappedKey,
} from '../kms/kek.ts';
import { isLabel, type Labels, MAXIMUM_LABELS } from './labels.ts';

/** A packet for several keys, bound to labels (docs/packet.md section 4). */
export type PacketV2 = {
  readonly format: 'v2';
  readonly labels: Labels;
  /** 1 to 16 entries, each of which wraps the same data-encryption key. */
  readonly recipients: readonly WrappedKey[];
  readonly mac: Uint8Array;
  readonly nonce: Uint8Array;
  readonly ciphertext: Uint8Array;
};

type Authenticated = Pick<PacketV2, 'ciphertext' | 'labels' | 'nonce' | 'recipients'>;

export const MAXIMUM_RECIPIENTS = 16;

const VERSION = 'ocicrypt-kms/v2';
const KEY_LENGTH = 32;
const MAC_LENGTH = 32;

/**
 * Makes a packet for a layer-key record, which is sealed first, so that the wrapped keys are bound to it.
 *
 * @param wrapKey wraps the data-encryption key (32 bytes, wiped afterwards) to every recipient under the context, or throws
 * @returns the packet's bytes, in which each key has one entry
 */
export async function sealPacketV2(
  record: Uint8Array,
  labels: Labels,
  wrapKey: (dataKey: Uint8Array, context: EncryptionContext) => Promise<readonly WrappedKey[]>,
): Promise<Uint8Array<ArrayBuffer>> {
  const dataKey = randomBytes(KEY_LENGTH);
  try {
    const nonce = randomBytes(NONCE_BYTES);
    const secret = createSecretKey(dataKey);
    const ciphertext = sealGcm(deriveKey(secret, 'content'), nonce, record);
    const content = contentDigest({ nonce, ciphertext });
    const recipients = distinct(await wrapKey(dataKey, packetContext(labels, content)));
    const packet = { labels, recipients, nonce, ciphertext };
    return encodePacketV2({ format: 'v2', ...packet, mac: computeMac(secret, packet) });
  } finally {
    wipe(dataKey);
  }
}

/**
 * Opens a packet with its data-encryption key: the MAC over the whole packet first, then the content.
 *
 * @returns the layer-key record, which the caller wipes
 * @throws OcicryptError `integrity`
 */
export function openPacketV2(packet: PacketV2, dataKey: Uint8Array): Uint8Array {
  const secret = dataKey.length === KEY_LENGTH ? createSecretKey(dataKey) : undefined;
  if (secret !== undefined && timingSafeEqual(computeMac(secret, packet), packet.mac)) {
    const record = openGcm(deriveKey(secret, 'content'), packet.nonce, packet.ciphertext);
    if (record !== undefined) return record;
  }
  throw cannotBeUnwrapped('the packet');
}

/** The name of the sealed record in the context of every wrap, in key services' logs and in the audit line. */
export function contentDigest({ nonce, ciphertext }: Pick<PacketV2, 'ciphertext' | 'nonce'>): string {
  return createHash('sha256').update(nonce).update(ciphertext).digest('base64');
}

/** The canonical bytes of a packet: RFC 8785, so that two packets are equal exactly when their bytes are. */
export function encodePacketV2(packet: PacketV2): Uint8Array<ArrayBuffer> {
  return writeMembers(packet, packet.mac);
}

/** Members in the order of their names; the MAC is over the packet without its own member. */
function writeMembers(packet: Authenticated, mac: Uint8Array | undefined): Uint8Array<ArrayBuffer> {
  return writeJson({
    ciphertext: packet.ciphertext,
    labels: sortLabels(packet.labels),
    mac,
    nonce: packet.nonce,
    recipients: packet.recipients.map(recipientMembers),
    version: VERSION,
  });
}

/**
 * Reads a packet strictly: what {@link encodePacketV2} would not write is refused, so unknown members, other
 * spellings and duplicates are too.
 *
 * @param object `bytes`, parsed
 * @throws OcicryptError `bad-input`
 */
export function decodePacketV2(object: JsonObject, bytes: Uint8Array): PacketV2 {
  const version = asText(object.get('version'));
  if (version !== VERSION) {
    throw new OcicryptError('bad-input', 'the packet is of a version that is not known here', {
      hint: `known is ${VERSION}: update ocicrypt-kms`,
    });
  }
  const packet: PacketV2 = {
    format: 'v2',
    labels: decodeLabels(object.get('labels')),
    recipients: decodeRecipients(object.get('recipients')),
    mac: bytesMember(object, 'mac', MAC_LENGTH, MAC_LENGTH),
    nonce: bytesMember(object, 'nonce', NONCE_BYTES, NONCE_BYTES),
    ciphertext: bytesMember(object, 'ciphertext', TAG_BYTES + 1, Number.POSITIVE_INFINITY),
  };
  if (!equalBytes(encodePacketV2(packet), bytes)) invalid('is not in canonical form (RFC 8785)');
  return packet;
}

/**
 * The encryption context of every recipient of a packet: a domain of our own, the sealed record, and the labels.
 *
 * @param content {@link contentDigest}: without it, a recipient that may only unwrap could put another record into the packet
 */
export function packetContext(labels: Labels, content: string): EncryptionContext {
  return { content, ...domainContext('v2', labels) };
}

/** A domain and labels; what is wrapped in one domain cannot be unwrapped in another. */
export function domainContext(domain: string, labels: Labels): EncryptionContext {
  const context: Record<string, string> = { 'ocicrypt-kms': domain };
  for (const [name, value] of Object.entries(labels)) context[`label.${name}`] = value;
  return context;
}

/** The labels in a context that {@link domainContext} made. */
export function contextLabels(context: EncryptionContext): Labels {
  const labels = Object.entries(context).filter(([name]) => name.startsWith('label.'));
  return Object.fromEntries(labels.map(([name, value]) => [name.slice('label.'.length), value]));
}

/** The first of several entries that are of one key: a link to a key file, an identity file beside its own recipient. */
function distinct(recipients: readonly WrappedKey[]): readonly WrappedKey[] {
  const first = new Map<string, WrappedKey>();
  for (const recipient of recipients) {
    const name = `${recipient.key} ${recipient.version ?? ''}`;
    if (!first.has(name)) first.set(name, recipient);
  }
  return [...first.values()];
}

function sortLabels(labels: Labels): Labels {
  const names = Object.keys(labels).sort();
  return Object.fromEntries(names.map((name) => [name, labels[name] ?? '']));
}

function recipientMembers(recipient: WrappedKey) {
  return {
    algorithm: recipient.algorithm,
    key: recipient.key,
    version: recipient.version,
    wrapped_key: recipient.wrapped,
  };
}

/** The MAC commits to the data key and binds everything else in the packet (docs/packet.md section 4.5). */
function computeMac(dataKey: KeyObject, packet: Authenticated): Uint8Array {
  return createHmac('sha256', deriveKey(dataKey, 'mac')).update(writeMembers(packet, undefined)).digest();
}

/** HKDF-SHA256 (RFC 5869) without salt. A KeyObject: raw bytes as keys are ten times slower on Node 24. */
function deriveKey(dataKey: KeyObject, purpose: 'content' | 'mac'): KeyObject {
  const raw = new Uint8Array(hkdfSync('sha256', dataKey, '', `${VERSION} ${purpose}`, KEY_LENGTH));
  try {
    return createSecretKey(raw);
  } finally {
    wipe(raw);
  }
}

function decodeLabels(value: JsonValue | undefined): Labels {
  const members = asObject(value) ?? invalid('has no object "labels"');
  const labels: Record<string, string> = {};
  for (const [name, member] of members) {
    const text = asText(member);
    if (text === undefined || !isLabel(name, text)) return invalid('has a label that is not usable');
    labels[name] = text;
  }
  if (members.size > MAXIMUM_LABELS) invalid(`has more than ${MAXIMUM_LABELS} labels`);
  return labels;
}

function decodeRecipients(value: JsonValue | undefined): readonly WrappedKey[] {
  const entries = asArray(value) ?? invalid('has no array "recipients"');
  if (entries.length === 0) invalid('has no recipients');
  if (entries.length > MAXIMUM_RECIPIENTS) invalid(`has more than ${MAXIMUM_RECIPIENTS} recipients`);
  return entries.map(decodeRecipient);
}

function decodeRecipient(value: JsonValue): WrappedKey {
  const entry = asObject(value) ?? invalid('has a recipient that is not an object');
  const key = asText(entry.get('key')) ?? '';
  const uri = asKeyUri(key);
  if (uri === undefined || formatKeyUri(uri) !== key) return invalid('has a recipient without a canonical key URI');
  const algorithm = asText(entry.get('algorithm')) ?? '';
  const version = entry.has('version') ? (asText(entry.get('version')) ?? '') : undefined;
  if (!PACKET_TERM.test(algorithm)) invalid('has a recipient without a usable "algorithm"');
  if (version !== undefined && !PACKET_TERM.test(version)) invalid('has a recipient with an unusable "version"');
  // Two versions of one entry could differ, and one of them is compared with the operator's list.
  if (version !== undefined && 'version' in uri) invalid('has a recipient with a version in "key" and in "version"');
  const wrapped = bytesMember(entry, 'wrapped_key', 1, MAXIMUM_WRAPPED_KEY_BYTES);
  return { key, algorithm, wrapped, version };
}

function bytesMember(object: JsonObject, name: string, minimum: number, maximum: number): Uint8Array {
  const bytes = asBytes(object.get(name));
  if (bytes === undefined || bytes.length < minimum || bytes.length > maximum)
    return invalid(`has no usable "${name}"`);
  return bytes;
}

function invalid(reason: string): never {
  throw new OcicryptError('bad-input', `the packet ${reason}`);
}
