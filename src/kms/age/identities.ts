// Reads age identity files, protected by a passphrase or not.
// https://age-encryption.org/v1

import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { readSecretFile, readSecretLine, type SecretPrompt } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';

/** What the operator says about age; nothing of it ever comes from a packet. */
export type AgeSettings = {
  /** Files that may unwrap (`--key`); those that are no identity files are passed over. */
  readonly identityFiles: readonly string[];
  /** The file that holds the passphrase of protected identity files. */
  readonly passphraseFile?: string | undefined;
  readonly prompt?: SecretPrompt | undefined;
};

/** An identity as age spells it, and the recipient that it opens for. */
export type AgeIdentity = { readonly recipient: string; readonly secret: string };

const MAXIMUM_FILE_BYTES = 64 * 1024;
const MAXIMUM_PASSPHRASE_BYTES = 4096;
const IDENTITY = /^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+$/;

type Reading = Promise<readonly AgeIdentity[]>;
/** What was read, and the files for which somebody typed a wrong passphrase. */
type Memory = { readonly read: Map<string, Reading>; readonly refused: Set<string> };
const memories = new WeakMap<AgeSettings, Memory>();

/**
 * The identities in a file, kept until they are forgotten, so that its passphrase is asked for once, however many need them.
 * They are strings, because age's library takes nothing else; so is the passphrase.
 *
 * @throws OcicryptError `configuration` for what is no identity file, `unauthenticated` for its passphrase
 */
export function readAgeIdentities(path: string, settings: AgeSettings): Reading {
  const { read } = memoryOf(settings);
  const reading = read.get(path) ?? readFile(path, settings);
  read.set(path, reading);
  reading.catch(() => read.delete(path));
  return reading;
}

/** Lets go of what was read. */
export function forgetAgeIdentities(path: string, settings: AgeSettings): void {
  memoryOf(settings).read.delete(path);
}

function memoryOf(settings: AgeSettings): Memory {
  const memory = memories.get(settings) ?? { read: new Map(), refused: new Set() };
  memories.set(settings, memory);
  return memory;
}

async function readFile(path: string, settings: AgeSettings): Reading {
  const content = readSecretFile(path, 'the identity file', MAXIMUM_FILE_BYTES);
  if (content.length > MAXIMUM_FILE_BYTES) throw notIdentities(path);
  const text = isEncrypted(content) ? await decryptFile(path, content, settings) : decode(content);
  wipe(content);
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const secrets = lines.filter((line) => line !== '' && !line.startsWith('#'));
  const { identityToRecipient } = await import('age-encryption');
  const identities: AgeIdentity[] = [];
  for (const secret of secrets) {
    if (!IDENTITY.test(secret)) throw notIdentities(path);
    // Without a cause: the library's error may quote the identity.
    const recipient = await identityToRecipient(secret).catch(() => undefined);
    if (recipient === undefined) throw notIdentities(path);
    identities.push({ recipient, secret });
  }
  if (identities.length === 0) throw notIdentities(path);
  return identities;
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder('latin1').decode(bytes);
}

const ARMOR = '-----BEGIN AGE ENCRYPTED FILE-----';
const HEADER = 'age-encryption.org/v1';

function isEncrypted(content: Uint8Array): boolean {
  const head = decode(content.subarray(0, 64)).trimStart();
  return head.startsWith(ARMOR) || head.startsWith(HEADER);
}

async function decryptFile(path: string, content: Uint8Array, settings: AgeSettings): Promise<string> {
  const { Decrypter, armor } = await import('age-encryption');
  const passphrase = await readPassphrase(path, settings);
  try {
    const decrypter = new Decrypter();
    decrypter.addPassphrase(new TextDecoder().decode(passphrase));
    const text = decode(content);
    return await decrypter.decrypt(text.trimStart().startsWith(ARMOR) ? armor.decode(text) : content, 'text');
  } catch {
    if (settings.passphraseFile === undefined) memoryOf(settings).refused.add(path);
    throw wrongPassphrase(path);
  } finally {
    wipe(passphrase);
  }
}

/** A person is asked once for each file, however many recipients a packet has. */
async function readPassphrase(path: string, settings: AgeSettings): Promise<Uint8Array> {
  const { passphraseFile, prompt } = settings;
  if (passphraseFile !== undefined) {
    return readSecretLine(passphraseFile, 'the passphrase file', MAXIMUM_PASSPHRASE_BYTES);
  }
  if (memoryOf(settings).refused.has(path)) throw wrongPassphrase(path);
  const passphrase = await prompt?.(`passphrase of ${path}: `);
  if (passphrase !== undefined) return passphrase;
  throw new OcicryptError('unauthenticated', `the identity file ${showPath(path)} is protected by a passphrase`, {
    hint: `give it with ${setting('age.passphraseFile')}=FILE, or run this on a terminal`,
  });
}

function wrongPassphrase(path: string): OcicryptError {
  return new OcicryptError('unauthenticated', `the passphrase does not open the identity file ${showPath(path)}`, {
    hint: `try it with: age -d ${showPath(path)}`,
  });
}

function notIdentities(path: string): OcicryptError {
  return new OcicryptError('configuration', `${showPath(path)} is not an identity file of age that can be used`, {
    hint: 'each line must be AGE-SECRET-KEY-… or a comment, as age-keygen writes them; plugins and SSH keys cannot be used',
  });
}
