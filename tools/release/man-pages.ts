// The manual pages: one for the program and one for each command, made from the tables that help is made from.

import { ERROR_STATUS } from '../../src/base/errors.ts';
import type { Command } from '../../src/cli/command.ts';
import { COMMANDS } from '../../src/cli/commands.ts';
import { FORMS, formWords } from '../../src/cli/options/forms.ts';
import { isOptionName, OPTION_GROUPS, type OptionName, optionSpec, optionText } from '../../src/cli/options/table.ts';
import type { Build, Product } from './contents.ts';

/** The pages for commands, in the language that `man` formats, by the names of their files. */
export function manualPages(product: Product, build: Pick<Build, 'date'>): ReadonlyMap<string, string> {
  const head = (name: string) => heading(name, product, build);
  return new Map([
    ['ocicrypt-kms.1', programPage(head('ocicrypt-kms'), product)],
    ['kms_oci_crypt.1', '.so man1/ocicrypt-kms-keyprovider.1\n'],
    ...[...COMMANDS].map(
      ([name, command]) =>
        [`ocicrypt-kms-${name}.1`, commandPage(head(`ocicrypt-kms-${name}`), name, command, product)] as const,
    ),
  ]);
}

function heading(name: string, { version }: Product, { date }: Pick<Build, 'date'>): string {
  return `.TH ${name.toUpperCase()} 1 ${date.slice(0, 10)} "ocicrypt\\-kms ${version}" "User Commands"\n.nh\n.ad l\n.ds AD l`;
}

function programPage(head: string, { description, home }: Product): string {
  const statuses = Object.entries(Object.groupBy(Object.entries(ERROR_STATUS), ([, { exit }]) => String(exit)));
  return page([
    head,
    '.SH NAME',
    `ocicrypt\\-kms \\- ${letters(lowered(description))}`,
    '.SH SYNOPSIS',
    '.B ocicrypt\\-kms',
    '.I COMMAND',
    `${letters('[OPTION]…')}`,
    '.SH DESCRIPTION',
    'Encrypts and decrypts container images, and answers the clients that do: skopeo, podman, buildah, containerd and CRI\\-O.',
    'Each command has a manual page of its own, and',
    '.B ocicrypt\\-kms help',
    '.I COMMAND',
    'shows the same.',
    '.SH COMMANDS',
    ...[...COMMANDS].flatMap(([name, { describe }]) => [
      '.TP',
      `.BR ocicrypt\\-kms\\-${letters(name)} (1)`,
      letters(describe),
    ]),
    '.SH EXIT STATUS',
    'A failure is one line on standard error that begins with its code.',
    '.TP',
    '.B 0',
    'The whole answer was written.',
    ...statuses.flatMap(([exit, codes = []]) => ['.TP', `.B ${exit}`, letters(codes.map(([code]) => code).join(', '))]),
    ...seeAlso([], home),
  ]);
}

function commandPage(head: string, name: string, command: Command, { home }: Product): string {
  const { operands, describe, examples, options } = command;
  const called = `ocicrypt-kms ${name}`;
  const taken: readonly OptionName[] = [...options, 'help'];
  const forms = formWords([operands, ...taken.map((option) => optionSpec(option).value)]);
  return page([
    head,
    '.SH NAME',
    `${letters(`ocicrypt-kms-${name}`)} \\- ${letters(describe)}`,
    '.SH SYNOPSIS',
    `.B ${letters(called)}`,
    ...(operands === '' ? [] : [`.I ${letters(operands)}`]),
    letters('[OPTION]…'),
    ...(forms.length === 0 ? [] : ['.SH OPERANDS AND VALUES']),
    ...forms.flatMap((word) => ['.TP', `.I ${word}`, letters(FORMS.get(word) ?? '')]),
    '.SH OPTIONS',
    ...Object.entries(OPTION_GROUPS).flatMap(([title, group]) => {
      const names = Object.keys(group)
        .filter(isOptionName)
        .filter((option) => taken.includes(option));
      return names.length === 0
        ? []
        : [`.SS ${letters(title)}`, ...names.flatMap((option) => optionEntry(option, command))];
    }),
    '.SH EXAMPLES',
    '.nf',
    ...examples.map((words) => letters(`${called} ${words}`.trimEnd())),
    '.fi',
    ...(command.isOpen === true ? FILES : []),
    ...seeAlso(['ocicrypt-kms'], home),
  ]);
}

/** What counts for a command without being named. */
const FILES = [
  '.SH FILES',
  'Without \\-\\-config the first of these that is there is read, but for policy and times:',
  '.TP',
  '.I $XDG_CONFIG_HOME/ocicrypt\\-kms/config.yaml',
  'or below ~/.config; not in a pipeline, where CI is set',
  '.TP',
  '.I /etc/ocicrypt\\-kms/config.yaml',
  'of the whole machine',
];

function optionEntry(name: OptionName, command: Command): readonly string[] {
  const { value } = optionSpec(name);
  const shown = value === undefined ? '' : `=\\fI${letters(value)}\\fR`;
  return ['.TP', `\\fB${letters(`--${name}`)}\\fR${shown}`, letters(optionText(name, command))];
}

function seeAlso(pages: readonly string[], home: string): readonly string[] {
  const names = pages.map((name) => `.BR ${letters(name)} (1),`);
  return ['.SH SEE ALSO', ...names, letters(home)];
}

function page(lines: readonly string[]): string {
  return `.\\" made from the tables of commands and options\n${lines.join('\n')}\n`;
}

/** Text as roff prints it letter by letter: hyphens can be copied into a shell, and no line is a request. */
function letters(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=[.'])/, '\\&')
    .replaceAll(
      /[^\x20-\x7e]/gu,
      (letter) => `\\[u${(letter.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}]`,
    );
}

/** A name section begins in lower case. */
function lowered(text: string): string {
  return `${text.slice(0, 1).toLowerCase()}${text.slice(1)}`;
}
