// How other tools spell our keys, and how people misspell them: the spelling that works here. The grammar is key-uri.ts.

import { setting } from './setting.ts';
import { isSecret } from './shown.ts';

const UUID_OR_REPLICA = '(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|mrk-[0-9a-f]{32})';

/** A pattern, and what the same key is called here. The first whose result is a key counts. */
const DIALECTS: readonly (readonly [RegExp, string])[] = [
  [/^(?:gcp-?kms:\/{0,3}|cloudkms:(?:resource=)?)(projects\/[^?;:]+?)\/?(?:[?;].*)?$/, 'gcpkms://$1'],
  [/^(?:https?:)?\/\/cloudkms\.[^/]+\/(?:v1\/)?(projects\/[^?:]+?)\/?(?::\w+)?$/, 'gcpkms://$1'],
  [new RegExp(`^(?:aws-?kms|kms):/{0,3}(?:key/)?((?:arn:|alias/|${UUID_OR_REPLICA})[^?]*)(?:\\?.*)?$`), 'awskms:///$1'],
  [new RegExp(`^(?:key/)?(${UUID_OR_REPLICA}|alias/.+)$`), 'awskms:///$1'],
  [/^awskms:(?:.*;)?key-id=([^;?]+)/, 'awskms:///$1'],
  [/^azurekeyvault:\/\/([^/?]+)\/keys\/([^?]+)/, 'azurekms://$1/$2'],
  [/^azurekms:name=([^;?]+);vault=([^;?]+)/, 'azurekms://$2.vault.azure.net/$1'],
  [/^azurekms:\/{2,3}([^/?]+)\/(?:keys\/)?([^?]+?)\/?$/, 'azurekms://$1/$2'],
  [/^(?:https?:\/\/)?([^/?:]+\.(?:vault|managedhsm)\.[^/?:]+)(?::443)?\/(?:keys\/)?([^?]+?)\/?$/, 'azurekms://$1/$2'],
  [/^hcvault:\/\/[^/]+\/([^?]+)\/keys\/([^/?]+)$/, 'hashivault://$2?engine=$1'],
  [/^https?:\/\/[^/]+\/v1\/([^?]+)\/keys\/([^/?]+)$/, 'hashivault://$2?engine=$1'],
  [/^(?:hashivault|openbao|hcvault|vault|bao):\/{0,3}([^/?]+)$/, 'hashivault://$1'],
  [/^(?:hashivault|openbao|hcvault|vault|bao):\/{0,3}([^?]+?)(?:\/keys)?\/([^/?]+)$/, 'hashivault://$2?engine=$1'],
  [/^([\w.-]+(?:\/[\w.-]+)*)\/keys\/([^/?]+)$/, 'hashivault://$2?engine=$1'],
  [/^age:(?:\/\/)?(age1.+)$/, '$1'],
  [/^pkcs11:\/\/(.+)$/, 'pkcs11:$1'],
  [/^(?:file|keyfile):(?:\/\/)?(\/[^?]+)$/, 'keyfile://$1'],
  [/^(\/[^?]+)$/, 'keyfile://$1'],
];

/** What slips in around a key: blanks, quotes, and how a client names a key to its provider. */
const AROUND = /^[\s"'<]*(?:provider:[^:]+:)?|[\s"'>]+$/g;

/**
 * What the writer of `text`, which is no key here, may have meant.
 *
 * @param isKey whether a text is a key here
 * @returns a hint, or undefined
 */
export function suggestSpelling(text: string, isKey: (text: string) => boolean): string | undefined {
  const plain = text
    .replace(AROUND, '')
    .replace(/^[A-Za-z][A-Za-z0-9-]*(?=:)/, (scheme) => scheme.toLowerCase())
    .replace(/\/keyrings\//i, '/keyRings/')
    .replace(/\/cryptokeys\//i, '/cryptoKeys/');
  const spellings = [
    plain,
    plain.toLowerCase(),
    ...DIALECTS.flatMap(([pattern, replacement]) => {
      const [match] = pattern.exec(plain) ?? [];
      return match === undefined ? [] : [match.replace(pattern, replacement).replace('?engine=transit', '')];
    }),
  ];
  const found = spellings.find((spelling) => spelling !== text && isKey(spelling));
  if (found !== undefined) return isNamed(found) ? `here that key is ${found}` : undefined;
  if (/^pkcs11:.*[?&;]pin-value=/.test(plain)) return 'a PIN does not belong in a URI: use pin-source=file:PATH';
  if (plain.startsWith('base64key:')) return 'a key does not belong in a URI: run ocicrypt-kms keygen FILE';
  if (/^(?:keyfile:\/\/)?\/[^/]/.test(plain)) {
    return 'the path of a key file in a URI holds ASCII alone, without spaces and , \\ # % ?, and no .. or empty part: use another path';
  }
  if (/^(?:\.{0,2}\/|~|(?:key)?file:)|\.(?:age|key|pem|txt)$/i.test(plain)) {
    return `a key file is named with its whole path, keyfile:///DIRECTORY/FILE, or with ${setting('keys')}=FILE`;
  }
  return undefined;
}

/** A token in the place of a name is not repeated; versions of Azure and ids of replicas only look like one. */
function isNamed(spelling: string): boolean {
  return !isSecret(spelling.replace(/^(azurekms:.*\/|awskms:.*mrk-)[0-9a-fA-F]{32}$/, '$1'));
}
