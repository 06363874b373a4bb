// What shells complete, whichever of them: the commands, their options and operands, read from the tables of both.

import type { Command } from '../command.ts';
import { isRepeatable } from '../options/spec.ts';
import { type Start, startsOfOperands, startsOfOption } from '../options/starts.ts';
import { type OptionName, optionSpec } from '../options/table.ts';

export type CompletedOption = {
  readonly name: OptionName;
  readonly describe: string;
  /** What help calls the value; undefined for a switch. */
  readonly value: string | undefined;
  readonly isRepeatable: boolean;
  readonly starts: readonly Start[];
};

export type CompletedOperand = {
  readonly title: string;
  readonly starts: readonly Start[];
  /** Whether it may be given any number of times: the last one alone. */
  readonly isRepeated: boolean;
};

export type CompletedCommand = {
  readonly name: string;
  readonly describe: string;
  readonly operands: readonly CompletedOperand[];
  readonly options: readonly CompletedOption[];
};

/** Every command there is, and `help`. */
export function completedCommands(table: ReadonlyMap<string, Command>): readonly CompletedCommand[] {
  const commands = [...table].map(([name, { describe, operands, options }]): CompletedCommand => {
    const titles = operands.split(' ');
    return {
      name,
      describe,
      operands: startsOfOperands(operands).map((starts, index, all) => ({
        title: titles[index] ?? '',
        starts,
        isRepeated: operands.endsWith('…') && index === all.length - 1,
      })),
      options: [...new Set<OptionName>([...options, 'help'])].map(completedOption),
    };
  });
  const starts = commands.map(({ name }): Start => ({ text: name, rest: 'nothing' }));
  const help = { name: 'help', describe: 'show what a command does', options: [] };
  return [...commands, { ...help, operands: [{ title: 'COMMAND', starts, isRepeated: false }] }];
}

function completedOption(name: OptionName): CompletedOption {
  const spec = optionSpec(name);
  const { describe, value, kind } = spec;
  return { name, describe, value, isRepeatable: isRepeatable(kind), starts: startsOfOption(spec) };
}

/** Starts as the functions of the scripts read them: the text, and a mark for what follows it. */
export function markedStarts(starts: readonly Start[]): readonly string[] {
  const marks = { anything: '', directories: '%d', files: '%f', nothing: '%w' } as const;
  return starts.map(({ text, rest }) => `${text}${marks[rest]}`);
}

/** Every option once, with the commands that take it: it means the same for all of them. */
export function distinctOptions(
  commands: readonly CompletedCommand[],
): readonly { readonly option: CompletedOption; readonly takers: readonly string[] }[] {
  const options = new Map(commands.flatMap((command) => command.options.map((option) => [option.name, option])));
  return [...options.values()].map((option) => ({
    option,
    takers: commands.flatMap(({ name, options }) => (options.some((one) => one.name === option.name) ? [name] : [])),
  }));
}

/** The options that take a value, of all commands. */
export function valueOptions(commands: readonly CompletedCommand[]): readonly OptionName[] {
  return distinctOptions(commands).flatMap(({ option: { name, value } }) => (value === undefined ? [] : [name]));
}

/** The text as one word of any of the three shells; fish alone would read a backslash between single quotes. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'"'"'`)}'`;
}
