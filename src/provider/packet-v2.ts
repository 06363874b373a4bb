// The only code that makes and opens v2 packets: an envelope in the manner of age. Specified in docs/packet.md.

import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { concatBytes, equalBytes, wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, JsonString, type JsonValue } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { asKeyUri, formatKeyUri } from '../base/key-uri.ts';
import { CANNOT_BE_UNWRAPPED, type EncryptionContext, type WrappedKey } from '../kms/kek.ts';

/** Public names and values that a packet is bound to, as `--context env=prod` gives them. */
export type Labels = Readonly<Record<string, string>>;

export type PacketV2 = {
  readonly format: 'v2';
  readonly labels: Labels;
  /** 1 to 16 entries, each of which wraps the same data-encryption key. */
  readonly recipients: readonly WrappedKey[];
  readonly mac: Uint8Array;
  readonly nonce: Uint8Array;
  readonly ciphertext: Uint8Array;
};

export const MAXIMUM_RECIPIENTS = 16;
const MAXIMUM_LABELS = 8;
/** Label names start with a letter so that no engine reorders them as array indices. */
const LABEL_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
const LABEL_VALUE = /^[!-~](?:[ -~]{0,254}[!-~])?$/;

const VERSION = 'ocicrypt-kms/v2';
const KEY_LENGTH = 32;
const NONCE_LENGTH = 12;
const TAG_LENGTH = 16;
const MAC_LENGTH = 32;
const TERM = /^[A-Za-z0-9_.+:-]{1,64}$/;
const MAXIMUM_WRAPPED_KEY = 8192;

/**
 * Makes a packet for `optsdata`.
 *
 * @param wrapKey wraps the data-encryption key (32 bytes, wiped afterwards) to every recipient, or throws
 * @returns the packet's bytes
 */
export async function sealPacketV2(
  optsdata: Uint8Array,
  labels: Labels,
  wrapKey: (dataKey: Uint8Array) => Promise<readonly WrappedKey[]>,
): Promise<Uint8Array<ArrayBuffer>> {
  const dataKey = randomBytes(KEY_LENGTH);
  try {
    const recipients = await wrapKey(dataKey);
    const nonce = randomBytes(NONCE_LENGTH);
    const secret = createSecretKey(dataKey);
    const cipher = createCipheriv('aes-256-gcm', deriveKey(secret, 'content'), nonce, { authTagLength: TAG_LENGTH });
    const ciphertext = concatBytes(cipher.update(optsdata), cipher.final(), cipher.getAuthTag());
    const mac = computeMac(secret, labels, recipients);
    return encodePacketV2({ format: 'v2', labels, recipients, mac, nonce, ciphertext });
  } finally {
    wipe(dataKey);
  }
}

/**
 * Opens a packet with its data-encryption key: the MAC over labels and recipients first, then the content.
 *
 * @returns `optsdata`, to be wiped by the caller
 * @throws OcicryptError `integrity`
 */
export function openPacketV2(packet: PacketV2, dataKey: Uint8Array): Uint8Array {
  const secret = dataKey.length === KEY_LENGTH ? createSecretKey(dataKey) : undefined;
  if (secret !== undefined && timingSafeEqual(computeMac(secret, packet.labels, packet.recipients), packet.mac)) {
    const key = deriveKey(secret, 'content');
    const decipher = createDecipheriv('aes-256-gcm', key, packet.nonce, { authTagLength: TAG_LENGTH });
    decipher.setAuthTag(packet.ciphertext.subarray(-TAG_LENGTH));
    const plaintext = decipher.update(packet.ciphertext.subarray(0, -TAG_LENGTH));
    try {
      decipher.final();
      return plaintext;
    } catch {
      wipe(plaintext);
    }
  }
  throw new OcicryptError('integrity', CANNOT_BE_UNWRAPPED);
}

/** The canonical bytes of a packet: RFC 8785, so that two packets are equal exactly when their bytes are. */
export function encodePacketV2(packet: PacketV2): Uint8Array<ArrayBuffer> {
  return writeJson({
    ciphertext: packet.ciphertext,
    labels: sortLabels(packet.labels),
    mac: packet.mac,
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
    nonce: bytesMember(object, 'nonce', NONCE_LENGTH, NONCE_LENGTH),
    ciphertext: bytesMember(object, 'ciphertext', TAG_LENGTH + 1, Number.POSITIVE_INFINITY),
  };
  if (!equalBytes(encodePacketV2(packet), bytes)) invalid('is not in canonical form (RFC 8785)');
  return packet;
}

/** The encryption context of every recipient of a packet with these labels: a domain of our own, and the labels. */
export function packetContext(labels: Labels): EncryptionContext {
  const context: Record<string, string> = { 'ocicrypt-kms': 'v2' };
  for (const [name, value] of Object.entries(labels)) context[`label.${name}`] = value;
  return context;
}

/** The labels in a context that {@link packetContext} made. */
export function contextLabels(context: EncryptionContext): Labels {
  const labels = Object.entries(context).filter(([name]) => name.startsWith('label.'));
  return Object.fromEntries(labels.map(([name, value]) => [name.slice('label.'.length), value]));
}

/** Checks labels that the operator gave. @throws OcicryptError `usage` */
export function checkLabels(labels: Labels): void {
  const entries = Object.entries(labels);
  if (entries.length > MAXIMUM_LABELS) {
    throw new OcicryptError('usage', `${entries.length} labels of --context`, {
      hint: `at most ${MAXIMUM_LABELS} are possible`,
    });
  }
  for (const [name, value] of entries) {
    if (isLabel(name, value)) continue;
    throw new OcicryptError('usage', `label ${JSON.stringify(name)} of --context is not usable`, {
      hint: 'a name is a letter and up to 63 of A-Z a-z 0-9 _ . -, a value 1 to 256 printable ASCII characters',
    });
  }
}

function isLabel(name: string, value: string): boolean {
  return LABEL_NAME.test(name) && LABEL_VALUE.test(value);
}

function sortLabels(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function recipientMembers(recipient: WrappedKey) {
  return {
    algorithm: recipient.algorithm,
    key: recipient.key,
    version: recipient.version,
    wrapped_key: recipient.wrapped,
  };
}

/** The MAC commits to the data key and binds version, labels and every recipient entry (docs/packet.md section 4). */
function computeMac(dataKey: KeyObject, labels: Labels, recipients: readonly WrappedKey[]): Uint8Array {
  const header = writeJson({
    labels: sortLabels(labels),
    recipients: recipients.map(recipientMembers),
    version: VERSION,
  });
  return createHmac('sha256', deriveKey(dataKey, 'header')).update(header).digest();
}

/** HKDF-SHA256 (RFC 5869) without salt. A KeyObject: raw bytes as keys are ten times slower on Node 24. */
function deriveKey(dataKey: KeyObject, purpose: 'content' | 'header'): KeyObject {
  const raw = new Uint8Array(hkdfSync('sha256', dataKey, new Uint8Array(0), `${VERSION} ${purpose}`, KEY_LENGTH));
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
    if (text === undefined || !isLabel(name, text)) invalid('has a label that is not usable');
    else labels[name] = text;
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
  if (uri === undefined || formatKeyUri(uri) !== key) invalid('has a recipient without a canonical key URI');
  const algorithm = asText(entry.get('algorithm')) ?? '';
  const version = entry.has('version') ? (asText(entry.get('version')) ?? '') : undefined;
  if (!TERM.test(algorithm)) invalid('has a recipient without a usable "algorithm"');
  if (version !== undefined && !TERM.test(version)) invalid('has a recipient with an unusable "version"');
  const wrapped = bytesMember(entry, 'wrapped_key', 1, MAXIMUM_WRAPPED_KEY);
  return { key, algorithm, wrapped, ...(version === undefined ? {} : { version }) };
}

function bytesMember(object: JsonObject, name: string, minimum: number, maximum: number): Uint8Array {
  const value = object.get(name);
  const bytes = value instanceof JsonString ? value.base64() : undefined;
  if (bytes === undefined || bytes.length < minimum || bytes.length > maximum)
    return invalid(`has no usable "${name}"`);
  return bytes;
}

function invalid(reason: string): never {
  throw new OcicryptError('bad-input', `the packet ${reason}`);
}
