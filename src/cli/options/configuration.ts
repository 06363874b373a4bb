// Reads a configuration file. Its members are the options of the table; docs/configuration.md.

import { OcicryptError } from '../../base/errors.ts';
import { nearest } from '../../base/nearest.ts';
import { readGuardedFile, readProtectedFile } from '../../base/secret-file.ts';
import { showPath, showValue } from '../../base/shown.ts';
import { isRecord, readYamlFile } from '../../base/yaml-file.ts';
import { Settings } from './settings.ts';
import { configurationPath, isOptionName, OPTIONS, type OptionName, optionSpec } from './table.ts';

/** Every option there is. Here, because a command that reads no file does without: to make it takes a start 0.5 ms. */
export const OPTION_NAMES: readonly OptionName[] = Object.keys(OPTIONS).filter(isOptionName);

/** Larger files are not configuration. */
const MAXIMUM_FILE_BYTES = 1024 * 1024;

/**
 * Reads a YAML (or JSON, which is YAML) file into option values.
 *
 * @param how a file that was only found must be ours or root's, and no other user may write it; of one that was named,
 * not every user
 * @throws OcicryptError `configuration`, naming the file, the member, and the nearest member if one is unknown
 */
export async function readConfiguration(
  file: string,
  how: 'found' | 'named' = 'named',
): Promise<ReadonlyMap<OptionName, readonly string[]>> {
  const reader = how === 'found' ? readProtectedFile : readGuardedFile;
  const document = await readYamlFile(file, 'the configuration', MAXIMUM_FILE_BYTES, reader);
  const texts = new Map<OptionName, readonly string[]>();
  for (const [name, value] of Object.entries(document)) {
    const section = optionsBelow([name]);
    const exact = optionAt([name]);
    if (exact !== undefined) texts.set(exact, textsOf(exact, value, file, name));
    else if (section.length === 0) throw await unknownMember(file, [name]);
    else {
      if (!isRecord(value)) throw invalid(file, name, 'must hold members', `known are ${section.join(', ')}`);
      for (const [member, inner] of Object.entries(value)) {
        const option = optionAt([name, member]);
        if (option === undefined) throw await unknownMember(file, [name, member]);
        texts.set(option, textsOf(option, inner, file, `${name}.${member}`));
      }
    }
  }
  checkTexts(file, texts);
  return texts;
}

function optionAt(path: readonly string[]): OptionName | undefined {
  return OPTION_NAMES.find((name) => configurationPath(name)?.join('.') === path.join('.'));
}

/** Members that are possible below a path. */
function optionsBelow(path: readonly string[]): readonly string[] {
  return OPTION_NAMES.flatMap((name) => {
    const at = configurationPath(name);
    return at !== undefined && at.length > path.length && path.every((part, index) => at[index] === part)
      ? [at[path.length] ?? '']
      : [];
  });
}

async function unknownMember(file: string, path: readonly string[]): Promise<OcicryptError> {
  const possible = path.length > 1 ? optionsBelow(path.slice(0, -1)) : topLevelMembers();
  const near = await nearest(path.at(-1) ?? '', possible);
  return new OcicryptError('configuration', `${showPath(file)}: unknown member ${showValue(path.join('.'))}`, {
    hint: near === undefined ? `known are ${possible.join(', ')}` : `did you mean ${near}?`,
  });
}

function topLevelMembers(): readonly string[] {
  return [...new Set(OPTION_NAMES.flatMap((name) => configurationPath(name)?.[0] ?? []))];
}

function textsOf(name: OptionName, value: unknown, file: string, shown: string): readonly string[] {
  switch (optionSpec(name).kind) {
    case 'list':
      if (Array.isArray(value) && value.every((item) => typeof item === 'string' && item !== '')) return value;
      throw invalid(file, shown, 'must be a list of texts', 'write it as ["VALUE", "VALUE"]');
    case 'pairs':
      if (isRecord(value) && Object.values(value).every((item) => typeof item === 'string')) {
        return Object.entries(value).map(([key, item]) => `${key}=${item}`);
      }
      throw invalid(file, shown, 'must hold names and texts', 'write it as {NAME: "VALUE"}');
    case 'count':
      if (typeof value === 'number' && Number.isInteger(value)) return [String(value)];
      throw invalid(file, shown, 'must be a number', 'write it without quotes');
    case 'switch':
      if (typeof value === 'boolean') return value ? [''] : [];
      throw invalid(file, shown, 'must be true or false', 'write it without quotes');
    default:
      if (typeof value === 'string' && value !== '') return [value];
      throw invalid(file, shown, 'must be a text', 'write it as "VALUE", in quotes and not as a list');
  }
}

/** The same checks as for the command line, said of the file. */
function checkTexts(file: string, texts: ReadonlyMap<OptionName, readonly string[]>): void {
  try {
    new Settings(texts);
  } catch (error) {
    throw error instanceof OcicryptError ? error.with({ code: 'configuration', before: `${showPath(file)}: ` }) : error;
  }
}

function invalid(file: string, member: string, problem: string, hint: string): OcicryptError {
  return new OcicryptError('configuration', `${showPath(file)}: ${member} ${problem}`, { hint });
}
