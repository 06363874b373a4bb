// What slips in around a value by accident, for every option and variable: taken off, or refused by name; never another failure.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { VARIABLES } from '../../src/base/environment.ts';
import { OPTION_NAMES } from '../../src/cli/options/configuration.ts';
import { configurationPath, type OptionName, optionSpec } from '../../src/cli/options/table.ts';
import { ENVIRONMENT, KEYS, NOWHERE, variable, variableWords, wordsFor } from '../fixtures/calls.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { proving, SEED, seeded } from '../fixtures/seed.ts';
import { wrapRequest } from '../fixtures/vectors/shape.ts';

const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-stray-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const STRAY: Readonly<Record<string, (value: string) => string>> = {
  'a newline at its end': (value) => `${value}\n`,
  'a carriage return at its end': (value) => `${value}\r`,
  'a blank in front': (value) => ` ${value}`,
  'a byte order mark in front': (value) => `\uFEFF${value}`,
  'a control character inside': (value) => `${value.slice(0, 1)}\u0001${value.slice(1)}`,
  'nothing in it': () => '',
};

function usualValue(name: OptionName): string {
  const { kind, choices, value = '' } = optionSpec(name);
  if (kind === 'choice') return choices?.[0] ?? '';
  if (kind === 'count') return '7';
  if (kind === 'duration') return '1s';
  if (kind === 'pairs') return 'x';
  if (/^(?:FILE|DIR|KEY=FILE)$/.test(value)) return '/nowhere/x';
  if (value === 'URL') return NOWHERE;
  if (value === 'KEY') return 'hashivault://k';
  return 'x';
}

const usualVariable = (name: string, kind: string): string => {
  if (/^(?:file|director)/.test(kind)) return '/nowhere/x';
  return /ENDPOINT$|ENDPOINT_URL|ADDR$|AUTHORITY|_URI$|proxy$/i.test(name) ? NOWHERE : 'value';
};

type Outcome = { readonly status: number | null; readonly stderr: string };

async function outcome(words: readonly string[], environment: Readonly<Record<string, string>>): Promise<Outcome> {
  const { status, stderr } = await runExecutable(words, {
    environment: { ...ENVIRONMENT, ...environment },
    input: wrapRequest([KEYS[3] ?? '']),
    cwd: directory,
  });
  return { status, stderr };
}

type Trial = {
  readonly name: string;
  readonly what: string;
  readonly clean: () => Promise<Outcome>;
  readonly stray: () => Promise<Outcome>;
};

/** As without what slipped in, or an error of usage or configuration that names the place. */
async function faultOf({ name, what, clean, stray }: Trial): Promise<string | undefined> {
  const found = await stray();
  const isRefused = (found.status === 64 || found.status === 78) && found.stderr.includes(name);
  if (isRefused) return undefined;
  const expected = await clean();
  if (endsAlike(found, expected)) return undefined;
  return `${name} with ${what}: ${found.status} ${found.stderr} and not ${expected.status} ${expected.stderr}`;
}

/** A port that nobody listens on is refused or, on a busy machine, not heard of in time. */
function endsAlike(found: Outcome, expected: Outcome): boolean {
  if (found.status === 70 || found.status !== expected.status) return false;
  const isNowhere = ({ status, stderr }: Outcome) => status === 69 && stderr.includes('127.0.0.1:1');
  return found.stderr === expected.stderr || (isNowhere(found) && isNowhere(expected));
}

async function assertHarmless(trials: readonly Trial[]): Promise<void> {
  const rest = [...trials];
  const faults: string[] = [];
  const work = async () => {
    for (let trial = rest.pop(); trial !== undefined; trial = rest.pop()) {
      const fault = await faultOf(trial);
      if (fault !== undefined) faults.push(fault);
    }
  };
  await Promise.all([work(), work(), work()]);
  assert.deepEqual(faults.toSorted(), []);
}

/** A sample: each of them with one accident in three runs. */
function accidents(index: number): readonly (readonly [string, (value: string) => string])[] {
  const all = Object.entries(STRAY);
  return proving ? all : all.filter((_, number) => (SEED + index) % (3 * all.length) === number);
}

test(seeded('around the value of any option'), async (context) => {
  const trials = OPTION_NAMES.filter((name) => optionSpec(name).kind !== 'switch').flatMap((name, index) =>
    accidents(index).map(([what, spoil]): Trial => {
      const value = usualValue(name);
      return {
        ...{ name: `--${name}`, what },
        clean: () => outcome(wordsFor(name, value), {}),
        stray: () => outcome(wordsFor(name, spoil(value)), {}),
      };
    }),
  );
  await assertHarmless(trials);
  context.diagnostic(`figures: ${trials.length} trials of options`);
});

test(seeded('around the value of any variable'), async (context) => {
  const trials = [...VARIABLES]
    .filter(([name, kind]) => kind !== 'any' && name !== 'HOME')
    .flatMap(([name, kind], index) =>
      accidents(index).map(([what, spoil]): Trial => {
        const value = usualVariable(name, kind);
        const words = variableWords(name);
        const unset = spoil(value) === '';
        const without = () => {
          const { [name]: _, ...others } = variable(name, '');
          return outcome(words, { ...others, [name]: '' });
        };
        return {
          ...{ name, what },
          clean: unset ? without : () => outcome(words, variable(name, value)),
          stray: () => outcome(words, variable(name, spoil(value))),
        };
      }),
    );
  await assertHarmless(trials);
  context.diagnostic(`figures: ${trials.length} trials of variables`);
});

test(seeded('a NUL in any member of the configuration file'), async (context) => {
  const names = OPTION_NAMES.filter((name) => configurationPath(name) !== undefined);
  const chosen = names.filter(
    (name, index) => /^(?:text|list|pairs)$/.test(optionSpec(name).kind) && (proving || (SEED + index) % 8 === 0),
  );
  for (const [index, name] of chosen.entries()) {
    const text = 'x\0y';
    const { kind } = optionSpec(name);
    const value = kind === 'list' ? [text] : kind === 'pairs' ? { 'kbs:///a/b/c': text } : text;
    const path = configurationPath(name) ?? [];
    const document = path.toReversed().reduce((inner: unknown, member) => ({ [member]: inner }), value);
    const file = join(directory, `nul-${index}.yaml`);
    writeFileSync(file, JSON.stringify(document));
    const [command = '', ...words] = wordsFor(name, usualValue(name));
    const others = words.filter((word) => !word.startsWith(`--${name}=`) && !word.startsWith('--config='));
    const { status, stderr } = await outcome([command, ...others, `--config=${file}`], {});
    assert.ok(status === 64 || status === 78, `${name}: ${stderr}`);
  }
  context.diagnostic(`figures: ${chosen.length} members with a NUL`);
});
