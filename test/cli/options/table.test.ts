// The command line: what is read, what is refused, and how a refusal helps.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { asOcicryptError, OcicryptError } from '../../../src/base/errors.ts';
import { nearest } from '../../../src/base/nearest.ts';
import { OPTION_NAMES } from '../../../src/cli/options/configuration.ts';
import { parseSettings } from '../../../src/cli/options/settings.ts';
import { isOptionName, OPTIONS, type OptionName, optionSpec } from '../../../src/cli/options/table.ts';
import { VERSION } from '../../../src/cli/version.ts';
import { failureOf } from '../../fixtures/codes.ts';
import { runCommand } from '../../fixtures/terminal.ts';

const ALL: readonly OptionName[] = OPTION_NAMES;
const parse = (words: readonly string[]) => parseSettings(words, ALL);
const parseGo = (words: readonly string[]) => parseSettings(words, ALL, 'go');

/** A usable value of an option. */
function sampleValue(name: OptionName): string {
  const { kind, choices } = optionSpec(name);
  if (kind === 'choice') return choices?.[0] ?? '';
  if (kind === 'pairs') return 'env=prod';
  if (kind === 'count') return '7';
  return kind === 'duration' ? '2s' : 'x';
}

for (const name of OPTION_NAMES) {
  test(`--${name} is read as one word and as two`, async () => {
    if (optionSpec(name).kind === 'switch') {
      for (const settings of [await parse([`--${name}`]), await parseGo([`-${name}`])])
        assert.deepEqual(settings.operands, []);
      assert.equal((await failureOf(parse([`--${name}=x`]))).code, 'usage');
      return;
    }
    const value = sampleValue(name);
    const read = (settings: Awaited<ReturnType<typeof parse>>) =>
      Reflect.apply(Reflect.get(settings, kindMethod(name)), settings, [name]);
    const expected = read(await parse([`--${name}=${value}`]));
    assert.ok(expected !== undefined);
    for (const words of [[`--${name}`, value], [`--${name}=${value}`]])
      assert.deepEqual(read(await parse(words)), expected, words.join(' '));
    for (const words of [[`-${name}`, value], [`-${name}=${value}`], [`--${name}`, value], [`--${name}=${value}`]]) {
      assert.deepEqual(read(await parseGo(words)), expected, words.join(' '));
    }
    assert.equal((await failureOf(parse([`--${name}`]))).code, 'usage');
    assert.equal((await failureOf(parse([`--${name}=`]))).code, 'usage');
  });
}

function kindMethod(name: OptionName): string {
  const { kind } = optionSpec(name);
  return kind === 'choice' ? 'text' : kind;
}

test('an unknown option is refused with the nearest one', async () => {
  for (const [word, near] of [
    ['--alow=x', '--allow'],
    ['--kmsuri=x', '--kmsURI'],
    ['--KEY=x', '--key'],
    ['--debuglog=x', '--debugLog'],
    ['--audit-lg=x', '--audit-log'],
    ['--gcp-endpont=x', '--gcp-endpoint'],
  ]) {
    const error = await failureOf(parse([word ?? '']));
    assert.deepEqual([error.code, error.hint], ['usage', `did you mean ${near}?`], word);
  }
  const far = await failureOf(parse(['--zzzzzzzzzz']));
  assert.ok(far.hint?.includes('--help'));
  assert.equal(await nearest('zzzzzzzz', ALL), undefined);
  // Of one or two letters everything short is as near as nothing.
  for (const word of ['r', 'q', '<<']) assert.equal(await nearest(word, ALL), undefined, word);
  for (const word of ['--__proto__=x', '--constructor', '--toString=x', '-x', '--=x'])
    assert.equal((await failureOf(parse([word]))).code, 'usage', word);
});

test('an option of another command is unknown', async () => {
  const { status, stderr } = await runCommand(['keygen', '--allow=x', 'file']);
  assert.equal(status, 64);
  assert.match(stderr, /unknown option "--allow" for this command; other commands have it/);
});

test('a word that looks like an option is never taken as the value of the one before', async () => {
  for (const words of [
    ['--adc', '--kmsURI=x'],
    ['--allow', '--key=x'],
    ['--key', '-x'],
  ]) {
    assert.equal((await failureOf(parse(words))).code, 'usage', words.join(' '));
    assert.equal((await failureOf(parseGo(words))).code, 'usage', words.join(' '));
  }
  assert.deepEqual((await parse(['--key=--x'])).list('key'), ['--x'], 'but with an equals sign it is');
});

test('values of the wrong form are refused with what is right', async () => {
  for (const word of [
    '--packet=v3',
    '--bytes=hex',
    '--context=env',
    '--context==x',
    '--timeout=10',
    '--timeout=0s',
    '--timeout=-1s',
    '--timeout=25h',
    '--timeout=1d',
    '--timeout=1e3ms',
    '--timeout=99999999s',
  ]) {
    const error = await failureOf(parse([word]));
    assert.equal(error.code, 'usage', word);
    assert.match(error.message, /takes /, word);
  }
  assert.match((await failureOf(parse(['--kbs-key=x']))).message, /takes KEY=FILE/);
  assert.equal((await parse(['--timeout=50s'])).duration('timeout'), 50_000);
  assert.equal((await parse(['--timeout=1ms'])).duration('timeout'), 1);
  assert.equal((await parse(['--timeout=24h'])).duration('timeout'), 24 * 3_600_000);
  assert.equal((await parse(['--timeout=50s'])).requestTime(), 50_000);
  const longer = await parse(['--timeout=1m']);
  assert.throws(() => longer.requestTime(), { code: 'usage' }, 'where a client waits');
});

test('lists keep every value, texts the last', async () => {
  const settings = await parse(['--allow=a', '--allow', 'b', '--provider=c', '--provider=d', 'e', '--', '--f']);
  assert.deepEqual(
    [settings.list('allow'), settings.text('provider'), settings.operands],
    [['a', 'b'], 'd', ['e', '--f']],
  );
});

test('a command that is not there is refused with the nearest one', async () => {
  for (const [word, expected] of [
    ['keyprovder', 'did you mean keyprovider?'],
    ['keygne', 'did you mean keygen?'],
    ['zzzzzz', 'run ocicrypt-kms --help'],
  ]) {
    const { status, stdout, stderr } = await runCommand([word ?? '']);
    assert.deepEqual([status, stdout], [64, '']);
    assert.ok(stderr.includes(expected ?? ''), stderr);
  }
  assert.equal((await runCommand([])).status, 64);
  assert.equal((await runCommand([''])).status, 64);
  assert.equal((await runCommand(['__proto__'])).status, 64);
});

test('words that a command has no use for are refused', async () => {
  for (const words of [['keyprovider', 'x'], ['keygen'], ['keygen', 'a', 'b'], ['config']]) {
    const { status, stdout, stderr } = await runCommand(words);
    assert.deepEqual([status, stdout, stderr.split('\n').length], [64, '', 2], words.join(' '));
  }
});

test('every option is in the documentation of the configuration, by its member and its flag', () => {
  const document = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8');
  for (const name of OPTION_NAMES) {
    if (['help', 'json'].includes(name)) continue;
    assert.ok(document.includes(`--${name}`) || document.includes(`\`${name}\``), name);
  }
});

test('descriptions are one sentence without a full stop', () => {
  for (const [name, { describe }] of Object.entries(OPTIONS)) {
    assert.ok(isOptionName(name) && !isOptionName(`${name}x`));
    assert.doesNotMatch(describe, /\.$|\n/, name);
  }
});

test('the version is that of the package', async () => {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  assert.equal(VERSION, version);
  for (const words of [['--version'], ['version']])
    assert.equal((await runCommand(words)).stdout, `ocicrypt-kms ${version}\n`);
});

test('P2 an error is one line that begins with the name and the code', async () => {
  const { stderr } = await runCommand(['keyprovider', '--alow=x\n\u001b[31m']);
  assert.match(stderr, /^ocicrypt-kms: usage: \P{Cc}+\n$/u);
  assert.ok(asOcicryptError(new OcicryptError('usage', 'x')).code === 'usage');
});

for (const name of OPTION_NAMES.filter((one) => optionSpec(one).kind !== 'switch')) {
  test(`--${name} has what slipped in around its value taken off, or says so`, async () => {
    const { value, kind } = optionSpec(name);
    const usual = value === 'FILE' || value === 'DIR' ? '/nowhere/name' : sampleValue(name);
    const isName = value === 'FILE' || value === 'DIR' || kind === 'pairs';
    const read = async (text: string) => {
      const settings = await parse([`--${name}=${text}`]);
      return Reflect.apply(Reflect.get(settings, kindMethod(name)), settings, [name]);
    };
    const expected = await read(usual);
    for (const stray of [`${usual}\n`, `${usual}\r`, ` ${usual}`, `\uFEFF${usual}`]) {
      if (isName && kind !== 'pairs') assert.equal((await failureOf(read(stray))).code, 'usage', JSON.stringify(stray));
      else if (kind !== 'pairs') assert.deepEqual(await read(stray), expected, JSON.stringify(stray));
    }
    for (const bad of ['', ' ', '\n', `${usual}\0${usual}`]) {
      if (kind !== 'pairs' || bad === '') assert.equal((await failureOf(read(bad))).code, 'usage', JSON.stringify(bad));
    }
  });
}
