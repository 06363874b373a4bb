// How everything here is measured: contenders take turns, so that what slows the machine slows all of them alike, and
// what counts is the ratio of their medians in one run.

import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { PROJECT } from '../tools/process.ts';

/** Something that is measured beside others. */
export type Contender = {
  readonly name: string;
  /** One run; returns its milliseconds. */
  readonly run: () => number | Promise<number>;
  /** The ratio to the first contender that the project promises at the most. */
  readonly promised?: number;
};

/** Milliseconds: the median, and the tenth and the ninetieth percentile. */
export type Figures = { readonly median: number; readonly low: number; readonly high: number };

/** Runs that are not counted: caches and clocks settle. */
const WARM_UP = 3;

/** Runs every contender `runs` times, one after the other and every other round backwards; figures in their order. */
export async function interleave(contenders: readonly Contender[], runs: number): Promise<readonly Figures[]> {
  const measured = contenders.map(({ run }) => ({ run, figures: [] as number[] }));
  for (let round = -WARM_UP; round < runs; round++) {
    for (const { run, figures } of round % 2 === 0 ? measured : measured.toReversed()) {
      const figure = await run();
      if (round >= 0) figures.push(figure);
    }
  }
  return measured.map(({ figures }) => summarize(figures));
}

/** Measures contenders and prints them with their ratio to the first. */
export async function compare(title: string, contenders: readonly Contender[], runs: number): Promise<void> {
  printRatios(title, contenders, await interleave(contenders, runs));
}

/** Prints the figures of contenders with their ratio to the first. */
export function printRatios(
  title: string,
  contenders: readonly Pick<Contender, 'name' | 'promised'>[],
  results: readonly Figures[],
): void {
  const base = results[0]?.median ?? Number.NaN;
  printRow(title, 'ratio', 'promised', 'median', '10 % to 90 %');
  for (const [index, { name, promised }] of contenders.entries()) {
    const { median, low, high } = results[index] ?? summarize([]);
    const limit = promised === undefined ? '' : `≤ ${promised.toFixed(2)}`;
    const spread = `${low.toFixed(1)} to ${high.toFixed(1)} ms`;
    printRow(`  ${name}`, (median / base).toFixed(3), limit, `${median.toFixed(1)} ms`, spread);
  }
  print('');
}

/** What a figure depends on beside the code. */
export function printMachine(): void {
  const { version } = JSON.parse(readFileSync(join(PROJECT, 'node_modules/bun/package.json'), 'utf8'));
  const { versions, platform, arch } = process;
  print(`Node ${versions.node}, executable by Bun ${version}, ${platform} ${arch}, ${cpus().length} cores\n`);
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function printRow(name: string, ...columns: readonly string[]): void {
  print(name.padEnd(44) + columns.map((column, index) => column.padStart(index === 3 ? 18 : 11)).join(''));
}

/** Prints a row for a number of bytes. */
export function printSize(name: string, bytes: number, promised: string): void {
  printRow(name, '', promised, `${(bytes / 1024 / 1024).toFixed(1)} MiB`);
}

/** The figure in the middle. */
export function median(figures: readonly number[]): number {
  return summarize(figures).median;
}

function summarize(figures: readonly number[]): Figures {
  const sorted = figures.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
  return { median: at(0.5), low: at(0.1), high: at(0.9) };
}
