// Options as they were given, for files that say the same later: words of a command line, members of a configuration file.

import { resolve } from 'node:path';
import { type Settings, splitPair } from './settings.ts';
import { configurationPath, type OptionName, optionSpec } from './table.ts';

/** The words of these options, with whole paths: they are read in another directory. */
export function optionWords(settings: Settings, names: readonly OptionName[]): readonly string[] {
  return names.flatMap((name) =>
    settings
      .texts(name)
      .map((text) => (optionSpec(name).kind === 'switch' ? `--${name}` : `--${name}=${wholePath(name, text)}`)),
  );
}

/** The members of these options as YAML that `--config` reads; the options that no file takes are left out. */
export function optionMembers(settings: Settings, names: readonly OptionName[]): string {
  const sections = new Map<string, readonly string[]>();
  const lines: string[] = [];
  for (const name of names) {
    const [member, inner] = configurationPath(name) ?? [];
    if (member === undefined) continue;
    if (inner === undefined) lines.push(...memberLines(member, name, settings));
    else sections.set(member, [...(sections.get(member) ?? []), ...memberLines(inner, name, settings)]);
  }
  for (const [section, members] of sections) lines.push(`${section}:`, ...members.map((line) => `  ${line}`));
  return lines.map((line) => `${line}\n`).join('');
}

/** Texts are in quotes, which is JSON and so YAML: no value is taken for a number or a switch. */
function memberLines(member: string, name: OptionName, settings: Settings): readonly string[] {
  const texts = settings.texts(name).map((text) => wholePath(name, text));
  const last = texts.at(-1) ?? '';
  switch (optionSpec(name).kind) {
    case 'list':
      return [`${member}:`, ...texts.map((text) => `  - ${JSON.stringify(text)}`)];
    case 'pairs':
      return [`${member}:`, ...texts.map(pairLine)];
    case 'switch':
      return [`${member}: true`];
    case 'count':
      return [`${member}: ${last}`];
    default:
      return [`${member}: ${JSON.stringify(last)}`];
  }
}

function pairLine(text: string): string {
  const [name, value] = splitPair(text);
  return `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`;
}

function wholePath(name: OptionName, text: string): string {
  switch (optionSpec(name).value) {
    case 'DIR':
    case 'FILE':
      return resolve(text);
    case 'KEY=FILE': {
      const [key, path] = splitPair(text);
      return `${key}=${resolve(path)}`;
    }
    default:
      return text;
  }
}
