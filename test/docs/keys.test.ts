// docs/keys.md and the program take the same key URIs, character for character, and write them in the same way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asKeyUri, formatKeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { createRandom, runs, seeded } from '../fixtures/seed.ts';
import { type Grammar, generate, parseGrammar, patternOf } from './abnf.ts';
import { blocksOf, readDocument } from './transcript.ts';

const document = await readDocument('docs/keys.md');
const blocks = blocksOf(document).filter(({ language }) => language === 'abnf');
const grammar: Grammar = parseGrammar(blocks.map(({ text }) => text).join('\n'));
const fits = new RegExp(`^(?:${patternOf(grammar, 'key-uri')})$`);
const isPrefix = new RegExp(`^(?:${patternOf(grammar, 'prefix')})$`);
const SCHEMES = ['google', 'aws', 'azure', 'vault', 'pkcs11', 'key-file', 'age', 'kbs'];

/** What the document says: the grammar, and the three rules beside it. */
function isKeyUri(text: string): boolean {
  if (!fits.test(text) || text.length > 2048) return false;
  if (text.startsWith('pkcs11:')) {
    const parts = text.slice('pkcs11:'.length).split('?');
    const names = [...(parts[0] ?? '').split(';'), ...(parts[1] ?? '').split('&')].map((part) => part.split('=')[0]);
    if (new Set(names).size < names.length) return false;
  } else if (text.split('/').some((segment) => segment === '.' || segment === '..')) return false;
  return canonicalForm(text).length <= 2048;
}

/** The table "Canonical form" of the document, written again. */
function canonicalForm(text: string): string {
  const [scheme = ''] = /^[a-z0-9]+(?=:)/.exec(text) ?? [];
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
    const attributes = path.split(';').map((attribute) => [attribute.split('=')[0], attribute.replace(/^.*?=/, '')]);
    return `pkcs11:${attributes
      .map(([name, value = '']) => `${name}=${escapeValue(value)}`)
      .sort()
      .join(';')}`;
  }
  if (scheme === 'kbs') return text.replace(/^kbs:\/\/[^/]*/, 'kbs://');
  if (scheme === 'keyfile' || text.startsWith('age1')) return text;
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

test(seeded('what the grammar makes is taken, scheme by scheme, and gets the canonical form of the table'), () => {
  const random = createRandom();
  for (const scheme of SCHEMES) {
    let taken = 0;
    for (let times = 0; times < runs(400); times++) {
      const text = generate(grammar, scheme, random);
      if (!isKeyUri(text)) continue;
      taken++;
      assert.equal(formatKeyUri(parseKeyUri(text)), canonicalForm(text), text);
      assert.equal(formatKeyUri(parseKeyUri(canonicalForm(text))), canonicalForm(text), 'it is its own canonical form');
    }
    assert.ok(taken > runs(400) / 4, `${scheme}: ${taken}`);
  }
});

test(seeded('what is changed by a character is taken by both, or by neither'), () => {
  const random = createRandom();
  const characters = [...Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)), 'é', '//', '/../', '/./'];
  let [taken, refused] = [0, 0];
  for (let times = 0; times < runs(8_000); times++) {
    const text = generate(grammar, SCHEMES[random(SCHEMES.length)] ?? '', random);
    const [from, length] = [random(text.length + 1), random(3) % 2];
    const changed = `${text.slice(0, from)}${random(4) === 0 ? '' : characters[random(characters.length)]}${text.slice(from + length)}`;
    const expected = isKeyUri(changed);
    assert.equal(asKeyUri(changed) !== undefined, expected, JSON.stringify(changed));
    if (expected) taken++;
    else refused++;
  }
  assert.ok(taken > runs(8_000) / 20 && refused > runs(8_000) / 20, `${taken} taken, ${refused} refused`);
});

test(seeded('prefixes are those of the document'), () => {
  const random = createRandom();
  const isTaken = (text: string) => {
    try {
      return parseAllowRule(text).kind === 'prefix';
    } catch {
      return false;
    }
  };
  let [taken, refused] = [0, 0];
  for (let times = 0; times < runs(4_000); times++) {
    const text = generate(grammar, 'prefix', random);
    const [from, length] = [random(text.length), random(2)];
    const changed = `${text.slice(0, from)}${['', '/', '.', '/../', ':', 'x', 'X', '*', '%'][random(9)]}${text.slice(from + length)}`;
    const climbs = changed.split('/').some((segment) => segment === '.' || segment === '..');
    const expected = isPrefix.test(changed) && !climbs;
    assert.equal(isTaken(changed), expected, changed);
    if (expected) taken++;
    else refused++;
  }
  assert.ok(taken > 400 && refused > 400, `${taken} taken, ${refused} refused`);
});

test('the examples of canonical forms are what the program writes', () => {
  const rows = [...document.matchAll(/^\| `([^`]+)` \| `([^`]+)` \|$/gm)].map(([, text = '', form = '']) => [
    text,
    form,
  ]);
  assert.ok(rows.length >= 10);
  for (const [text = '', form] of rows) {
    assert.equal(formatKeyUri(parseKeyUri(text)), form);
    assert.equal(canonicalForm(text), form);
  }
});

test('the table of keys names every scheme of the grammar, and every key of it is taken', () => {
  const table = document.slice(0, document.indexOf('## Which key is used'));
  const values: Readonly<Record<string, string>> = {
    ARN: 'arn:aws:kms:eu-west-1:111122223333:alias/x',
    'KEY-ID': '1234abcd-12ab-34cd-56ef-1234567890ab',
    'ENDPOINT/…': 'localhost/alias/x',
    VERSION: '0'.repeat(32),
    LOCATION: 'global',
    PROJECT: 'project',
    'age1…': `age1${'q'.repeat(58)}`,
    'age1pq1…': `age1pq1${'q'.repeat(1952)}`,
  };
  const spellings = [...table.matchAll(/`([^`]+)`/g)]
    .map(([, text = '']) => text)
    .filter((text) => /^[a-z0-9]+:|^age1/.test(text) && !/:\/\/$/.test(text));
  assert.ok(spellings.length >= 12, spellings.join(' '));
  for (const spelling of spellings) {
    for (const text of [spelling.replace(/\[.*\]/, ''), spelling.replaceAll(/[[\]]/g, '')]) {
      const filled = text.replace(
        /age1pq1…|age1…|ENDPOINT\/…|KEY-ID|[A-Z]{3,}/g,
        (name) => values[name] ?? name.toLowerCase(),
      );
      assert.ok(filled.endsWith(':') || asKeyUri(filled) !== undefined, filled);
    }
  }
});
