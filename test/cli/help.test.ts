// The help of every command: what it holds, how it is laid out, and that its examples are calls that work.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { OPTION_NAMES } from '../../src/cli/options/configuration.ts';
import { parseSettings } from '../../src/cli/options/settings.ts';
import { OPTION_GROUPS } from '../../src/cli/options/table.ts';
import { runCommand } from '../fixtures/terminal.ts';

async function help(...words: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runCommand(words);
  assert.deepEqual([status, stderr], [0, ''], words.join(' '));
  return stdout;
}

function assertNarrow(text: string): void {
  for (const line of text.split('\n')) assert.ok([...line].length <= 80, line);
}

test('every option is in one group', () => {
  const grouped = Object.values(OPTION_GROUPS).flatMap((group) => Object.keys(group));
  assert.deepEqual(grouped.toSorted(), [...OPTION_NAMES].toSorted());
});

test('help, --help and -h name every command', async () => {
  const text = await help('help');
  for (const name of COMMANDS.keys()) assert.match(text, new RegExp(`^  ${name}\\b`, 'm'));
  assertNarrow(text);
  assert.equal(await help('--help'), text);
  assert.equal(await help('-h'), text);
  assert.equal(await help('help', 'help'), text);
  assert.equal(await help('help', '--help'), text);
});

test('help of what is no command is refused, with the nearest one', async () => {
  for (const [words, expected] of [
    [['help', 'encrpt'], 'did you mean encrypt?'],
    [['help', ''], 'unknown command'],
    [['help', '__proto__'], 'unknown command'],
    [['help', 'encrypt', 'decrypt'], 'help takes one command'],
  ] as const) {
    const { status, stdout, stderr } = await runCommand(words);
    assert.deepEqual([status, stdout], [64, '']);
    assert.ok(stderr.includes(expected), stderr);
  }
});

for (const [name, command] of COMMANDS) {
  test(`help ${name} is ${name} --help, in 80 columns`, async () => {
    const text = await help('help', name);
    assert.equal(await help(name, '--help'), text);
    assertNarrow(text);
    assert.ok(text.startsWith(`ocicrypt-kms ${name}: `));
  });

  test(`help ${name} has each of its options once, below the title of its group`, async () => {
    const text = await help('help', name);
    const options = [...command.options, 'help'];
    const shown = Object.entries(OPTION_GROUPS).flatMap(([title, group]) => {
      const [, section = ''] = text.split(`\n\n${title}:\n`);
      const names = [...section.replace(/\n\n.*/s, '').matchAll(/^ {2}--([\w-]+)/gm)].map(([, option = '']) => option);
      assert.deepEqual(
        names,
        Object.keys(group).filter((option) => options.includes(option)),
        title,
      );
      return names;
    });
    assert.deepEqual(shown.toSorted(), options.toSorted());
    const all = [...text.matchAll(/^ {2}--([\w-]+)/gm)];
    assert.equal(all.length, options.length);
  });

  test(`help ${name} says how the words in capitals of its usage are written`, async () => {
    const text = await help('help', name);
    for (const word of ['SRC', 'DST', 'IMAGE', 'KEY', 'RECIPIENT', 'TIME'])
      if (new RegExp(`^(?:usage:|  --[\\w-]+=).*\\b${word}\\b`, 'm').test(text))
        assert.match(text, new RegExp(`^  ${word} +\\S`, 'm'), word);
  });

  test(`help ${name} has two examples that ${name} takes`, async () => {
    const [, section = ''] = /\nexamples:\n(.*?)\n\n/s.exec(await help('help', name)) ?? [];
    const lines = section.replaceAll(/ \\\n\s*/g, ' ').split('\n');
    assert.deepEqual(
      lines,
      command.examples.map((words) => `  ocicrypt-kms ${name} ${words}`.trimEnd()),
    );
    for (const words of command.examples) {
      const settings = await parseSettings(words === '' ? [] : words.split(' '), [...command.options, 'help']);
      const wanted = command.operands === '' ? 0 : command.operands.split(' ').length;
      // Words in brackets may be left out.
      const least = command.operands.includes('[') ? wanted - 1 : wanted;
      assert.ok([least, wanted].includes(settings.operands.length), words);
      for (const mode of command.modes ?? []) {
        const isInMode = mode.isOn(settings, {});
        const idle = settings
          .names()
          .filter((option) => (isInMode ? mode.takes?.includes(option) === false : mode.alone.includes(option)));
        assert.deepEqual(idle, [], words);
      }
    }
  });
}

test('kms_oci_crypt shows its own name and takes its own examples', async () => {
  for (const words of [['--help'], ['-help'], ['keyprovider', '-h']]) {
    const { status, stdout } = await runCommand(words, '', '/usr/bin/kms_oci_crypt');
    assert.equal(status, 0);
    assert.match(stdout, /^kms_oci_crypt: /);
    assert.match(stdout, /^ {2}kms_oci_crypt --/m);
    assert.doesNotMatch(stdout, /ocicrypt-kms keyprovider/);
  }
});
