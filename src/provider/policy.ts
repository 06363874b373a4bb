// Decides which keys may be used: deny by default, in canonical form, before any socket is opened.

import { isSameAwsKey, parseAwsArn } from '../base/aws-arn.ts';
import { OcicryptError } from '../base/errors.ts';
import { azureHost, formatKeyUri, type KeyUri, parseKeyUri } from '../base/key-uri.ts';
import { showValue } from '../base/shown.ts';

/** One line of the operator's list: a key, or every key below a prefix that ends on a segment boundary. */
export type AllowRule = {
  /** The one operation that is allowed, if not both are. */
  readonly operation?: 'wrap' | 'unwrap';
  /** The key that the caller named, if the line may open more: of an alias or a file only that key is opened. */
  readonly named?: KeyUri;
} & ({ readonly kind: 'key'; readonly uri: KeyUri } | { readonly kind: 'prefix'; readonly prefix: string });

/** Whether versions of one Google key are different keys; users of the reference provider mix them. */
export type VersionMatching = 'exact' | 'ignored';

/** Prefixes exist where keys have a hierarchy, and start below what a credential could be sent to. */
const PREFIX =
  /^(?:gcpkms:\/\/projects\/(?:[A-Za-z0-9_.:-]+\/)*|awskms:\/\/\/arn:aws[a-z-]*:kms:[a-z0-9-]{1,32}:\d{12}:(?:key|alias)\/(?:[A-Za-z0-9_-]+\/)*|azurekms:\/\/[A-Za-z0-9.-]+\.[A-Za-z0-9-]+\/)$/;

/**
 * Reads `--allow` and `allow:`: a key URI, or a prefix ending in `/*` on a segment boundary.
 *
 * @param text a key URI, or a prefix of key URIs
 * @throws OcicryptError `configuration`
 * @example
 * const rule = parseAllowRule('gcpkms://projects/acme/*');
 */
export function parseAllowRule(text: string): AllowRule {
  if (!text.endsWith('/*')) return { kind: 'key', uri: parseKeyUri(text) };
  const prefix = text.slice(0, -1);
  if (!PREFIX.test(prefix) || prefix.split('/').some((segment) => segment === '.' || segment === '..')) {
    throw new OcicryptError('configuration', `not a prefix of keys: ${showValue(text)}`, {
      hint: 'prefixes look like gcpkms://projects/PROJECT/*, awskms:///arn:aws:kms:REGION:ACCOUNT:key/* or azurekms://VAULT.vault.azure.net/*',
    });
  }
  return { kind: 'prefix', prefix: prefix.startsWith('azurekms:') ? prefix.toLowerCase() : prefix };
}

/**
 * The key to open for the recipient of a packet, or undefined if the rule does not allow it. What is opened is the
 * operator's own entry; only below a prefix does the packet name the key, in canonical form, which holds no host
 * but an Azure vault's under the prefix.
 *
 * @param recipient the packet's key in canonical form
 * @param version the version that the packet names beside it
 */
export function selectForPacket(
  rule: AllowRule,
  recipient: KeyUri,
  version: string | undefined,
  versions: VersionMatching,
): KeyUri | undefined {
  if (recipient.scheme === 'keyfile' && 'path' in recipient) return undefined;
  if (rule.kind === 'prefix') return formatKeyUri(recipient).startsWith(rule.prefix) ? recipient : undefined;
  return covers(rule.uri, recipient, versionOf(recipient) ?? version, versions) ? rule.uri : undefined;
}

/**
 * Whether the rule allows wrapping only: it names a version of a symmetric Google key. Such a ciphertext says its version
 * to the service, the call does not, and what a packet says of it proves nothing. A packet that calls such a key
 * asymmetric gains nothing: the service refuses.
 *
 * @param algorithm what the packet says beside the key
 */
export function isForWrappingOnly(
  rule: AllowRule,
  recipient: KeyUri,
  algorithm: string,
  versions: VersionMatching,
): boolean {
  if (rule.kind !== 'key' || rule.uri.scheme !== 'gcpkms' || recipient.scheme !== 'gcpkms') return false;
  const hasVersion = versions === 'exact' && rule.uri.version !== undefined;
  return hasVersion && rule.uri.key === recipient.key && !algorithm.startsWith('RSA_DECRYPT_OAEP_');
}

/** The key to open for a key that the caller named, or undefined if the rule does not allow it. */
export function selectForCaller(rule: AllowRule, named: KeyUri, versions: VersionMatching): KeyUri | undefined {
  if (rule.kind === 'prefix') {
    return formatKeyUri(named).startsWith(rule.prefix) && !hasOperatorParts(named) ? named : undefined;
  }
  if (!covers(rule.uri, named, versionOf(named), versions)) return undefined;
  return versionOf(rule.uri) === undefined && versionOf(named) !== undefined ? named : rule.uri;
}

/**
 * Whether only the service can tell that the operator's entry is the named key: an alias, if the caller named an ARN.
 * When unwrapping the answer is compared; what is wrapped would be for whatever key the alias is of.
 */
export function isByAlias(entry: KeyUri, named: KeyUri): boolean {
  if (entry.scheme !== 'awskms' || named.scheme !== 'awskms') return false;
  return (parseAwsArn(entry.key)?.resource ?? entry.key).startsWith('alias/') && entry.key !== named.key;
}

/** Whether a recipient is what the caller named, if it named a key: a path says nothing of what the file holds. */
export function isNamed(
  { named }: AllowRule,
  recipient: KeyUri,
  version: string | undefined,
  versions: VersionMatching,
): boolean {
  if (named === undefined || (named.scheme === 'keyfile' && 'path' in named)) return true;
  return covers(named, recipient, versionOf(recipient) ?? version, versions);
}

/** Whether the URI holds what only the operator may set: an endpoint, a module, a slot, a PIN source. */
export function hasOperatorParts(uri: KeyUri): boolean {
  if (uri.scheme === 'pkcs11') return uri.slot !== undefined || uri.query.size > 0;
  return uri.scheme === 'awskms' && uri.endpoint !== undefined;
}

/**
 * What the calls of a key are counted with: the key whatever its version, or the prefix that allows it if no line names the
 * key. Versions, and keys below a prefix, are chosen by packets and callers, without end.
 */
export function countedAs(rules: readonly AllowRule[], uri: KeyUri): string {
  const key = withoutVersion(uri);
  const isListed = rules.some((rule) => rule.kind === 'key' && withoutVersion(rule.uri) === key);
  const prefixes = rules.flatMap((rule) => (rule.kind === 'prefix' && !isListed ? [rule.prefix] : []));
  return prefixes.find((prefix) => key.startsWith(prefix)) ?? key;
}

function withoutVersion(uri: KeyUri): string {
  if (uri.scheme === 'gcpkms') return formatKeyUri({ scheme: 'gcpkms', key: uri.key });
  return formatKeyUri(uri.scheme === 'azurekms' ? { scheme: 'azurekms', host: uri.host, key: uri.key } : uri);
}

/** Whether the operator's entry is the asked key, or every version of it if the entry names none. */
export function covers(
  entry: KeyUri,
  asked: KeyUri,
  askedVersion: string | undefined,
  versions: VersionMatching,
): boolean {
  const entryVersion = versionOf(entry);
  const versionAllowed =
    entryVersion === undefined ||
    entryVersion === askedVersion ||
    (versions === 'ignored' && entry.scheme === 'gcpkms');
  switch (entry.scheme) {
    case 'gcpkms':
      return asked.scheme === 'gcpkms' && entry.key === asked.key && versionAllowed;
    case 'awskms':
      return asked.scheme === 'awskms' && coversAws(entry.key, asked.key);
    case 'azurekms':
      return (
        asked.scheme === 'azurekms' &&
        azureHost(entry.host) === azureHost(asked.host) &&
        entry.key.toLowerCase() === asked.key.toLowerCase() &&
        versionAllowed
      );
    case 'pkcs11':
      return asked.scheme === 'pkcs11' && coversPkcs11(entry.path, asked.path);
    default:
      return formatKeyUri(entry) === formatKeyUri(asked);
  }
}

/**
 * Packets hold the ARN that answered. An alias or a bare id of the operator's may be any such ARN as far as its text
 * tells; the backend sends the operator's name and compares the ARN that answers with the packet's. Replicas of a
 * multi-Region key are one key: the operator's entry says in which region it is asked.
 */
function coversAws(entry: string, asked: string): boolean {
  if (entry === asked) return true;
  const [entryArn, askedArn] = [parseAwsArn(entry), parseAwsArn(asked)];
  // Packets of other programs may hold the bare id.
  if (askedArn === undefined) return entryArn?.resource === `key/${asked}`;
  if (!askedArn.resource.startsWith('key/')) return false;
  if (entryArn === undefined) return entry.startsWith('alias/') || askedArn.resource === `key/${entry}`;
  if (!entryArn.resource.startsWith('alias/')) return isSameAwsKey(entry, asked);
  return (
    entryArn.partition === askedArn.partition &&
    entryArn.account === askedArn.account &&
    (entryArn.region === askedArn.region || askedArn.resource.startsWith('key/mrk-'))
  );
}

/** Two URIs of one object may name different attributes of it; those that both name must agree, one of them its name. */
function coversPkcs11(entry: ReadonlyMap<string, string>, asked: ReadonlyMap<string, string>): boolean {
  const shared = [...entry].filter(([name]) => asked.has(name));
  return (
    shared.every(([name, value]) => asked.get(name) === value) &&
    shared.some(([name]) => name === 'object' || name === 'id')
  );
}

/** The version that a URI names, in its canonical form. */
export function versionOf(uri: KeyUri): string | undefined {
  return uri.scheme === 'gcpkms' || uri.scheme === 'azurekms' ? uri.version?.toLowerCase() : undefined;
}
