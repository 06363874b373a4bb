// What the image commands say when a file system refuses to write, before anything was changed and after it was.

import { OcicryptError, showSystemCode, systemCode } from '../base/errors.ts';
import { showImagePath } from '../base/shown.ts';

const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'let this user write there',
  EDQUOT: 'make room',
  EFBIG: 'allow larger files (ulimit -f)',
  EISDIR: 'name another, that one is a directory',
  ENOENT: 'check that its directory is there and may be written',
  ENOSPC: 'make room',
  ENOTDIR: 'name a directory: a part of the path is a file',
  EROFS: 'name a place that is not mounted read-only',
};

/** Turns what a file system says, while everything is still as it was, into what a person reads. */
export function notWritten(path: string): (cause: unknown) => never {
  return (cause) => {
    throw new OcicryptError('not-written', `cannot write ${showImagePath(path)}${showSystemCode(cause)}`, {
      cause,
      hint: `nothing was changed: ${ADVICE[systemCode(cause) ?? ''] ?? 'check free space and permissions'}, and run again`,
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

/** That an image was to be changed in place, and its name stands for another one by now, which would be lost, or for none. */
export function movedMeanwhile(name: string, isRemoved: boolean): OcicryptError {
  const how = isRemoved ? 'removed' : 'moved to another image';
  return new OcicryptError('not-written', `${name} was ${how} meanwhile`, {
    hint: 'nothing was changed by this run: run again',
  });
}
