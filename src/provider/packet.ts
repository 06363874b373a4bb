// Tells packet formats apart: what stands, base64-encoded, in a layer's annotation.

import { OcicryptError } from '../base/errors.ts';
import { asBytes, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import { checkSpelling, knownNames } from '../base/json-members.ts';
import { writeJson } from '../base/json-writer.ts';
import { asKeyUri, formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import type { EncryptionContext, WrappedKey } from '../kms/kek.ts';
import { decodePacketCoco, isPacketCoco, type PacketCoco } from './packet-coco.ts';
import { decodePacketV2, type PacketV2 } from './packet-v2.ts';

/** One key that has wrapped the layer-key record itself, without context: as the reference provider writes it, or hown3d's. */
export type PacketV1 = {
  readonly format: 'aws-kms-ocicrypt' | 'v1';
  readonly recipient: WrappedKey;
  readonly context: EncryptionContext;
};

/** A packet of any format that is read here. */
export type Packet = PacketCoco | PacketV1 | PacketV2;

/** Writes the three members of the reference provider, in its order. */
export function encodePacketV1({ key, wrapped }: Pick<WrappedKey, 'key' | 'wrapped'>): Uint8Array<ArrayBuffer> {
  return writeJson({ key_url: key, wrapped_key: wrapped, wrap_type: 'AES' });
}

/** The keys that a packet asks for, in canonical form. */
export function recipientsOf(packet: Packet): readonly WrappedKey[] {
  return packet.format === 'v2' ? packet.recipients : [packet.recipient];
}

/**
 * Reads a packet of any known format. Nothing in it is trusted: it only says which key is asked for.
 *
 * @param packet what base64 held in the annotation; untrusted
 * @throws OcicryptError `bad-input`, naming the writer where the packet is of one that is not read here
 * @example
 * const { format } = decodePacket(packet);
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
  // Its other reader is written in Go: to it a `Key_url` would be another key than the one that is judged here.
  checkSpelling(object, V1_MEMBERS, 'the packet');
  return decodePacketV1(object);
}

const V1_MEMBERS = knownNames(['key_url', 'wrapped_key', 'wrap_type']);

/** Members that give away a format that no key here can open. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['session_key', 'the TPM key provider'],
  ['attester_endpoint', "Microsoft's secure key release provider"],
  ['wrapped_data', "Confidential Containers' attestation agent"],
];

/** Unknown members are ignored, as the reference provider does. */
function decodePacketV1(object: JsonObject): PacketV1 {
  const keyUrl = asText(object.get('key_url'));
  const wrapped = asBytes(object.get('wrapped_key'));
  const wrapType = object.get('wrap_type');
  if (keyUrl === undefined || keyUrl === '' || wrapped === undefined || wrapped.length === 0) {
    throw new OcicryptError('bad-input', 'the packet is of no known format', {
      hint: 'known are v1 (key_url, wrapped_key, wrap_type) and v2 (docs/packet.md)',
    });
  }
  if (wrapType !== undefined && asText(wrapType) !== 'AES') {
    throw new OcicryptError('bad-input', 'the packet has a "wrap_type" other than AES');
  }
  const uri = asKeyUri(keyUrl);
  if (uri?.scheme === 'gcpkms') return packetV1('v1', uri, wrapped);
  if (wrapType !== undefined) throw notGoogle();
  // The AWS key provider of hown3d writes no type, and its keys as AWS's own tools name them.
  const aws = asKeyUri(keyUrl.startsWith('arn:') ? keyUrl : `awskms:///${keyUrl}`);
  if (aws?.scheme !== 'awskms') throw notGoogle();
  return packetV1('aws-kms-ocicrypt', aws, wrapped);
}

function packetV1(format: PacketV1['format'], uri: KeyUri, wrapped: Uint8Array): PacketV1 {
  return { format, recipient: { key: formatKeyUri(uri), algorithm: '', wrapped }, context: {} };
}

function notGoogle(): OcicryptError {
  return new OcicryptError('bad-input', 'the packet has a "key_url" that names no Google key', {
    hint: 'a v1 packet is for one symmetric Google key, gcpkms://projects/…',
  });
}
