// The only code that reads age identity files, protected by a passphrase or not.
// https://age-encryption.org/v1

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { readSecretFile, readSecretLine, type SecretPrompt } from '../base/secret-file.ts';

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

const MAXIMUM_FILE = 64 * 1024;
const MAXIMUM_PASSPHRASE = 4096;
const IDENTITY = /^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+$/;

/**
 * The identities in a file. They are strings, because age's library takes nothing else; so is the passphrase.
 *
 * @throws OcicryptError `configuration` for what is no identity file, `unauthenticated` for its passphrase
 */
export async function readAgeIdentities(path: string, settings: AgeSettings): Promise<readonly AgeIdentity[]> {
  const content = readSecretFile(path, 'the identity file', MAXIMUM_FILE);
  if (content.length > MAXIMUM_FILE) throw notIdentities(path);
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
    throw new OcicryptError('unauthenticated', `the passphrase does not open the identity file ${path}`, {
      hint: `try it with: age -d ${path}`,
    });
  } finally {
    wipe(passphrase);
  }
}

async function readPassphrase(path: string, { passphraseFile, prompt }: AgeSettings): Promise<Uint8Array> {
  if (passphraseFile !== undefined) {
    return readSecretLine(passphraseFile, 'the passphrase file', MAXIMUM_PASSPHRASE);
  }
  const passphrase = await prompt?.(`passphrase of ${path}: `);
  if (passphrase !== undefined) return passphrase;
  throw new OcicryptError('unauthenticated', `the identity file ${path} is protected by a passphrase`, {
    hint: 'give it with --age-passphrase-file=FILE, or run this on a terminal',
  });
}

function notIdentities(path: string): OcicryptError {
  return new OcicryptError('configuration', `${path} is not an identity file of age that can be used`, {
    hint: 'each line must be AGE-SECRET-KEY-… or a comment, as age-keygen writes them; plugins and SSH keys cannot be used',
  });
}
