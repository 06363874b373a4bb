// How this program is started again: by files that it prints or writes.

import { basename } from 'node:path';

/** A Bun executable is itself; under Node it is the script that Node runs. */
export function thisExecutable(): readonly [path: string, ...args: string[]] {
  const script = process.argv[1] ?? '';
  return /^node(?:js)?$|^bun$/.test(basename(process.execPath)) && !script.startsWith('/$bunfs/')
    ? [process.execPath, script]
    : [process.execPath];
}
