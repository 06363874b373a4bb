// Manual pages and completions are made from the tables: every command and every option of each is in both, as help has it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { type OptionName, optionSpec, optionText } from '../../src/cli/options/table.ts';
import { readProduct } from '../../tools/release/contents.ts';
import { shellFiles, shellPath } from '../../tools/release/shell-files.ts';

const FILES = new Map(
  shellFiles(readProduct(), { date: '2026-01-02T03:04:05Z' }).map((file) => [shellPath(file), file.text]),
);

/** What a reader sees of roff: requests gone, letters as they were. */
function plain(page: string): string {
  return page
    .replaceAll(/^\.(?:[BI]|SS|SH) (.*)$/gm, '$1')
    .replaceAll(/\\f[BIR]/g, '')
    .replaceAll('\\-', '-')
    .replaceAll(/\\\[u([0-9A-F]{4,6})\]/g, (_, code: string) => String.fromCodePoint(Number.parseInt(code, 16)))
    .replaceAll('\\&', '')
    .replaceAll('\\e', '\\');
}

for (const [name, command] of COMMANDS) {
  const { describe, options, examples, operands } = command;
  test(`the manual page of ${name} says what help says`, () => {
    const page = FILES.get(`man/ocicrypt-kms-${name}.1`) ?? assert.fail();
    assert.match(page, /^\.TH OCICRYPT-KMS-[A-Z]+ 1 2026-01-02 "ocicrypt\\-kms [\d.]+" "User Commands"$/m);
    const lines = plain(page).split('\n');
    assert.ok(lines.includes(`ocicrypt-kms-${name} - ${describe}`));
    if (operands !== '') assert.ok(lines.includes(operands));
    for (const words of examples) assert.ok(lines.includes(`ocicrypt-kms ${name} ${words}`.trimEnd()), words);
    const told: readonly OptionName[] = [...options, 'help'];
    for (const option of told) {
      const { value } = optionSpec(option);
      const at = lines.indexOf(`--${option}${value === undefined ? '' : `=${value}`}`);
      assert.ok(at >= 0, option);
      assert.equal(lines[at + 1], optionText(option, command));
    }
  });
}

test('the page of the program leads to that of every command, and kms_oci_crypt to that of keyprovider', () => {
  const page = FILES.get('man/ocicrypt-kms.1') ?? assert.fail();
  for (const name of COMMANDS.keys()) assert.ok(page.includes(`.BR ocicrypt\\-kms\\-${name} (1)\n`), name);
  assert.equal(FILES.get('man/kms_oci_crypt.1'), '.so man1/ocicrypt-kms-keyprovider.1\n');
});

test('a script for each shell completes every option of every command', () => {
  for (const path of ['bash/ocicrypt-kms', 'zsh/_ocicrypt-kms', 'fish/ocicrypt-kms.fish']) {
    const script = FILES.get(`completions/${path}`) ?? assert.fail(path);
    for (const [name, { options }] of COMMANDS) {
      assert.ok(script.includes(name), `${path}: ${name}`);
      for (const option of options) assert.match(script, new RegExp(`(?:--|-l )${option}\\b`), `${path}: ${option}`);
    }
  }
});

test('all of it is text of one language, in letters that every terminal has', () => {
  for (const [path, text] of FILES) {
    if (path.startsWith('man/')) assert.match(text, /^[\x20-\x7e\n]*$/, path);
    assert.ok(text.endsWith('\n') && !text.includes('\t'), path);
  }
});
