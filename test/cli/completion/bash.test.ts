// What bash completes: in this machine's bash, by the function and by the tabulator key of a real terminal.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { OPTION_NAMES } from '../../../src/cli/options/configuration.ts';
import { type OptionName, optionSpec } from '../../../src/cli/options/table.ts';
import { runOnPseudoTerminal } from '../../fixtures/pseudo-terminal.ts';
import { runCommand } from '../../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'completion-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const script = join(directory, 'ocicrypt-kms.bash');
writeFileSync(script, (await runCommand(['completion', 'bash'])).stdout);
const place = join(directory, 'place');
mkdirSync(join(place, 'images/app'), { recursive: true });
for (const name of ['app.key', 'with blank.key', '$(touch stolen).key', 'a:b.key'])
  writeFileSync(join(place, name), '');

/** What bash would insert or show for each line, whose end is where the cursor stands. One bash for all: it starts slowly. */
function complete(lines: readonly string[], cwd = place): readonly (readonly string[])[] {
  const calls = lines.map((_, index) => {
    const line = `L${index}`;
    return `COMP_LINE=$${line}; COMP_POINT=\${#${line}}; _ocicrypt_kms; printf '%s\\n' "\${COMPREPLY[@]}"; printf '\\0\\n'`;
  });
  const answer = execFileSync('bash', ['--noprofile', '--norc', '-c', [`. "$SCRIPT"`, ...calls].join('\n')], {
    cwd,
    env: {
      PATH: process.env.PATH,
      HOME: place,
      SCRIPT: script,
      COMP_WORDBREAKS: ' \t\n"\'@><=;|&(:',
      ...Object.fromEntries(lines.map((line, index) => [`L${index}`, line])),
    },
    encoding: 'utf8',
  });
  return answer
    .split('\0\n')
    .slice(0, -1)
    .map((words) => words.split('\n').filter((word) => word !== ''));
}

test('commands, and the options of each, are those of the tables', () => {
  const commands = [...COMMANDS.keys()];
  const [first, ...rest] = complete(['ocicrypt-kms ', ...commands.map((name) => `ocicrypt-kms ${name} --`)]);
  assert.deepEqual(
    first,
    [...commands, 'help'].map((name) => `${name} `),
  );
  for (const [index, command] of commands.entries()) {
    const options: readonly OptionName[] = [...(COMMANDS.get(command)?.options ?? []), 'help'];
    assert.deepEqual(
      rest[index],
      options.map((name) => (optionSpec(name).kind === 'switch' ? `--${name} ` : `--${name}=`)),
      command,
    );
  }
});

test('an option whose value has several forms completes each of them', () => {
  const names = OPTION_NAMES.filter((name) => optionSpec(name).choices !== undefined);
  const taker = (name: OptionName) => [...COMMANDS].find(([, { options }]) => options.includes(name))?.[0] ?? '';
  const lines = names.map((name) => `ocicrypt-kms ${taker(name)} --${name}=`);
  for (const [index, words] of complete(lines).entries()) {
    const { choices = [] } = optionSpec(names[index] ?? 'help');
    assert.deepEqual(
      words,
      choices.map((choice) => `${choice} `),
      lines[index],
    );
  }
});

for (const [line, expected] of [
  ['ocicrypt-kms enc', ['encrypt ']],
  ['ocicrypt-kms help rew', ['rewrap ']],
  ['ocicrypt-kms completion ', ['bash ', 'zsh ', 'fish ']],
  ['ocicrypt-kms encrypt d', ['docker://', 'dir:', 'docker-archive:']],
  // Only what follows the last colon is replaced.
  ['ocicrypt-kms encrypt oci:im', ['images/']],
  ['ocicrypt-kms encrypt oci:images/', ['images/app/']],
  ['ocicrypt-kms encrypt oci:images/app oci-archive:ap', ['app.key ']],
  ['ocicrypt-kms encrypt oci:a oci:b di', []],
  ['ocicrypt-kms encrypt oci:a oci:b --recipient=ke', ['keyfile:///']],
  ['ocicrypt-kms encrypt oci:a oci:b --recipient aws', ['awskms:///']],
  ['ocicrypt-kms encrypt --recipient oci:a oci-a', ['oci-archive:']],
  ['ocicrypt-kms encrypt --recipient=jwe:ap', ['app.key ']],
  [`ocicrypt-kms doctor keyfile://${place}/app`, [`//${place}/app.key `]],
  ['ocicrypt-kms decrypt a b --key=ap', ['app.key ']],
  ['ocicrypt-kms decrypt a b --key with\\ b', ['with\\ blank.key ']],
  ['ocicrypt-kms decrypt a b --key=a:', ['b.key ']],
  ['ocicrypt-kms decrypt a b --key=~/ap', ['~/app.key ']],
  ['ocicrypt-kms decrypt a b --key=$', ['\\$\\(touch\\ stolen\\).key ']],
  ['ocicrypt-kms verify --content-store', []],
  ['ocicrypt-kms decoder --content-store=', ['images/']],
  ['ocicrypt-kms decrypt -- --key=', []],
  ['ocicrypt-kms nonsense --', []],
  ['ocicrypt-kms encrypt "oci:', []],
] as const) {
  test(`completes: ${line.replace(place, 'PLACE')}`, () => {
    assert.deepEqual(complete([line])[0], expected);
  });
}

test('names of files are never run', () => {
  complete([
    'ocicrypt-kms decrypt a b --key=',
    'ocicrypt-kms decrypt a b --key=\\$\\(',
    'ocicrypt-kms encrypt oci:$(touch stolen)',
  ]);
  assert.throws(() => readFileSync(join(place, 'stolen')), { code: 'ENOENT' });
});

test('the tabulator key completes on a real terminal', async () => {
  writeFileSync(join(place, '.inputrc'), 'set bell-style none\n');
  writeFileSync(join(place, 'rc'), `. '${script}'\nPS1='> '\nocicrypt-kms() { printf '[%s]' "$@" > told; }\n`);
  await runOnPseudoTerminal('bash --noprofile --rcfile rc -i', {
    rows: 24,
    columns: 80,
    cwd: place,
    environment: { HOME: place },
    keys: 'ocicrypt-kms decr\toci:ima\tapp oci-arch\tnew.tar --key=with\t--key key\t//x --digestf\tout\nexit\n',
  });
  assert.equal(
    readFileSync(join(place, 'told'), 'utf8'),
    '[decrypt][oci:images/app][oci-archive:new.tar][--key=with blank.key][--key][key//x][--digestfile=out]',
  );
});
