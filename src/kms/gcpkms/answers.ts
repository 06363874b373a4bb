// What Google Cloud KMS answers, checked: checksums of fields, the names that answered, public keys and versions.

import type { KeyObject } from 'node:crypto';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { asArray, asBytes, asObject, asText, type JsonObject } from '../../base/json.ts';
import type { JsonInput } from '../../base/json-writer.ts';
import type { KeyUri } from '../../base/key-uri.ts';
import { damagedAnswer, readAnswer } from '../answers.ts';
import { modulusBits, type OaepHash, readRsaPublicKey } from '../rsa-oaep.ts';
import { crc32c } from './crc32c.ts';

type GcpKeyUri = Extract<KeyUri, { scheme: 'gcpkms' }>;

/** `RSA_DECRYPT_OAEP_3072_SHA256` in parts. */
export type RsaAlgorithm = { readonly name: string; readonly bits: number; readonly hash: OaepHash };

/** The public half of one version of a key. */
export type GooglePublicKey = { readonly version: string; readonly algorithm: RsaAlgorithm; readonly key: KeyObject };

/** The name of the one algorithm of symmetric keys. */
export const SYMMETRIC = 'GOOGLE_SYMMETRIC_ENCRYPTION';

const VERSION = /^[1-9]\d{0,9}$/;
const RSA_ALGORITHM = /^RSA_DECRYPT_OAEP_(2048|3072|4096)_SHA(1|256|512)$/;
const HASHES: Readonly<Record<string, OaepHash>> = { 1: 'sha1', 256: 'sha256', 512: 'sha512' };

/** Whether `text` is the number of a version, and so safe in a path. */
export function isVersion(text: string): boolean {
  return VERSION.test(text);
}

/** Undefined for every algorithm but RSA-OAEP: https://cloud.google.com/kms/docs/algorithms */
export function parseRsaAlgorithm(name: string): RsaAlgorithm | undefined {
  const [, bits, hashBits] = RSA_ALGORITHM.exec(name) ?? [];
  const hash = HASHES[hashBits ?? ''];
  return hash === undefined ? undefined : { name, bits: Number(bits), hash };
}

/** A field and its checksum, which is sent even for no bytes: only then does the service confirm that it got none. */
export function checkedField(name: string, bytes: Uint8Array): { readonly [member: string]: JsonInput | undefined } {
  return { [name]: bytes.length === 0 ? undefined : bytes, [`${name}Crc32c`]: String(crc32c(bytes)) };
}

/** The field where its checksum is there and right; protocol buffers leave out a field of no bytes. */
export function readChecked(answer: JsonObject, name: string): Uint8Array<ArrayBuffer> | undefined {
  const value = answer.get(name);
  const bytes = value === undefined ? new Uint8Array(0) : asBytes(value);
  if (bytes !== undefined && hasChecksum(answer, name, bytes)) return bytes;
  wipe(bytes);
  return undefined;
}

/**
 * The version in an answer's `name`, or undefined if that is not the key (and version) that was asked. Google names
 * a project by its id or its number, whichever way the caller did; an id is never all digits.
 */
export function readVersion(uri: GcpKeyUri, name: string): string | undefined {
  const [, key = '', version = ''] = /^(.+)\/cryptoKeyVersions\/(\d+)$/.exec(name) ?? [];
  if (!isSameKey(uri.key, key) || !isVersion(version)) return undefined;
  return uri.version === undefined || uri.version === version ? version : undefined;
}

/**
 * The answer to `getPublicKey`.
 *
 * @throws OcicryptError `integrity` if a checksum or name is not right; `configuration` if the key cannot wrap
 */
export function readPublicKey(uri: GcpKeyUri, key: string, body: Uint8Array): GooglePublicKey {
  const answer = readAnswer('Google KMS', key, body);
  const version = readVersion(uri, asText(answer.get('name')) ?? '');
  if (version === undefined) throw damaged(key, 'another key answered');
  const name = asText(answer.get('algorithm')) ?? '';
  const algorithm = parseRsaAlgorithm(name);
  if (algorithm === undefined) throw otherAlgorithm(key, name);
  const pem = asText(answer.get('pem')) ?? '';
  if (!hasChecksum(answer, 'pem', new TextEncoder().encode(pem))) throw damaged(key, 'pemCrc32c');
  const rsa = readRsaPublicKey({ pem });
  if (rsa === undefined || modulusBits(rsa) !== algorithm.bits) throw damaged(key, `no key of ${algorithm.name}`);
  return { version, algorithm, key: rsa };
}

/**
 * The newest of the versions in an answer that are enabled and not symmetric; undefined if there is none, and whether
 * those that there are are symmetric.
 *
 * @throws OcicryptError `configuration` if there are more versions than one answer holds
 */
export function readNewestVersion(
  uri: GcpKeyUri,
  key: string,
  body: Uint8Array,
): { readonly version: string | undefined; readonly isSymmetric: boolean } {
  const answer = readAnswer('Google KMS', key, body);
  if ((asText(answer.get('nextPageToken')) ?? '') !== '') {
    throw new OcicryptError('configuration', `${key} has too many versions to find the newest one`, {
      hint: `name a version: ${key}/cryptoKeyVersions/N`,
    });
  }
  const versions = (asArray(answer.get('cryptoKeyVersions')) ?? []).map((entry) => asObject(entry));
  const numbers = versions.flatMap((entry) => {
    const version = readVersion(uri, asText(entry?.get('name')) ?? '');
    const isUsable = asText(entry?.get('state')) === 'ENABLED';
    const algorithm = asText(entry?.get('algorithm')) ?? '';
    if (version === undefined || !isUsable || algorithm === SYMMETRIC) return [];
    if (algorithm !== '' && parseRsaAlgorithm(algorithm) === undefined) throw otherAlgorithm(key, algorithm);
    return [Number(version)];
  });
  return {
    version: numbers.length === 0 ? undefined : String(Math.max(...numbers)),
    isSymmetric: versions.some((entry) => asText(entry?.get('algorithm')) === SYMMETRIC),
  };
}

/** MAC, raw, signing and key-encapsulation keys. */
function otherAlgorithm(key: string, name: string): OcicryptError {
  return new OcicryptError('configuration', `${key} is a key of ${JSON.stringify(name.slice(0, 64))}`, {
    hint: 'usable are symmetric encryption and asymmetric decryption with RSA-OAEP',
  });
}

export function damaged(key: string, how: string): OcicryptError {
  return damagedAnswer('Google KMS', key, how);
}

function isSameKey(asked: string, answered: string): boolean {
  if (asked === answered) return true;
  const [, askedProject = '', ...askedRest] = asked.split('/');
  const [collection, answeredProject = '', ...answeredRest] = answered.split('/');
  if (collection !== 'projects' || askedRest.join('/') !== answeredRest.join('/')) return false;
  return askedProject === answeredProject || isNumber(askedProject) !== isNumber(answeredProject);
}

function isNumber(project: string): boolean {
  return /^\d+$/.test(project);
}

function hasChecksum(answer: JsonObject, name: string, bytes: Uint8Array): boolean {
  // A 64-bit number is a string in JSON.
  const checksum = answer.get(`${name}Crc32c`);
  return (asText(checksum) ?? checksum) === String(crc32c(bytes));
}
