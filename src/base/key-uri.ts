// The spelling of keys: key URIs in, canonical key URIs out. The grammar is docs/keys.md.

import { OcicryptError } from './errors.ts';
import { suggestSpelling } from './key-dialects.ts';
import { showKeyText } from './shown.ts';

/** A key as its parts. What a part may hold is fixed by the grammar, so that it is safe inside a path or a header. */
export type KeyUri =
  | { readonly scheme: 'gcpkms'; readonly key: string; readonly version?: string }
  | { readonly scheme: 'awskms'; readonly key: string; readonly endpoint?: string }
  | { readonly scheme: 'azurekms'; readonly host: string; readonly key: string; readonly version?: string }
  | { readonly scheme: 'hashivault'; readonly key: string; readonly engine?: string; readonly namespace?: string }
  | {
      readonly scheme: 'pkcs11';
      readonly path: Attributes;
      readonly slot?: string | undefined;
      readonly query: Attributes;
    }
  | { readonly scheme: 'keyfile'; readonly path: string }
  | { readonly scheme: 'keyfile'; readonly thumbprint: string }
  | { readonly scheme: 'age'; readonly recipient: string }
  | { readonly scheme: 'kbs'; readonly path: string }
  | OwnKeyUri;

/** A key of a scheme that a program opens itself, `x-NAME:VALUE`: the command opens none. */
export type OwnKeyUri = { readonly scheme: `x-${string}`; readonly value: string };

/** Names and values of a PKCS#11 URI, unescaped. */
export type Attributes = ReadonlyMap<string, string>;
export type Scheme = KeyUri['scheme'];

/** Characters of a URI and of its canonical form, which packets store. */
export const MAXIMUM_LENGTH = 2048;

/**
 * Parses a key URI or one of the bare forms (`projects/…`, `arn:aws:kms:…`, `https://HOST/keys/KEY`, `age1…`).
 * Anchored patterns and not WHATWG `URL`, which resolves `..` silently and takes user information.
 *
 * @param text at most 2048 characters, as users write keys
 * @throws OcicryptError `bad-input`; for another tool's spelling of a key that we have, the hint is our spelling
 * @example
 * const { scheme } = parseKeyUri('keyfile:///etc/ocicrypt-kms/app.key'); // keyfile
 */
export function parseKeyUri(text: string): KeyUri {
  if (text.length > MAXIMUM_LENGTH) {
    throw new OcicryptError('bad-input', `key URI of ${text.length} characters`, {
      hint: `at most ${MAXIMUM_LENGTH} are possible`,
    });
  }
  const parsed = asKeyUri(text);
  if (parsed !== undefined) return parsed;
  throw new OcicryptError('bad-input', `not a key URI: ${showKeyText(text)}`, {
    hint:
      suggestSpelling(text, (spelling) => asKeyUri(spelling) !== undefined) ??
      `keys look like ${examplesFor(text).join(', ')}`,
  });
}

/** What {@link parseKeyUri} returns, or undefined if it would throw. */
export function asKeyUri(text: string): KeyUri | undefined {
  const parsed = text.length <= MAXIMUM_LENGTH && PLAIN.test(text) ? parsePlain(text) : undefined;
  return parsed !== undefined && formatKeyUri(parsed).length <= MAXIMUM_LENGTH ? parsed : undefined;
}

/**
 * The canonical spelling: what packets store and policy compares. It names a key and never a host that a credential
 * could be sent to, a file, a module or a PIN; two spellings of one key have one canonical form.
 * A `keyfile` that is known by its path only keeps it, for messages.
 *
 * @param uri a key as its parts
 * @throws nothing
 * @example
 * formatKeyUri(parseKeyUri('openbao://images')); // hashivault://images
 */
export function formatKeyUri(uri: KeyUri): string {
  switch (uri.scheme) {
    case 'gcpkms':
      return `gcpkms://${uri.key}${uri.version === undefined ? '' : `/cryptoKeyVersions/${uri.version}`}`;
    case 'awskms':
      return `awskms:///${uri.key}`;
    case 'azurekms':
      return `azurekms://${azureHost(uri.host)}/${uri.key}${uri.version === undefined ? '' : `/${uri.version}`}`.toLowerCase();
    case 'hashivault':
      return `hashivault://${uri.key}${formatVaultQuery(uri)}`;
    case 'pkcs11':
      return `pkcs11:${[...uri.path].map(([name, value]) => `${name}=${escapePkcs11(value)}`).join(';')}`;
    case 'keyfile':
      return 'path' in uri ? `keyfile://${uri.path}` : `keyfile:sha256:${uri.thumbprint}`;
    case 'age':
      return uri.recipient;
    case 'kbs':
      return `kbs:///${uri.path}`;
    default:
      return `${uri.scheme}:${uri.value}`;
  }
}

/** The canonical spelling, and what it leaves out: two entries of the operator's that lead elsewhere differ in it. */
export function formatEntry(uri: KeyUri): string {
  switch (uri.scheme) {
    case 'awskms':
      return JSON.stringify([formatKeyUri(uri), uri.endpoint]);
    case 'pkcs11':
      return JSON.stringify([formatKeyUri(uri), uri.slot, ...uri.query]);
    default:
      return formatKeyUri(uri);
  }
}

/** The host of an Azure vault: a name without a dot is a vault in the public cloud, as in sigstore's form. */
export function azureHost(host: string): string {
  return (host.includes('.') ? host : `${host}.vault.azure.net`).toLowerCase();
}

const EXAMPLES = [
  'gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY',
  'awskms:///ARN',
  'azurekms://VAULT.vault.azure.net/KEY',
  'hashivault://KEY',
  'pkcs11:token=TOKEN;object=KEY',
  'keyfile:///PATH',
  'age1…',
];

/** Those of the scheme that the text begins with, else all. */
function examplesFor(text: string): readonly string[] {
  const scheme = /^[a-z0-9]+:/.exec(text)?.[0];
  const own = EXAMPLES.filter((example) => scheme !== undefined && example.startsWith(scheme));
  return own.length > 0 ? own : EXAMPLES;
}

/** Printable ASCII without what no key needs and what splits or escapes elsewhere: space, comma, backslash, `#`. */
const PLAIN = /^[!-~]+$/;
const FORBIDDEN = /[,\\#]/;

const SEGMENT = '[A-Za-z0-9_-]{1,63}';
const PROJECT = '(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]{0,61}';
const UUID = '(?:mrk-[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})';
const ALIAS = 'alias/[A-Za-z0-9_-][A-Za-z0-9/_-]{0,249}';
const ARN = `arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,32}:\\d{12}:(?:key/${UUID}|${ALIAS})`;
const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const NAME = `${LABEL}(?:\\.${LABEL})*`;
const HOST_AND_PORT = `(?:${NAME}|\\[[0-9A-Fa-f:]+\\])(?::\\d{1,5})?`;
const VAULT_KEY = '[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?';
/** Bech32 (BIP 173) text of the length that age's recipients have: X25519, or the post-quantum hybrid. */
const AGE = /^age1(?:[02-9ac-hj-np-z]{58}|pq1[02-9ac-hj-np-z]{1952})$/;

const GCP = new RegExp(
  `^(?:gcpkms://)?(projects/${PROJECT}/locations/[a-z0-9-]{1,63}/keyRings/${SEGMENT}/cryptoKeys/${SEGMENT})(?:/(?:cryptoKeyVersions|versions)/([1-9]\\d{0,9}))?$`,
);
const AWS = new RegExp(`^awskms://(${HOST_AND_PORT})?/(${ARN}|${UUID}|${ALIAS})$`);
const AWS_ARN = new RegExp(`^${ARN}$`);
const AZURE = new RegExp(`^azurekms://(${NAME})(?::443)?/([0-9A-Za-z-]{1,127})(?:/([0-9A-Fa-f]{32})?)?$`);
const AZURE_ID = new RegExp(`^https://(${NAME})(?::443)?/keys/([0-9A-Za-z-]{1,127})(?:/([0-9A-Fa-f]{32})?)?$`);
const VAULT = new RegExp(`^(?:hashivault|openbao)://(${VAULT_KEY})(?:\\?(.+))?$`);
/** A mount or namespace path: segments that cannot climb. */
const VAULT_PATH = new RegExp(`^${VAULT_KEY}(?:/${VAULT_KEY})*$`);
const KEYFILE = /^keyfile:\/\/((?:\/[^/?]+)+)$/;
const KEYFILE_THUMBPRINT = /^keyfile:sha256:([0-9a-f]{64})$/;
const KBS = new RegExp(`^kbs://(?:${HOST_AND_PORT})?/([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)$`);

const OWN = /^x-([a-z][a-z0-9]{0,30}):((?:[A-Za-z0-9]|\/)[A-Za-z0-9_.~:@;=+/-]*)$/;

/** The scheme decides which pattern is tried: compiling all of them would cost each start of the command half a millisecond. */
function parsePlain(text: string): KeyUri | undefined {
  if (FORBIDDEN.test(text)) return undefined;
  const scheme = /^[a-z0-9-]+(?=:)/.exec(text)?.[0] ?? '';
  if (scheme === 'pkcs11') return parsePkcs11(text.slice('pkcs11:'.length));
  if (text.includes('%') || text.split('/').some((segment) => segment === '.' || segment === '..')) return undefined;
  switch (scheme) {
    case 'gcpkms':
      return parseGcp(text);
    case 'awskms':
    case 'arn':
      return parseAws(text);
    case 'azurekms':
    case 'https':
      return parseAzure(text);
    case 'hashivault':
    case 'openbao':
      return parseVault(text);
    case 'keyfile':
      return parseKeyfile(text);
    case 'kbs':
      return parseKbs(text);
    default:
      if (scheme.startsWith('x-')) return parseOwn(text);
      return text.startsWith('age1') ? parseAge(text) : parseGcp(text);
  }
}

function parseGcp(text: string): KeyUri | undefined {
  const match = GCP.exec(text);
  return match === null ? undefined : optional({ scheme: 'gcpkms', key: match[1] ?? '' }, 'version', match[2]);
}

function parseAws(text: string): KeyUri | undefined {
  if (AWS_ARN.test(text)) return { scheme: 'awskms', key: lowerCaseId(text) };
  const match = AWS.exec(text);
  if (match === null) return undefined;
  return optional({ scheme: 'awskms', key: lowerCaseId(match[2] ?? '') }, 'endpoint', match[1]);
}

function parseAzure(text: string): KeyUri | undefined {
  const match = AZURE.exec(text) ?? AZURE_ID.exec(text);
  if (match === null) return undefined;
  return optional({ scheme: 'azurekms', host: match[1] ?? '', key: match[2] ?? '' }, 'version', match[3]);
}

function parseKeyfile(text: string): KeyUri | undefined {
  const path = KEYFILE.exec(text)?.[1];
  if (path !== undefined) return { scheme: 'keyfile', path };
  const thumbprint = KEYFILE_THUMBPRINT.exec(text)?.[1];
  return thumbprint === undefined ? undefined : { scheme: 'keyfile', thumbprint };
}

function parseAge(text: string): KeyUri | undefined {
  return AGE.test(text) ? { scheme: 'age', recipient: text } : undefined;
}

function parseKbs(text: string): KeyUri | undefined {
  const path = KBS.exec(text)?.[1];
  return path === undefined ? undefined : { scheme: 'kbs', path };
}

function parseOwn(text: string): KeyUri | undefined {
  const [, name, value] = OWN.exec(text) ?? [];
  return name === undefined || value === undefined ? undefined : { scheme: `x-${name}`, value };
}

function parseVault(text: string): KeyUri | undefined {
  const match = VAULT.exec(text);
  if (match === null) return undefined;
  const [, key = '', query] = match;
  const parts = query === undefined ? new Map<string, string>() : parsePairs(query, '&');
  if (parts === undefined) return undefined;
  for (const [name, value] of parts) {
    if ((name !== 'engine' && name !== 'namespace') || !VAULT_PATH.test(value)) return undefined;
  }
  const uri: KeyUri = { scheme: 'hashivault', key };
  return optional(optional(uri, 'engine', parts.get('engine')), 'namespace', parts.get('namespace'));
}

function formatVaultQuery(uri: { readonly engine?: string; readonly namespace?: string }): string {
  const parts: string[] = [];
  if (uri.engine !== undefined && uri.engine !== 'transit') parts.push(`engine=${uri.engine}`);
  if (uri.namespace !== undefined) parts.push(`namespace=${uri.namespace}`);
  return parts.length === 0 ? '' : `?${parts.join('&')}`;
}

/** RFC 7512 section 2.3; attributes that name a key or its token, and those that only the operator may set. */
const PKCS11_PATH = new Set(['token', 'manufacturer', 'serial', 'model', 'object', 'type', 'id']);
const PKCS11_QUERY = new Set(['pin-source', 'module-name', 'module-path']);

/**
 * Splits a PKCS#11 URI; a `pin-value` is refused, since a URI is shown in process lists and errors. `slot-id` says where
 * to look on one machine and names no key, so that it stays out of the canonical form.
 */
function parsePkcs11(rest: string): KeyUri | undefined {
  const [pathText = '', queryText, ...more] = rest.split('?');
  if (more.length > 0) return undefined;
  const path = parsePairs(pathText, ';', unescapePkcs11);
  const query = queryText === undefined ? new Map<string, string>() : parsePairs(queryText, '&', unescapePkcs11);
  if (path === undefined || query === undefined) return undefined;
  const slot = path.get('slot-id');
  path.delete('slot-id');
  if (path.size === 0 || !/^(?:\d{1,20})?$/.test(slot ?? '')) return undefined;
  for (const name of path.keys()) if (!PKCS11_PATH.has(name)) return undefined;
  for (const name of query.keys()) if (!PKCS11_QUERY.has(name)) return undefined;
  const sorted = new Map([...path].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { scheme: 'pkcs11', path: sorted, slot, query };
}

/** `a=b` pairs into a map, or undefined if one is malformed or named twice. */
function parsePairs(
  text: string,
  separator: string,
  decode: (value: string) => string | undefined = (value) => value,
): Map<string, string> | undefined {
  const pairs = new Map<string, string>();
  for (const pair of text.split(separator)) {
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals);
    const value = decode(pair.slice(equals + 1));
    if (equals < 1 || value === undefined || value === '' || pairs.has(name)) return undefined;
    pairs.set(name, value);
  }
  return pairs;
}

/** Percent-escapes to one character for each byte (an `id` is bytes, not text). */
function unescapePkcs11(value: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(value)) return undefined;
  return value.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function escapePkcs11(value: string): string {
  return value.replace(
    /[^A-Za-z0-9_.~:[\]@!$'()*+=&-]/g,
    (character) => `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** Key ids are hexadecimal and AWS answers with lower case; aliases are case-sensitive. */
function lowerCaseId(key: string): string {
  return key.includes('alias/') ? key : key.toLowerCase();
}

function optional<Uri extends KeyUri, Name extends string>(uri: Uri, name: Name, value: string | undefined): Uri {
  return value === undefined || value === '' ? uri : { ...uri, [name]: value };
}
