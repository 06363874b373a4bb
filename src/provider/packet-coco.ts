// Reads and writes packets of Confidential Containers: v1, whose key its own broker keeps, and v2
// for AWS KMS, which its guests unwrap by themselves. Facts: guest-components, image encryption.

import { parseAwsArn } from '../base/aws-arn.ts';
import { concatBytes } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { asBytes, asObject, asText, type JsonObject } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { asKeyUri, formatKeyUri, type KeyUri, parseKeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import type { EncryptionContext, WrappedKey } from '../kms/kek.ts';

/** One key that has wrapped the layer-key record itself. */
export type PacketCoco = {
  readonly format: 'coco-v1' | 'coco-v2';
  /** `kbs:///REPOSITORY/TYPE/TAG` (nonce, ciphertext and tag in `wrapped`), or an AWS key. */
  readonly recipient: WrappedKey;
  /** What AWS binds it to; empty for a key of the broker. */
  readonly context: EncryptionContext;
};

const VERSION = '0.1.0';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const MAXIMUM_CONTEXT = 16;
const MAXIMUM_CONTEXT_VALUE = 1024;

/** Whether the members are those of these packets. */
export function isPacketCoco(object: JsonObject): boolean {
  return object.has('kid') && object.has('wrapped_data') && !object.has('attester_endpoint');
}

/**
 * Reads a packet. Its region and other settings of the provider are not followed: the operator's entry says where a
 * key is. Unknown members are ignored, as its own readers do.
 *
 * @throws OcicryptError `bad-input`
 */
export function decodePacketCoco(object: JsonObject): PacketCoco {
  const version = object.has('version') ? asText(object.get('version')) : VERSION;
  if (version !== VERSION) return invalid('is of another version', `known is ${VERSION}`);
  const provider = (object.has('provider') ? (asText(object.get('provider')) ?? '') : 'kbs').toLowerCase();
  const kid = asText(object.get('kid')) ?? '';
  const wrapped = readBytes(object, 'wrapped_data');
  if (provider === 'aws') {
    const recipient = { key: readKey(`awskms:///${kid}`, 'awskms'), algorithm: '', wrapped };
    return { format: 'coco-v2', recipient, context: readContext(object) };
  }
  if (provider !== 'kbs') return invalid('is for a provider that is not supported here', 'known are kbs and aws');
  // A256CTR, the other one there is, authenticates nothing.
  if (asText(object.get('wrap_type')) !== 'A256GCM') return invalid('has a "wrap_type" other than A256GCM');
  const nonce = readBytes(object, 'iv');
  if (nonce.length !== NONCE_BYTES || wrapped.length <= TAG_BYTES)
    return invalid('has an "iv" or data of another size');
  const recipient = { key: readKey(kid, 'kbs'), algorithm: 'A256GCM', wrapped: concatBytes(nonce, wrapped) };
  const format = object.has('version') || object.has('provider') ? 'coco-v2' : 'coco-v1';
  return { format, recipient, context: {} };
}

/**
 * Writes a v2 packet for AWS: the ARN that answered, its region, and the context that a guest must give.
 *
 * @throws OcicryptError `bad-input` for a key that is not a symmetric one of AWS
 */
export function encodePacketCocoAws(wrapped: WrappedKey, context: EncryptionContext): Uint8Array<ArrayBuffer> {
  const uri = parseKeyUri(wrapped.key);
  const arn = uri.scheme === 'awskms' ? uri.key : '';
  const region = parseAwsArn(arn)?.region;
  if (region === undefined || wrapped.algorithm !== 'SYMMETRIC_DEFAULT') throw notForCoco();
  return writeJson({
    version: VERSION,
    kid: arn,
    wrapped_data: wrapped.wrapped,
    provider: 'aws',
    provider_settings: { region },
    annotations: { encryption_context: context },
  });
}

/** What is said of keys that have no place in such a packet. */
export function notForCoco(): OcicryptError {
  return new OcicryptError('bad-input', 'a coco-v2 packet holds one symmetric AWS key', {
    hint: `use ${setting('packet')} v2`,
  });
}

/** @returns the canonical URI */
function readKey(text: string, scheme: KeyUri['scheme']): string {
  const uri = asKeyUri(text);
  return uri?.scheme === scheme ? formatKeyUri(uri) : invalid('has a "kid" that names no key');
}

function readContext(object: JsonObject): EncryptionContext {
  const value = asObject(object.get('annotations'))?.get('encryption_context');
  if (value === undefined) return {};
  const members = asObject(value) ?? invalid('has an "encryption_context" that is not an object');
  const context: [string, string][] = [];
  for (const [name, member] of members) {
    const text = asText(member) ?? invalid('has an "encryption_context" with a value that is not a text');
    if (text.length > MAXIMUM_CONTEXT_VALUE) invalid('has an "encryption_context" that is too long');
    context.push([name, text]);
  }
  if (context.length > MAXIMUM_CONTEXT) invalid('has an "encryption_context" that is too long');
  return Object.fromEntries(context);
}

function readBytes(object: JsonObject, name: string): Uint8Array {
  const bytes = asBytes(object.get(name));
  return bytes !== undefined && bytes.length > 0 ? bytes : invalid(`has no usable "${name}"`);
}

function invalid(reason: string, hint?: string): never {
  throw new OcicryptError('bad-input', `the packet of Confidential Containers ${reason}`, { hint });
}
