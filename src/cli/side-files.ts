// Reads the files that the build lays beside the program: in the package's folder, or in the executable.

import { readFileSync } from 'node:fs';

/** @returns the text, or nothing if the program was not built but runs from its source */
export function readSideFile(name: 'THIRD-PARTY-LICENSES' | 'build.json'): string | undefined {
  try {
    // In the executable all modules lie in one folder, and the files with them.
    return readFileSync(new URL(`./${name}`, import.meta.url), 'utf8');
  } catch {
    return undefined;
  }
}
