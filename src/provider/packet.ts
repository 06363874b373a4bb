// The only code that tells packet formats apart: what stands, base64-encoded, in a layer's annotation.

import { OcicryptError } from '../base/errors.ts';
import { asObject, asText, type JsonObject, JsonString, parseJson } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { asKeyUri } from '../base/key-uri.ts';
import { decodePacketCoco, isPacketCoco, type PacketCoco } from './packet-coco.ts';
import { decodePacketV2, type PacketV2 } from './packet-v2.ts';

/** The reference provider's packet: one key that has wrapped the layer-key record itself, without AAD. */
export type PacketV1 = {
  readonly format: 'v1';
  /** As written, which need not be a key URI of ours. */
  readonly keyUrl: string;
  readonly wrapped: Uint8Array;
};

export type Packet = PacketCoco | PacketV1 | PacketV2;

/** Writes the three members of the reference provider, in its order. */
export function encodePacketV1(packet: PacketV1): Uint8Array<ArrayBuffer> {
  return writeJson({ key_url: packet.keyUrl, wrapped_key: packet.wrapped, wrap_type: 'AES' });
}

/**
 * Reads a packet of any known format. Nothing in it is trusted: it only says which key is asked for.
 *
 * @throws OcicryptError `bad-input`, naming the writer where the packet is of one that is not read here
 */
export function decodePacket(packet: Uint8Array): Packet {
  const object = asObject(parseJson(packet, 'the packet'));
  if (object === undefined) throw new OcicryptError('bad-input', 'the packet is not a JSON object');
  if (asText(object.get('version'))?.startsWith('ocicrypt-kms/')) return decodePacketV2(object, packet);
  if (isPacketCoco(object)) return decodePacketCoco(object);
  for (const [member, writer] of FOREIGN) {
    if (object.has(member)) {
      throw new OcicryptError('bad-input', `the packet was written by ${writer}`, {
        hint: 'decrypt the image with that provider and encrypt it again',
      });
    }
  }
  return decodePacketV1(object);
}

/** Members that give away a format that no key here can open. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['session_key', 'the TPM key provider'],
  ['attester_endpoint', "Microsoft's secure key release provider"],
  ['wrapped_data', "Confidential Containers' attestation agent"],
];

/** Unknown members are ignored, as the reference provider does. */
function decodePacketV1(object: JsonObject): PacketV1 {
  const keyUrl = asText(object.get('key_url'));
  const wrappedKey = object.get('wrapped_key');
  const wrapped = wrappedKey instanceof JsonString ? wrappedKey.base64() : undefined;
  const wrapType = object.get('wrap_type');
  if (keyUrl === undefined || keyUrl === '' || wrapped === undefined || wrapped.length === 0) {
    throw new OcicryptError('bad-input', 'the packet is of no known format', {
      hint: 'known are v1 (key_url, wrapped_key, wrap_type) and v2 (docs/packet.md)',
    });
  }
  if (wrapType !== undefined && asText(wrapType) !== 'AES') {
    throw new OcicryptError('bad-input', 'the packet has a "wrap_type" other than AES');
  }
  return { format: 'v1', keyUrl: wrapType === undefined ? nameAwsKey(keyUrl) : keyUrl, wrapped };
}

/** The AWS key provider of hown3d writes this packet too, without a type, and its keys as AWS's own tools name them. */
function nameAwsKey(keyUrl: string): string {
  const aws = `awskms:///${keyUrl}`;
  return asKeyUri(keyUrl) === undefined && asKeyUri(aws) !== undefined ? aws : keyUrl;
}
