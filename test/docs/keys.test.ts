// docs/keys.md and the program take the same key URIs, character for character, and write them in the same way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asKeyUri, formatKeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { createRandom, runs, seeded } from '../fixtures/seed.ts';
import { generate } from './abnf.ts';
import { canonicalForm, document, grammar, isKeyUri, isPrefix, SCHEMES } from './key-grammar.ts';

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
    assert.ok(taken > runs(400) / 16, `${scheme}: ${taken}`);
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
    .filter((text) => /^[a-z0-9-]+:|^age1/.test(text) && !/:\/\/$/.test(text));
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
