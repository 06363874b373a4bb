// Options as they are written down for later: read back, they are what was given.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { OPTION_NAMES, readConfiguration } from '../../../src/cli/options/configuration.ts';
import { optionMembers, optionWords } from '../../../src/cli/options/given.ts';
import { parseSettings, Settings } from '../../../src/cli/options/settings.ts';
import { configurationPath, type OptionName, optionSpec } from '../../../src/cli/options/table.ts';

const directory = mkdtempSync(join(tmpdir(), 'given-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** What YAML or a shell may take for something else. */
const ODD = ['yes', '0x10', 'a: b # c', "it's", '"{', '~'];

function samples(name: OptionName): readonly string[] {
  const { kind, choices, value } = optionSpec(name);
  if (kind === 'switch') return [''];
  if (kind === 'choice') return [choices?.[0] ?? ''];
  if (kind === 'count') return ['7'];
  if (kind === 'duration') return ['2s'];
  const texts = /FILE|DIR/.test(value ?? '') ? ['/a b/c', '/-x'] : ODD;
  if (kind === 'pairs') return texts.map((text, index) => `kbs:///a/b/${index}=${text}`);
  return kind === 'list' ? texts : texts.slice(0, 1);
}

const given = new Map(OPTION_NAMES.map((name) => [name, samples(name)]));
const settings = new Settings(given);

test('every option comes back from the words that it is written as', async () => {
  const read = await parseSettings(optionWords(settings, OPTION_NAMES), OPTION_NAMES);
  for (const name of OPTION_NAMES) assert.deepEqual(read.texts(name), given.get(name), name);
});

test('every option that a configuration file takes comes back from the file that it is written into', async () => {
  const file = join(directory, 'config.yaml');
  writeFileSync(file, optionMembers(settings, OPTION_NAMES));
  const read = await readConfiguration(file);
  const kept = OPTION_NAMES.filter((name) => configurationPath(name) !== undefined);
  assert.deepEqual([...read.keys()].toSorted(), kept.toSorted());
  for (const name of kept) assert.deepEqual(read.get(name), given.get(name), name);
});

test('a file is named by its whole path', async () => {
  const relative = await parseSettings(['--key=app.key', '--kbs-key=kbs:///a/b/c=x.key'], OPTION_NAMES);
  const [key, kbs] = ['app.key', 'x.key'].map((name) => join(process.cwd(), name));
  assert.deepEqual(optionWords(relative, ['key', 'kbs-key']), [`--key=${key}`, `--kbs-key=kbs:///a/b/c=${kbs}`]);
});
