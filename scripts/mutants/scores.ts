// docs/mutants.md: what the last run found out of each file, and the changes that make no difference.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SEED } from '../../test/fixtures/seed.ts';
import { PROJECT } from '../../tools/process.ts';
import { today } from '../promises.ts';
import { EQUIVALENT } from './equivalent.ts';

/** What was tried in a file. */
export type Score = {
  readonly file: string;
  /** How many changes of the file there are. */
  readonly changes: number;
  readonly tried: number;
  readonly noticed: number;
  /** Those that no test noticed and that make no difference. */
  readonly equivalent: number;
};

const DOCUMENT = join(PROJECT, 'docs/mutants.md');

/** Writes the row of a file; those of other files stay. */
export function recordScore(score: Score): void {
  const rows = readRows();
  const { file, changes, tried, noticed, equivalent } = score;
  const numbers = [changes, tried, noticed, equivalent, tried - noticed - equivalent, percentage([score])];
  rows.set(file, `| ${[file, ...numbers].join(' | ')} | ${today()}, ${SEED} |`);
  writeFileSync(DOCUMENT, show([...rows.keys()].sort().map((name) => rows.get(name) ?? '')));
}

/** The figures of all files in one line. */
export function sumScores(): string {
  const scores = [...readRows().values()].map((row): Score => {
    const [file = '', ...numbers] = row.slice(2).split(' | ');
    const [changes = 0, tried = 0, noticed = 0, equivalent = 0] = numbers.map(Number);
    return { file, changes, tried, noticed, equivalent };
  });
  const sum = (name: Exclude<keyof Score, 'file'>) => scores.reduce((total, score) => total + score[name], 0);
  return `${sum('tried')} of ${sum('changes')} changes in ${scores.length} files, ${sum('noticed')} noticed, ${sum('equivalent')} without a difference: ${percentage(scores)}; docs/mutants.md has each file`;
}

/** How many of those that make a difference were noticed. */
function percentage(scores: readonly Score[]): string {
  const [noticed, all] = scores.reduce(
    ([some, total], { noticed, tried, equivalent }) => [some + noticed, total + tried - equivalent],
    [0, 0],
  );
  return all === 0 ? '–' : `${((100 * noticed) / all).toFixed(1)} %`;
}

function readRows(): Map<string, string> {
  const text = existsSync(DOCUMENT) ? readFileSync(DOCUMENT, 'utf8') : '';
  return new Map([...text.matchAll(/^\| (src\/\S+) \|.*$/gm)].map(([row, file = '']) => [file, row]));
}

function show(rows: readonly string[]): string {
  const reasons = EQUIVALENT.map(
    ({ file, code, changed, why }) => `- ${file}: ${quote(code)} → ${quote(changed)}: ${why}`,
  );
  return `# Mutants

How closely the tests watch the code that guards keys. \`npm run test:mutants\` makes one change after the other in a copy of the
sources: a condition that always or never holds, another operator, another number, a call left out. After each it runs
the tests that reach the place. A change that no test notices is open: a test is missing there, or the code is not needed.
The command writes this file; do not edit it. \`OCICRYPT_TEST_SEED=SEED npm run test:mutants -- FILE\` repeats a row;
\`OCICRYPT_TEST_RUNS=20\` tries 20 changes of each file.

| file | changes | tried | noticed | no difference | open | noticed of those with a difference | day, seed |
|---|---|---|---|---|---|---|---|
${rows.join('\n')}

## Changes that make no difference

${reasons.join('\n')}
`;
}

function quote(code: string): string {
  return `\`${code.replaceAll(/\s+/g, ' ')}\``;
}
