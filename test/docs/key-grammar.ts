// docs/keys.md as a second parser of key URIs: its grammar as a pattern, and its table of canonical forms. Imports nothing of src.

import { type Grammar, parseGrammar, patternOf } from './abnf.ts';
import { blocksOf, readDocument } from './transcript.ts';

export const document = await readDocument('docs/keys.md');
const blocks = blocksOf(document).filter(({ language }) => language === 'abnf');
export const grammar: Grammar = parseGrammar(blocks.map(({ text }) => text).join('\n'));
const fits = new RegExp(`^(?:${patternOf(grammar, 'key-uri')})$`);
export const isPrefix = new RegExp(`^(?:${patternOf(grammar, 'prefix')})$`);
export const SCHEMES = ['google', 'aws', 'azure', 'vault', 'pkcs11', 'key-file', 'age', 'kbs', 'own'];

/** What the document says: the grammar, and the three rules beside it. */
export function isKeyUri(text: string): boolean {
  if (!fits.test(text) || text.length > 2048) return false;
  if (text.startsWith('pkcs11:')) {
    const parts = text.slice('pkcs11:'.length).split('?');
    const names = [...(parts[0] ?? '').split(';'), ...(parts[1] ?? '').split('&')].map((part) => part.split('=')[0]);
    if (new Set(names).size < names.length) return false;
  } else if (text.split('/').some((segment) => segment === '.' || segment === '..')) return false;
  return canonicalForm(text).length <= 2048;
}

/** The table "Canonical form" of the document, written again. */
export function canonicalForm(text: string): string {
  const [scheme = ''] = /^[a-z0-9-]+(?=:)/.exec(text) ?? [];
  if (scheme === 'arn') return lowerCaseKey(`awskms:///${text}`);
  if (scheme === 'awskms') return lowerCaseKey(text.replace(/^awskms:\/\/[^/]*\//, 'awskms:///'));
  if (scheme === 'azurekms' || scheme === 'https') {
    const [, host = '', key = ''] = /^[a-z]+:\/\/([^/]+)\/(.*?)\/?$/.exec(text.replace('/keys/', '/')) ?? [];
    const name = host.replace(/:443$/, '');
    return `azurekms://${name.includes('.') ? name : `${name}.vault.azure.net`}/${key}`.toLowerCase();
  }
  if (scheme === 'hashivault' || scheme === 'openbao') {
    const [name, query = ''] = text.replace(/^[a-z]+:/, 'hashivault:').split('?');
    const parts = query.split('&').filter((part) => part !== '' && part !== 'engine=transit');
    return `${name}${parts.length === 0 ? '' : '?'}${parts.sort().join('&')}`;
  }
  if (scheme === 'pkcs11') {
    const [path = ''] = text.slice('pkcs11:'.length).split('?');
    const named = path.split(';').filter((attribute) => !attribute.startsWith('slot-id='));
    const attributes = named.map((attribute) => [attribute.split('=')[0], attribute.replace(/^.*?=/, '')]);
    return `pkcs11:${attributes
      .map(([name, value = '']) => `${name}=${escapeValue(value)}`)
      .sort()
      .join(';')}`;
  }
  if (scheme === 'kbs') return text.replace(/^kbs:\/\/[^/]*/, 'kbs://');
  if (scheme === 'keyfile' || scheme.startsWith('x-') || text.startsWith('age1')) return text;
  const google = text.replace(/\/(?:versions|cryptoKeyVersions)\/(\d+)$/, '/cryptoKeyVersions/$1');
  return google.startsWith('gcpkms://') ? google : `gcpkms://${google}`;
}

function lowerCaseKey(text: string): string {
  return text.includes('alias/') ? text : text.toLowerCase();
}

function escapeValue(value: string): string {
  const bytes = Buffer.from(
    value.replace(/%(..)/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
  const plain = /[A-Za-z0-9_.~:[\]@!$'()*+=&-]/;
  return [...bytes.toString('latin1')]
    .map((one) => (plain.test(one) ? one : `%${one.charCodeAt(0).toString(16).padStart(2, '0')}`))
    .join('');
}
