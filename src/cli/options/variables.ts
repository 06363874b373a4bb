// Reads options from variables of the environment, for pipelines; which options have one: docs/configuration.md.

import { OcicryptError } from '../../base/errors.ts';
import { nearest } from '../../base/nearest.ts';
import { showValue } from '../../base/shown.ts';
import { OPTION_NAMES } from './configuration.ts';
import { Settings } from './settings.ts';
import { isRepeatable } from './spec.ts';
import { type OptionName, optionSpec, VARIABLE_PREFIX, variableName, variableOf } from './table.ts';

/**
 * The options that variables set.
 *
 * @param taken the options of the command; those of other commands may be set beside them
 * @returns their texts: of an option that may be repeated, one for each line of the variable
 * @throws OcicryptError `configuration`, naming the variable and never its value: for one that no option has, which may be
 * misspelt, for one that is empty, and for what its option does not take
 */
export async function readVariables(
  environment: NodeJS.ProcessEnv,
  taken: readonly OptionName[],
): Promise<ReadonlyMap<OptionName, readonly string[]>> {
  const texts = new Map<OptionName, readonly string[]>();
  for (const variable of Object.keys(environment).filter((name) => name.startsWith(VARIABLE_PREFIX))) {
    const option = OPTION_NAMES.find((name) => variableOf(name) === variable);
    if (option === undefined) throw await unknownVariable(variable);
    if (taken.includes(option)) texts.set(option, textsOf(variable, option, environment[variable] ?? ''));
  }
  return texts;
}

function textsOf(variable: string, option: OptionName, value: string): readonly string[] {
  const { kind } = optionSpec(option);
  const lines = value.split(/\r?\n/).filter((line) => line.trim() !== '');
  // A demand that is empty by mistake would demand nothing.
  if (lines.length === 0) throw invalid(variable, 'is empty', 'unset it, or give it a value');
  if (kind === 'switch') {
    if (value.trim() === 'true') return [''];
    if (value.trim() === 'false') return [];
    throw invalid(variable, 'takes true or false');
  }
  if (lines.length > 1 && !isRepeatable(kind)) throw invalid(variable, 'takes one line');
  try {
    new Settings(new Map([[option, lines]]));
  } catch (error) {
    throw error instanceof OcicryptError ? error.with({ code: 'configuration', before: `${variable}: ` }) : error;
  }
  return lines;
}

async function unknownVariable(variable: string): Promise<OcicryptError> {
  const known = OPTION_NAMES.flatMap((name) => variableOf(name) ?? []);
  const withoutOne = OPTION_NAMES.find((name) => variableOf(name) === undefined && variableName(name) === variable);
  if (withoutOne !== undefined) {
    return invalid(variable, 'has no effect', `say --${withoutOne} on the command line, or unset the variable`);
  }
  const wordOf = (name: string) => name.slice(VARIABLE_PREFIX.length);
  const near = await nearest(wordOf(variable), known.map(wordOf));
  const hint = near === undefined ? `known are ${known.join(', ')}` : `did you mean ${VARIABLE_PREFIX}${near}?`;
  return invalid(showValue(variable), 'is no variable of an option', hint);
}

function invalid(variable: string, problem: string, hint?: string): OcicryptError {
  return new OcicryptError('configuration', `${variable} ${problem}`, { hint });
}
