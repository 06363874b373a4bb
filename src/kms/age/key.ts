// Wraps to age recipients and unwraps with age identities: the wrapped key is a whole age file.
// https://age-encryption.org/v1

import { OcicryptError } from '../../base/errors.ts';
import type { KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { isAgeIdentityFile } from '../age-file.ts';
import { cannotBeUnwrapped, checkPlaintext, type Kek, type WrappedKey } from '../kek.ts';
import { type AgeIdentity, type AgeSettings, forgetAgeIdentities, readAgeIdentities } from './identities.ts';

/** Room for 4 KiB and the header of a post-quantum recipient; a longer header would only cost time. */
const MAXIMUM_WRAPPED_BYTES = 16 * 1024;
/** Milliseconds of the processor for each stanza: a file for one recipient has one, whatever else stands in its header. */
const MAXIMUM_STANZAS = 1;

/**
 * Opens a recipient: wrapping needs nothing else, unwrapping an identity in one of the operator's files. An age file
 * has no place for a context, and anybody who knows the recipient can make one.
 */
export function openAgeRecipient(uri: Extract<KeyUri, { scheme: 'age' }>, settings: AgeSettings): Kek {
  const key = uri.recipient;
  return {
    local: true,
    costly: true,
    key,
    wrap: (plaintext) => encryptTo(key, plaintext),
    async unwrap(wrapped) {
      const own = (await readAll(settings)).filter(({ recipient }) => recipient === key);
      if (own.length > 0) return decryptWith(own, key, wrapped);
      throw new OcicryptError('configuration', `no identity here opens what is for ${shorten(key)}`, {
        hint: `give the file that holds it: ${setting('age.identityFiles')}=FILE`,
      });
    },
    close() {
      for (const path of settings.identityFiles) forgetAgeIdentities(path, settings);
    },
  };
}

/**
 * Opens an identity file: what is wrapped goes to the first of its identities, and each of them unwraps.
 *
 * @throws OcicryptError as {@link readAgeIdentities}
 */
export async function openAgeIdentityFile(path: string, settings: AgeSettings): Promise<Kek> {
  let identities = await readAgeIdentities(path, settings);
  const recipients = identities.map(({ recipient }) => recipient);
  const [key = '', ...otherKeys] = recipients;
  return {
    local: true,
    costly: true,
    key,
    otherKeys,
    wrap: (plaintext) => encryptTo(key, plaintext),
    unwrap: (wrapped) => decryptWith(identities, key, wrapped),
    close() {
      identities = [];
      forgetAgeIdentities(path, settings);
    },
  };
}

/** One after the other: each may ask for a passphrase. */
async function readAll(settings: AgeSettings): Promise<readonly AgeIdentity[]> {
  const identities: AgeIdentity[] = [];
  for (const path of settings.identityFiles.filter(isAgeIdentityFile)) {
    identities.push(...(await readAgeIdentities(path, settings)));
  }
  return identities;
}

async function encryptTo(recipient: string, plaintext: Uint8Array): Promise<WrappedKey> {
  checkPlaintext(shorten(recipient), plaintext);
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  try {
    encrypter.addRecipient(recipient);
  } catch (cause) {
    throw new OcicryptError('bad-input', `${shorten(recipient)} is not a recipient of age`, {
      cause,
      hint: 'one of its characters is wrong: copy it again',
    });
  }
  const wrapped = await encrypter.encrypt(plaintext);
  return { key: recipient, algorithm: algorithmOf(recipient), wrapped };
}

/** The name of the recipient's stanza in an age file. */
function algorithmOf(recipient: string): string {
  return recipient.startsWith('age1pq1') ? 'mlkem768x25519' : 'X25519';
}

async function decryptWith(
  identities: readonly AgeIdentity[],
  key: string,
  { key: asked, algorithm, wrapped }: WrappedKey,
): Promise<Uint8Array> {
  const { Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
  // The packet names the recipient: other identities of the file cannot be meant.
  for (const { recipient, secret } of identities) if (recipient === asked) decrypter.addIdentity(secret);
  try {
    const fits = algorithm === algorithmOf(asked) && wrapped.length <= MAXIMUM_WRAPPED_BYTES;
    if (fits && countStanzas(wrapped, algorithm) <= MAXIMUM_STANZAS) return await decrypter.decrypt(wrapped);
  } catch {
    // Whatever it was: the file comes from a packet, and the library has no codes to tell by.
  }
  throw cannotBeUnwrapped(shorten(key));
}

/** How many stanzas of the algorithm the header of an age file has; lines of base64 begin in another way. */
function countStanzas(file: Uint8Array, algorithm: string): number {
  const [header = ''] = new TextDecoder('latin1').decode(file).split('\n---', 1);
  return header.split('\n').filter((line) => line.startsWith(`-> ${algorithm}`)).length;
}

/** A post-quantum recipient has two thousand characters. */
function shorten(recipient: string): string {
  return recipient.length > 80 ? `${recipient.slice(0, 40)}…` : recipient;
}
