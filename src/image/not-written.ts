// What the image commands say when a file system refuses to write, before anything was changed and after it was.

import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';

/** Turns what a file system says, while everything is still as it was, into what a person reads. */
export function notWritten(path: string): (cause: unknown) => never {
  return (cause) => {
    throw new OcicryptError('not-written', `cannot write ${showPath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: 'nothing was changed: check free space and permissions, and run again',
    });
  };
}

/** The same for what was written and named, and may not outlast a failure of power. */
export function notDurable(written: string): (cause: unknown) => never {
  return (cause) => {
    throw new OcicryptError(
      'not-written',
      `${written} was written, but cannot be made durable${showSystemCode(cause)}`,
      {
        cause,
        hint: 'it is in place, and a failure of power may undo it: check the disk, and run sync',
      },
    );
  };
}

/** That an image was to be changed in place, and its name stands for another one by now, which would be lost. */
export function movedMeanwhile(name: string): OcicryptError {
  return new OcicryptError('not-written', `${name} was moved to another image meanwhile`, {
    hint: 'nothing was changed by this run: run again',
  });
}
