// Sees to it that what is measured is what the sources say.

import { globSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT, runTool } from '../tools/process.ts';

/** The executable that is shipped. */
export const EXECUTABLE = join(PROJECT, 'dist/ocicrypt-kms');

/** Builds the executable where it is missing or older than anything that it is made of. */
export function buildIfStale(): void {
  const sources = ['package-lock.json', 'scripts/build.ts', ...globSync('src/**/*.ts', { cwd: PROJECT })];
  const newest = Math.max(...sources.map((file) => modified(join(PROJECT, file))));
  if (modified(EXECUTABLE) < newest) runTool('node', ['scripts/build.ts']);
}

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
