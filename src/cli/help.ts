// The help texts, made from the tables of commands, options and forms, for a terminal of 80 columns.

import type { Command, Personality } from './command.ts';
import { COMMANDS } from './commands.ts';
import { FORMS, formWords } from './options/forms.ts';
import { isOptionName, OPTION_GROUPS, type OptionName, optionSpec, optionText } from './options/table.ts';

const WIDTH = 80;

/** What `ocicrypt-kms help` and `ocicrypt-kms --help` print. */
export function overviewHelp(): string {
  const rows = [...COMMANDS].map(([name, { operands, describe }]) => [`${name} ${operands}`.trim(), describe] as const);
  return `ocicrypt-kms: encrypt container images with the keys in your KMS

usage: ocicrypt-kms COMMAND [OPTION]…

${columns(rows, 28)}

ocicrypt-kms help COMMAND shows what a command does, with examples and options.
ocicrypt-kms --version prints the version. Exit codes: docs/errors.md.
`;
}

/** What `help COMMAND` and `COMMAND --help` print. */
export function commandHelp(name: string, command: Command, personality: Personality): string {
  const called = personality === 'kms_oci_crypt' && name === 'keyprovider' ? personality : `${personality} ${name}`;
  const usage = [called, command.operands, '[OPTION]…'].filter((word) => word !== '').join(' ');
  return [
    wrapWords(`${called}: ${command.describe}`, WIDTH).join('\n'),
    `usage: ${wrapWords(usage, WIDTH - 'usage: '.length).join('\n         ')}`,
    `examples:\n${command.examples.map((words) => commandLine(`${called} ${words}`.trimEnd())).join('\n')}`,
    ...writtenForms(command),
    ...optionGroups(command),
  ]
    .map((section) => `${section}\n`)
    .join('\n');
}

/** A line for a shell, continued below if it is long. */
function commandLine(text: string): string {
  return `  ${wrapWords(text, WIDTH - 8).join(' \\\n      ')}`;
}

/** How to write the words in capitals that the command or one of its options takes. */
function writtenForms({ operands, options }: Command): readonly string[] {
  const words = formWords([operands, ...options.map((name) => optionSpec(name).value)]);
  const rows = words.map((word) => [word, FORMS.get(word) ?? ''] as const);
  return rows.length === 0 ? [] : [`where\n${columns(rows, 13)}`];
}

function optionGroups(command: Command): readonly string[] {
  const taken: readonly OptionName[] = [...command.options, 'help'];
  return Object.entries(OPTION_GROUPS).flatMap(([title, group]) => {
    const names = Object.keys(group)
      .filter(isOptionName)
      .filter((name) => taken.includes(name));
    const rows = names.map((name) => [optionUsage(name), optionText(name, command)] as const);
    return rows.length === 0 ? [] : [`${title}:\n${columns(rows, 28)}`];
  });
}

function optionUsage(name: OptionName): string {
  const { value } = optionSpec(name);
  return `--${name}${value === undefined ? '' : `=${value}`}`;
}

/** Two columns; if the first text of a row is too wide, the second is below it. */
function columns(rows: readonly (readonly [string, string])[], indent: number): string {
  return rows
    .map(([left, text]) => {
      const lines = wrapWords(text, WIDTH - indent);
      const first = `  ${left}`;
      const head = first.length < indent - 1 ? first.padEnd(indent) + lines.shift() : first;
      return [head, ...lines.map((line) => ' '.repeat(indent) + line)].join('\n');
    })
    .join('\n');
}

function wrapWords(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? '';
    if (last !== '' && last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines;
}
