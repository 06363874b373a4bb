// Says what a wrapped key is without opening it, for every packet format known in the field.

import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, JsonString, parseJson } from '../../base/json.ts';
import type { JsonRoom } from '../../base/json-room.ts';
import { asKeyUri } from '../../base/key-uri.ts';
import { providerOf, type WrappedLayerKey } from '../../client/layer-keys.ts';
import type { WrappedKey } from '../../kms/kek.ts';
import { decodePacket, recipientsOf } from '../../provider/packet.ts';
import { isPostQuantum } from './algorithms.ts';

/** Who wrote a packet, or what kind of recipients it is for. */
export const PACKET_FORMATS = [
  'v1',
  'v2',
  'aws-kms-ocicrypt',
  'coco-v1',
  'coco-v2',
  'secure-key-release',
  'tpm',
  'jwe',
  'pgp',
  'pkcs7',
  'pkcs11',
  'unknown',
] as const;

/** Which kind of packet a layer's annotation holds; `unknown` for one that nothing here reads. */
export type PacketFormat = (typeof PACKET_FORMATS)[number];

/** One who can open a packet, as far as its text tells: a claim. `key` is undefined if nothing names it (JWE). */
export type PacketRecipient = {
  readonly key: string | undefined;
  readonly version: string | undefined;
  readonly algorithm: string | undefined;
  /** Whether an attacker who records the image today gains nothing by a quantum computer of the future. */
  readonly postQuantum: boolean;
};

/** What a packet says of itself. Every text is hostile: it may hold control characters. */
export type PacketDescription = {
  /** `provider.NAME`, `jwe`, … */
  readonly scheme: string;
  readonly format: PacketFormat;
  readonly recipients: readonly PacketRecipient[];
  readonly labels: Readonly<Record<string, string>>;
  /** Why it cannot be read, if it cannot. */
  readonly problem: string | undefined;
};

/** Describes a packet; never throws, whatever it holds. @param room shared by the packets of one image */
export function describePacket({ scheme, packet }: WrappedLayerKey, room?: JsonRoom): PacketDescription {
  try {
    if (scheme === 'jwe') return describeJwe(packet, room);
    if (scheme === 'pgp' || scheme === 'pkcs7' || scheme === 'pkcs11') return describe(scheme, scheme, []);
    if (providerOf(scheme) === undefined) return describe(scheme, 'unknown', [], 'of an unknown kind');
    return describeProviderPacket(scheme, packet, room);
  } catch (error) {
    return describe(scheme, 'unknown', [], asOcicryptError(error).message);
  }
}

/**
 * Refuses keys that several packets or entries of one scheme are for: two recipients that are one key, which their
 * names did not tell (an alias, a copy of a key file).
 *
 * @param added new keys
 * @param present keys that are there already
 * @throws OcicryptError `bad-input`
 */
export function checkDistinct(added: readonly WrappedLayerKey[], present: readonly WrappedLayerKey[] = []): void {
  const seen = new Set(present.flatMap(namesOf));
  for (const name of added.flatMap(namesOf)) {
    if (seen.has(name)) {
      throw new OcicryptError('bad-input', `two recipients are one key: ${name.split(' ')[1]}`, {
        hint: 'name it once; ocicrypt-kms inspect shows the recipients of an image',
      });
    }
    seen.add(name);
  }
}

function namesOf(key: WrappedLayerKey): readonly string[] {
  const { scheme, recipients } = describePacket(key);
  return recipients.flatMap((recipient) => (recipient.key === undefined ? [] : [`${scheme} ${recipient.key}`]));
}

function describeProviderPacket(scheme: string, packet: Uint8Array, room?: JsonRoom): PacketDescription {
  const object = asObject(parseJson(packet, 'the packet', room));
  const foreign = object && foreignFormat(object);
  if (object !== undefined && foreign !== undefined) return describeForeign(scheme, foreign, object);
  const decoded = decodePacket(packet);
  const recipients = recipientsOf(decoded).map(describeRecipient);
  if (decoded.format === 'v2') return { ...describe(scheme, 'v2', recipients), labels: decoded.labels };
  return describe(scheme, decoded.format === 'v1' ? 'v1' : 'aws-kms-ocicrypt', recipients);
}

/** Packets that wrap the record itself name no algorithm: it is the service's symmetric one. */
function describeRecipient({ key, version, algorithm }: WrappedKey): PacketRecipient {
  const scheme = asKeyUri(key)?.scheme;
  const isSymmetric = algorithm === '' && (scheme === 'gcpkms' || scheme === 'awskms');
  return {
    key,
    version,
    algorithm: algorithm === '' ? undefined : algorithm,
    postQuantum: isSymmetric || isPostQuantum(scheme, algorithm),
  };
}

function describeForeign(scheme: string, format: PacketFormat, object: JsonObject): PacketDescription {
  const key = asText(object.get('kid')) ?? asText(object.get('key_url'));
  const algorithm = asText(object.get('wrap_type'));
  const isAws = (asText(object.get('provider')) ?? '').toLowerCase() === 'aws';
  const isCoco = format === 'coco-v1' || format === 'coco-v2';
  const postQuantum = isCoco && (isAws || isPostQuantum('kbs', algorithm));
  return describe(scheme, format, [{ key, version: undefined, algorithm, postQuantum }]);
}

/** Told apart by members that no other writer has. */
function foreignFormat(object: JsonObject): PacketFormat | undefined {
  if (object.has('session_key')) return 'tpm';
  if (object.has('attester_endpoint') || object.has('kms_endpoint')) return 'secure-key-release';
  if (!object.has('wrapped_data')) return undefined;
  return object.has('version') || object.has('provider') ? 'coco-v2' : 'coco-v1';
}

/** General or flattened JSON serialisation (RFC 7516 section 7.2). A `kid` is the writer's own word for the key. */
function describeJwe(packet: Uint8Array, room?: JsonRoom): PacketDescription {
  const object = asObject(parseJson(packet, 'the JWE', room));
  const shared = [protectedHeader(object), asObject(object?.get('unprotected'))];
  const entries = asArray(object?.get('recipients'))?.map(asObject) ?? [object];
  const recipients = entries.map((entry) => {
    const headers = [asObject(entry?.get('header')), ...shared];
    const algorithm = headers.map((header) => asText(header?.get('alg'))).find((alg) => alg !== undefined);
    return { key: undefined, version: undefined, algorithm, postQuantum: false };
  });
  return describe('jwe', 'jwe', recipients);
}

function protectedHeader(object: JsonObject | undefined): JsonObject | undefined {
  const encoded = object?.get('protected');
  if (!(encoded instanceof JsonString)) return undefined;
  return asObject(parseJson(new Uint8Array(Buffer.from(encoded.text(), 'base64url')), 'the JWE header'));
}

function describe(
  scheme: string,
  format: PacketFormat,
  recipients: readonly PacketRecipient[],
  problem?: string,
): PacketDescription {
  return { scheme, format, recipients, labels: {}, problem };
}
