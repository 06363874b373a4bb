// Turns the words of a command line into settings.

import { OcicryptError } from '../../base/errors.ts';
import { nearest } from '../../base/nearest.ts';
import { readFileName, type TextProblem, trimWord } from '../../base/operator-text.ts';
import { showValue } from '../../base/shown.ts';
import type { OptionSpec } from './spec.ts';
import {
  type CountName,
  type DurationName,
  isOptionName,
  type ListName,
  type OptionName,
  optionSpec,
  type PairsName,
  type SwitchName,
  type TextName,
} from './table.ts';

/** Checked values by option name, from the command line and the configuration file. */
export class Settings {
  readonly #texts: ReadonlyMap<OptionName, readonly string[]>;
  /** The words that are not options. */
  readonly operands: readonly string[];

  constructor(texts: ReadonlyMap<OptionName, readonly string[]>, operands: readonly string[] = []) {
    this.#texts = new Map([...texts].map(([name, values]) => [name, values.map((value) => readValue(name, value))]));
    this.operands = operands;
    for (const [name, values] of this.#texts) {
      if (optionSpec(name).kind === 'pairs') checkNames(name, values);
    }
  }

  /** The options that are given. */
  names(): readonly OptionName[] {
    return [...this.#texts.keys()];
  }

  list(name: ListName): readonly string[] {
    return this.#texts.get(name) ?? [];
  }

  text(name: TextName): string | undefined {
    return this.#texts.get(name)?.at(-1);
  }

  pairs(name: PairsName): Readonly<Record<string, string>> | undefined {
    return this.#texts.has(name) ? Object.fromEntries((this.#texts.get(name) ?? []).map(splitPair)) : undefined;
  }

  /** In milliseconds. */
  duration(name: DurationName): number | undefined {
    const text = this.#texts.get(name)?.at(-1);
    return text === undefined ? undefined : parseDuration(text);
  }

  /** `--timeout` as the time for one request, whose client waits for it. @throws OcicryptError `usage` for more than 50 s */
  requestTime(): number | undefined {
    const time = this.duration('timeout');
    if (time === undefined || time <= MAXIMUM_REQUEST_TIME_MILLISECONDS) return time;
    throw new OcicryptError(
      'usage',
      'option --timeout takes at most 50s for this command: a client waits for each request',
    );
  }

  /** `--timeout` as the time for one call of a key, where it is that of a whole image command. */
  keyTime(): number | undefined {
    const time = this.duration('timeout');
    return time === undefined ? undefined : Math.min(time, MAXIMUM_REQUEST_TIME_MILLISECONDS);
  }

  count(name: CountName): number | undefined {
    const text = this.#texts.get(name)?.at(-1);
    return text === undefined ? undefined : Number(text);
  }

  switch(name: SwitchName): boolean {
    // A file or variable may say that it is off.
    return (this.#texts.get(name)?.length ?? 0) > 0;
  }

  /** What was given for an option of any kind, as it was written. */
  texts(name: OptionName): readonly string[] {
    return this.#texts.get(name) ?? [];
  }

  /** Whether other settings say the same of an option. */
  hasSame(name: OptionName, other: Settings): boolean {
    const [ours, theirs] = [this.texts(name), other.texts(name)];
    return ours.length === theirs.length && ours.every((text, index) => text === theirs[index]);
  }

  /** These settings with other values of one option. */
  with(name: OptionName, values: readonly string[]): Settings {
    return new Settings(new Map([...this.#texts, [name, values]]), this.operands);
  }

  /** These settings, but of some options what other settings say, or nothing where those say nothing. */
  keeping(names: readonly OptionName[], other: Settings): Settings {
    const ours = [...this.#texts].filter(([name]) => !names.includes(name));
    const theirs = [...other.#texts].filter(([name]) => names.includes(name));
    return new Settings(new Map([...ours, ...theirs]), this.operands);
  }

  /** These settings, with those of `file` where these say nothing. */
  over(file: ReadonlyMap<OptionName, readonly string[]>): Settings {
    return new Settings(new Map([...file, ...this.#texts]), this.operands);
  }
}

/** How strictly words are read: Go's flag package takes one dash or two, and its users give empty values. */
export type Spelling = 'ours' | 'go';

/**
 * Reads the words after the command's name.
 *
 * @param allowed the options of this command
 * @throws OcicryptError `usage`, with the nearest option if one is unknown
 */
export async function parseSettings(
  words: readonly string[],
  allowed: readonly OptionName[],
  spelling: Spelling = 'ours',
): Promise<Settings> {
  const texts = new Map<OptionName, string[]>();
  const operands: string[] = [];
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const option = word === '--' ? undefined : splitOption(word, spelling);
    if (option === undefined) {
      operands.push(...(word === '--' ? rest.splice(0) : [word]));
      continue;
    }
    const { rawName, name, inline } = option;
    if (!isOptionName(name) || (name !== 'help' && !allowed.includes(name)))
      throw await unknownOption(rawName, allowed);
    const isSwitch = optionSpec(name).kind === 'switch';
    if (isSwitch && inline !== undefined) throw new OcicryptError('usage', `option ${rawName} takes no value`);
    const value = isSwitch ? '' : (inline ?? rest.shift());
    if (value === '' && spelling === 'go' && REFERENCE_OPTIONS.has(name)) {
      texts.delete(name);
      continue;
    }
    // A word that looks like an option is one: `--adc --kmsURI=…` would otherwise lose the second without a word.
    if (!isSwitch && (!value || (inline === undefined && /^-(?!\d+$)/.test(value)))) {
      throw new OcicryptError('usage', `option ${rawName} needs a value`, {
        hint: `write ${rawName}=${optionSpec(name).value}`,
      });
    }
    texts.set(name, [...(texts.get(name) ?? []), value ?? '']);
  }
  return new Settings(texts, operands);
}

/** The texts that the reference provider takes, for which an empty one is as none, as a script writes `--adc=$ADC`. */
const REFERENCE_OPTIONS: ReadonlySet<OptionName> = new Set(['adc', 'kmsURI', 'debugLog']);

type SplitOption = { readonly rawName: string; readonly name: string; readonly inline: string | undefined };

/** `--NAME`, `--NAME=VALUE`, `-h`, and in Go's spelling `-NAME` too; undefined for a word that is no option. */
function splitOption(word: string, spelling: Spelling): SplitOption | undefined {
  if (!word.startsWith('-') || word === '-') return undefined;
  const equals = word.indexOf('=');
  const rawName = equals < 0 ? word : word.slice(0, equals);
  const inline = equals < 0 ? undefined : word.slice(equals + 1);
  if (rawName === '-h') return { rawName, name: 'help', inline };
  const dashes = rawName.startsWith('--') ? 2 : 1;
  // No name: one dash is not enough for ours.
  const name = dashes === 2 || (spelling === 'go' && rawName.length > 2) ? rawName.slice(dashes) : '';
  return { rawName, name, inline };
}

async function unknownOption(rawName: string, allowed: readonly OptionName[]): Promise<OcicryptError> {
  if (rawName.startsWith('--') && isOptionName(rawName.slice(2))) {
    return new OcicryptError('usage', `unknown option ${showValue(rawName)} for this command`, {
      hint: 'other commands have it; run with --help for those of this one',
    });
  }
  const near = await nearest(rawName.replace(/^-+/, ''), allowed);
  return new OcicryptError('usage', `unknown option ${showValue(rawName)}`, {
    hint: near === undefined ? 'run with --help for those there are' : `did you mean --${near}?`,
  });
}

/** The value as it is used. @throws OcicryptError `usage` */
function readValue(name: OptionName, text: string): string {
  const spec = optionSpec(name);
  if (spec.kind === 'switch') return text;
  const value = readText(spec, text);
  if (typeof value !== 'string') {
    throw new OcicryptError('usage', `option --${name} ${value.problem}`, { hint: value.hint });
  }
  checkValue(name, value);
  return value;
}

/** What may stand around the value by accident is taken away where it cannot be meant. */
function readText({ kind, value }: OptionSpec, text: string): string | TextProblem {
  switch (value) {
    case 'DIR':
    case 'FILE':
      return readFileName(text);
    case 'KEY=FILE': {
      const file = readFileName(splitPair(text)[1]);
      return typeof file === 'string' ? text : file;
    }
    default:
      // A label may hold a blank at its end, and other labels are others.
      return kind === 'pairs' ? text : trimWord(text, true);
  }
}

function checkValue(name: OptionName, value: string): void {
  const { kind, choices, value: form } = optionSpec(name);
  const problem =
    (kind === 'choice' && !choices?.includes(value) && `takes ${choices?.join(' or ')}`) ||
    (kind === 'pairs' && !/^[^=]+=/.test(value) && `takes ${form}`) ||
    (value === '' && 'needs a value') ||
    (kind === 'count' && !/^[1-9]\d{0,5}$/.test(value) && 'takes a number from 1 to 999999') ||
    (kind === 'duration' && parseDuration(value) === undefined && 'takes a time from 1ms to 24h, as 500ms, 10s or 5m');
  if (problem) throw new OcicryptError('usage', `option --${name} ${problem}, not ${showValue(value)}`);
}

/** The time after which Confidential Containers' agent gives up. */
const MAXIMUM_REQUEST_TIME_MILLISECONDS = 50_000;
const MAXIMUM_DURATION_MILLISECONDS = 24 * 3_600_000;
const UNITS: ReadonlyMap<string | undefined, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,6})(ms|s|m|h)$/.exec(text);
  const milliseconds = Number(match?.[1]) * (UNITS.get(match?.[2]) ?? 0);
  return milliseconds >= 1 && milliseconds <= MAXIMUM_DURATION_MILLISECONDS ? milliseconds : undefined;
}

/** One name with two values would silently be the last one. */
function checkNames(name: OptionName, values: readonly string[]): void {
  const names = values.map((value) => splitPair(value)[0]);
  const twice = names.find((one, index) => names.indexOf(one) !== index);
  if (twice !== undefined) throw new OcicryptError('usage', `option --${name} names ${showValue(twice)} twice`);
}

/** Name and value of `NAME=VALUE`, which has been checked. */
export function splitPair(text: string): readonly [string, string] {
  const equals = text.indexOf('=');
  return [text.slice(0, equals), text.slice(equals + 1)];
}
