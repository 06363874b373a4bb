// Which of the operator's keys a request may use: those that it names, the default one, or all of them.

import { OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import { showName } from '../base/shown.ts';
import type { Kek } from '../kms/kek.ts';
import { showKey } from './name-key.ts';
import { type NamedKeys, type NameOptions, USUAL_NAMES } from './parameters.ts';
import {
  type AllowRule,
  covers,
  hasOperatorParts,
  isByAlias,
  selectForCaller,
  type VersionMatching,
  versionOf,
} from './policy.ts';
import type { Operation } from './protocol.ts';
import { selectKeyfile } from './unwrap.ts';

/** What is allowed, as far as it decides which key is used: a part of the provider's options. */
export type SelectionOptions = {
  readonly openKek: (uri: KeyUri) => Promise<Kek>;
  readonly rules: readonly AllowRule[];
  readonly callerKeysAllowed: boolean;
  readonly defaultKey?: KeyUri | undefined;
  readonly names: NameOptions;
  readonly versions?: VersionMatching;
};

/** The named keys, each of them allowed; else the default key; else the only key that the operator allows. */
export async function keysForWrap(named: NamedKeys, options: SelectionOptions): Promise<readonly KeyUri[]> {
  if (named.keys.length > 0) {
    const keys = new Map<string, KeyUri>();
    for (const uri of named.keys) {
      const selected = await selectNamed(uri, 'wrap', options);
      // The file of a recipient of age may hold other identities, too: what is wrapped goes to the one that was named.
      const key = uri.scheme === 'age' ? uri : selected;
      keys.set(formatKeyUri(key), key);
    }
    return [...keys.values()];
  }
  if (options.defaultKey !== undefined) return [options.defaultKey];
  const [only, ...others] = options.rules;
  if (only?.kind === 'key' && others.length === 0) return [only.uri];
  throw new OcicryptError('bad-input', 'no key was named to encrypt to', {
    hint: `name one as in provider:${showName(named.provider ?? options.names.configured ?? USUAL_NAMES[0])}:gcpkms://…, or set ${setting('defaultKey')}`,
  });
}

/** Named keys narrow what the operator allows; if none is named, all of it may be tried. */
export async function rulesForUnwrap(named: NamedKeys, options: SelectionOptions): Promise<readonly AllowRule[]> {
  if (named.keys.length === 0) return options.rules;
  const rules: AllowRule[] = [];
  let refused: unknown;
  for (const key of named.keys) {
    try {
      rules.push({ kind: 'key', uri: await selectNamed(key, 'unwrap', options), named: key });
    } catch (error) {
      refused ??= error;
    }
  }
  if (rules.length === 0) throw refused;
  return rules;
}

/**
 * The key to open for one that the caller named. A file of the operator's that cannot be used hides no other; its fault
 * is said only if it may be why the key is not found.
 */
async function selectNamed(uri: KeyUri, operation: Operation, options: SelectionOptions): Promise<KeyUri> {
  const name = formatKeyUri(uri);
  let unusable: unknown;
  for (const rule of options.rules) {
    if (operation === 'wrap' && rule.kind === 'key' && isByAlias(rule.uri, uri)) continue;
    const selected = selectForCaller(rule, uri, options.versions ?? 'exact');
    if (selected !== undefined) return selected;
  }
  for (const rule of options.rules) {
    try {
      const selected = await selectKeyfile(rule, { key: name }, options);
      if (selected !== undefined) return selected;
    } catch (error) {
      unusable ??= error;
    }
  }
  // A thumbprint opens nothing by itself: the caller's right to it is of no use without the file.
  if (unusable !== undefined && (uri.scheme === 'keyfile' || !options.callerKeysAllowed)) throw unusable;
  if (options.callerKeysAllowed && !hasOperatorParts(uri)) return uri;
  throw new OcicryptError('not-allowed', `key ${name} is not allowed here`, {
    hint: `to allow it, add ${setting('rules')}=${name}`,
  });
}

/** The reference provider replaced the key that the user typed; here a conflict is said. */
export function checkDefaultKey(named: NamedKeys, operation: Operation, options: SelectionOptions): void {
  const { defaultKey, versions = 'exact' } = options;
  if (defaultKey === undefined) return;
  for (const uri of named.keys) {
    const isKnown = operation === 'unwrap' || !isByAlias(defaultKey, uri);
    if (isKnown && covers(defaultKey, uri, versionOf(uri), versions)) continue;
    throw new OcicryptError(
      'bad-input',
      `the caller named key ${formatKeyUri(uri)}, ${setting('defaultKey')} is ${showKey(formatKeyUri(defaultKey))}`,
      {
        hint: 'make them the same, or leave one out',
      },
    );
  }
}
