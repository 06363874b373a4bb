// Reads recipients and keys as users write them: key URIs, files, provider:NAME:VALUE, jwe:FILE.pem.

import { resolve } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { asKeyUri, parseKeyUri } from '../base/key-uri.ts';
import { readPublicFile } from '../base/secret-file.ts';
import { showPath, showValue } from '../base/shown.ts';
import { isPemFile } from './jwe.ts';
import type { ProviderParameters } from './provider-messages.ts';

/** Recipients by who wraps for them. */
export type Recipients = {
  /** Key URIs, for our own provider. */
  readonly keys: readonly string[];
  /** Values by the provider that they were named for. */
  readonly providers: ReadonlyMap<string, readonly string[]>;
  /** PEM files. */
  readonly jwe: readonly string[];
};

const MAXIMUM_FILE_BYTES = 1024 * 1024;

/**
 * Sorts recipients; each is taken once.
 *
 * @throws OcicryptError `usage` for a kind that is not known, `bad-input` for a key URI that is none
 */
export function parseRecipients(texts: readonly string[]): Recipients {
  const keys = new Set<string>();
  const providers = new Map<string, string[]>();
  const jwe = new Set<string>();
  for (const text of new Set(texts)) {
    const [, kind, rest = ''] = /^(jwe|pgp|pkcs7|provider):(.*)$/s.exec(text) ?? [];
    if (kind === undefined) {
      parseKeyUri(text);
      keys.add(text);
    } else if (kind === 'provider') {
      const [name, value] = providerValue(rest);
      if (name === '') throw unknown(text);
      providers.set(name, [...(providers.get(name) ?? []), value]);
    } else if (kind === 'jwe' && rest !== '') {
      jwe.add(rest);
    } else {
      throw unknown(text);
    }
  }
  return { keys: [...keys], providers, jwe: [...jwe] };
}

/**
 * The recipients that a file lists, one a line; blank lines and what follows `#` at the start of a line are left out.
 *
 * @throws OcicryptError `not-found`, `configuration`, `bad-input`
 */
export async function readRecipientsFile(file: string): Promise<readonly string[]> {
  const bytes = readPublicFile(file, 'the file of recipients', MAXIMUM_FILE_BYTES);
  const text = bytes.length > MAXIMUM_FILE_BYTES ? '' : new TextDecoder().decode(bytes);
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const recipients = lines.filter((line) => line !== '' && !line.startsWith('#'));
  if (recipients.length > 0) return recipients;
  throw new OcicryptError('bad-input', `${showPath(file)} lists no recipient`, {
    hint: 'one key URI a line, # for comments',
  });
}

/** What opens layer keys, by its kind. */
export type SortedKeys = {
  /** Key URIs as they were written: they may hold an endpoint. */
  readonly keys: readonly string[];
  /** Key files and identity files of age, whole paths. */
  readonly files: readonly string[];
  /** PEM files. */
  readonly jwe: readonly string[];
  /** Values by the provider that they were named for. */
  readonly parameters: ProviderParameters;
};

/**
 * Sorts what `--key` takes: a key URI, a key file, an age identity file, a private key in PEM, `provider:NAME[:VALUE]`.
 *
 * @throws OcicryptError `bad-input` for a key URI that is none
 */
export async function sortKeys(texts: readonly string[]): Promise<SortedKeys> {
  const keys: string[] = [];
  const files: string[] = [];
  const jwe: string[] = [];
  const parameters: Record<string, string[]> = {};
  for (const text of texts) {
    const [, kind, rest = ''] = /^(jwe|provider):(.+)$/s.exec(text) ?? [];
    if (kind === 'provider') {
      const [name, value] = providerValue(rest);
      parameters[name] = [...(parameters[name] ?? []), value];
    } else if (kind === 'jwe') {
      jwe.push(rest);
    } else if (asKeyUri(text) !== undefined || /^[a-z0-9]+:/.test(text)) {
      parseKeyUri(text);
      keys.push(text);
    } else if (await isPemFile(text)) {
      jwe.push(text);
    } else {
      files.push(resolve(text));
    }
  }
  return { keys, files, jwe, parameters };
}

/** `NAME:VALUE`, or `NAME` alone, for which ocicrypt's word is the value `Enabled`. */
function providerValue(text: string): readonly [name: string, value: string] {
  const [name = '', ...value] = text.split(':');
  return [name, value.length === 0 ? 'Enabled' : value.join(':')];
}

function unknown(text: string): OcicryptError {
  return new OcicryptError('usage', `not a recipient: ${showValue(text)}`, {
    hint: 'recipients are key URIs, provider:NAME:VALUE or jwe:PUBLIC.pem',
  });
}
