// What zsh and fish complete, by the tabulator key of zsh and by fish's own answer; and what three readers say of the manual pages.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { COMMANDS } from '../../src/cli/commands.ts';
import type { OptionName } from '../../src/cli/options/table.ts';
import { readProduct } from '../../tools/release/contents.ts';
import { shellFiles, shellPath } from '../../tools/release/shell-files.ts';
import { runOnPseudoTerminal } from '../fixtures/pseudo-terminal.ts';
import { fetchDebianRoot } from '../peers/fetched.ts';

const directory = mkdtempSync(join(tmpdir(), 'shells-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const FILES = shellFiles(readProduct(), { date: '2026-01-02T03:04:05Z' });
for (const file of FILES) {
  const path = join(directory, shellPath(file));
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, file.text);
}
const place = join(directory, 'place');
mkdirSync(join(place, 'images/app'), { recursive: true });
for (const name of ['app.key', 'with blank.key', '$(touch stolen).key']) writeFileSync(join(place, name), '');

let root = '';
before(async () => {
  root = await fetchDebianRoot(['fish', 'groff-base', 'man-db', 'mandoc', 'zsh']);
});

/** In the root, which has our directory as /mnt and is left as it was. */
const ENTER =
  'mount --bind "$2" "$1/mnt" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && root=$1 && shift 2 && exec chroot "$root" env --chdir=/mnt/place HOME=/mnt/place "$@"';

function inRoot(...words: readonly string[]): readonly string[] {
  return ['unshare', '--mount', '--pid', '--fork', 'sh', '-c', ENTER, 'sh', root, directory, ...words];
}

async function run(...words: readonly string[]): Promise<string> {
  const [program = '', ...rest] = inRoot(...words);
  const { stdout, stderr } = await promisify(execFile)(program, rest, { encoding: 'utf8' });
  return stdout + stderr;
}

describe('fish', () => {
  const complete = async (line: string): Promise<readonly string[]> => {
    const program = `source /mnt/completions/fish/ocicrypt-kms.fish; complete -C $argv[1]`;
    const answer = await run('fish', '--no-config', '-c', program, line);
    return answer
      .split('\n')
      .filter((text) => text !== '')
      .map((text) => text.split('\t')[0] ?? '')
      .toSorted();
  };
  test('completes commands, and the options of each', async () => {
    assert.deepEqual(await complete('ocicrypt-kms '), [...COMMANDS.keys(), 'help'].toSorted());
    for (const [command, { options }] of COMMANDS) {
      const names: readonly OptionName[] = [...options, 'help'];
      const expected = names.map((name) => `--${name}`);
      assert.deepEqual(await complete(`ocicrypt-kms ${command} --`), expected.toSorted(), command);
    }
  });
  for (const [line, expected] of [
    ['ocicrypt-kms enc', ['encrypt']],
    ['ocicrypt-kms help rew', ['rewrap']],
    ['ocicrypt-kms encrypt d', ['dir:', 'docker-archive:', 'docker://']],
    ['ocicrypt-kms encrypt oci:im', ['oci:images/']],
    ['ocicrypt-kms encrypt oci:images/app oci-archive:ap', ['oci-archive:app.key']],
    ['ocicrypt-kms encrypt oci:a oci:b di', []],
    ['ocicrypt-kms encrypt oci:a oci:b --recipient=ke', ['--recipient=keyfile:///']],
    ['ocicrypt-kms encrypt oci:a oci:b --recipient aws', ['awskms:///']],
    ['ocicrypt-kms doctor keyfile:///mnt/place/app', ['keyfile:///mnt/place/app.key']],
    ['ocicrypt-kms decrypt a b --key=ap', ['--key=app.key']],
    ['ocicrypt-kms keyprovider --packet=', ['--packet=coco-v2', '--packet=v1', '--packet=v2']],
  ] as const) {
    test(`completes: ${line}`, async () => assert.deepEqual(await complete(line), expected));
  }
});

describe('zsh', () => {
  /** Types the line, the key, and what writes the line as it stands then into a file. */
  async function complete(line: string): Promise<string> {
    const setup = [
      'autoload -Uz compinit && compinit -D -u',
      'source /mnt/completions/zsh/_ocicrypt-kms',
      "tell() { print -r -- \"$BUFFER\" > /mnt/place/told; exit }; zle -N tell; bindkey '^X' tell; bindkey '^I' complete-word",
      'unsetopt beep auto_list auto_menu',
      "PS1='> '",
    ];
    writeFileSync(join(place, '.zshrc'), `${setup.join('\n')}\n`);
    const words = inRoot('zsh', '-i').map((word) => `'${word}'`);
    await runOnPseudoTerminal(words.join(' '), { rows: 50, columns: 120, keys: `${line}\t\x18` });
    return readFileSync(join(place, 'told'), 'utf8').trimEnd();
  }
  for (const [line, expected] of [
    ['ocicrypt-kms enc', 'ocicrypt-kms encrypt'],
    ['ocicrypt-kms help rew', 'ocicrypt-kms help rewrap'],
    ['ocicrypt-kms encrypt --recipients', 'ocicrypt-kms encrypt --recipients-file='],
    ['ocicrypt-kms encrypt oci:im', 'ocicrypt-kms encrypt oci:images/'],
    ['ocicrypt-kms encrypt doc', 'ocicrypt-kms encrypt docker'],
    ['ocicrypt-kms encrypt oci:images/app oci-archive:ap', 'ocicrypt-kms encrypt oci:images/app oci-archive:app.key'],
    ['ocicrypt-kms encrypt a b --recipient=ke', 'ocicrypt-kms encrypt a b --recipient=keyfile:///'],
    ['ocicrypt-kms encrypt a b --recipient aws', 'ocicrypt-kms encrypt a b --recipient awskms:///'],
    ['ocicrypt-kms doctor keyfile:///mnt/place/app', 'ocicrypt-kms doctor keyfile:///mnt/place/app.key'],
    ['ocicrypt-kms decrypt a b --key=with', 'ocicrypt-kms decrypt a b --key=with\\ blank.key'],
    ['ocicrypt-kms keyprovider --packet=co', 'ocicrypt-kms keyprovider --packet=coco-v2'],
    ['ocicrypt-kms config systemd-', 'ocicrypt-kms config systemd-socket'],
  ] as const) {
    test(`completes: ${line}`, async () => assert.equal(await complete(line), expected));
  }
  test('each command has its specifications, which zsh takes', async () => {
    for (const command of COMMANDS.keys()) {
      const line = `ocicrypt-kms ${command} --hel`;
      assert.equal(await complete(line), `ocicrypt-kms ${command} --help`);
    }
  });
});

describe('manual pages', () => {
  const pages = FILES.filter(({ kind, name }) => kind === 'manual page' && name !== 'kms_oci_crypt.1').map(
    ({ name }) => name,
  );
  for (const page of pages) {
    test(`groff, mandoc and man have nothing to say of ${page}`, async () => {
      const path = `/mnt/man/${basename(page)}`;
      assert.equal(await run('groff', '-man', '-ww', '-z', '-Tutf8', path), '');
      assert.equal(await run('mandoc', '-T', 'lint', '-W', 'warning', path), '');
      const shown = await run('man', '--warnings', '--local-file', path);
      assert.ok(shown.includes('NAME') && !/:\d+: warning/.test(shown), shown);
    });
  }
});
