// The command that prints the licences of what is in the executable.

import { OcicryptError } from '../base/errors.ts';
import type { CommandContext } from './command.ts';
import { readSideFile } from './side-files.ts';

/** Prints the text that the build has collected. */
export async function runLicenses({ terminal }: CommandContext): Promise<void> {
  const text = readSideFile('THIRD-PARTY-LICENSES');
  if (text === undefined) {
    throw new OcicryptError('not-found', 'this is a source that was not built, so no licences were collected', {
      hint: 'run npm run build, and dist/ocicrypt-kms licenses',
    });
  }
  terminal.write(text);
}
