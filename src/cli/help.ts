// The help texts, made from the tables of commands and options.

import type { Personality } from './command.ts';
import { COMMANDS } from './commands.ts';
import { type OptionName, optionSpec } from './options/table.ts';

/** What `ocicrypt-kms --help` prints. */
export function overviewHelp(): string {
  const rows = [...COMMANDS].map(([name, { operands, describe }]) => [`${name} ${operands}`.trim(), describe] as const);
  return `ocicrypt-kms: encrypt container images with the keys in your KMS

usage: ocicrypt-kms COMMAND [OPTION]…

${columns(rows)}

ocicrypt-kms COMMAND --help shows a command's options; ocicrypt-kms --version its version.
Keys look like gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K or keyfile:///PATH (docs/keys.md).
Exit codes: docs/errors.md.
`;
}

/** What `COMMAND --help` prints. */
export function commandHelp(name: string, personality: Personality): string {
  const command = COMMANDS.get(name);
  if (command === undefined) return overviewHelp();
  const called = personality === 'kms_oci_crypt' ? personality : `ocicrypt-kms ${name}`;
  const rows = [...command.options, 'help' as const].map(
    (option) => [optionUsage(option), optionText(option)] as const,
  );
  return `${called}: ${command.describe}

usage: ${[called, command.operands, '[OPTION]…'].filter((word) => word !== '').join(' ')}

${columns(rows)}
`;
}

function optionUsage(name: OptionName): string {
  const { value } = optionSpec(name);
  return `--${name}${value === undefined ? '' : `=${value}`}`;
}

function optionText(name: OptionName): string {
  const { describe, fallback } = optionSpec(name);
  return fallback === undefined ? describe : `${describe} (default: ${fallback})`;
}

const WIDTH = 100;

/** Two columns; a first one that is too wide has its text below. */
function columns(rows: readonly (readonly [string, string])[]): string {
  const indent = 30;
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
