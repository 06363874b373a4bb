// Lets one run at a time change something, as the index of a layout: a file says which run that is.

import { constants, readFileSync, renameSync, statSync } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OcicryptError, systemCode } from '../../base/errors.ts';
import { showImagePath } from '../../base/shown.ts';
import { notWritten } from '../not-written.ts';
import { createAtomicFile } from './files.ts';
import { isRunning, temporaryName } from './temporary.ts';

/** Of an index, which is read and replaced in milliseconds: a disk may be slow, and many runs may wait. */
const PATIENCE_MILLISECONDS = 60_000;
const INTERVAL_MILLISECONDS = 50;
/** When the lock of a run that cannot be asked after (another machine's) counts as forgotten. */
const FORGOTTEN_MILLISECONDS = 10 * 60_000;
/** When a lock that says nothing counts as that of a run that was killed before it could write its name there. */
const UNNAMED_MILLISECONDS = 5_000;

/** As {@link lockFile}, until no other run changes the index in `directory`. */
export function lockIndex(directory: string, signal?: AbortSignal): Promise<() => Promise<void>> {
  return lockFile(join(directory, 'index.json.lock'), { signal });
}

export type LockOptions = {
  readonly signal?: AbortSignal | undefined;
  /** How many milliseconds another run may take: a minute if left out. */
  readonly patience?: number;
};

/**
 * Waits until no other run holds the lock that is this file. A run that was killed does not block it.
 *
 * @returns ends it
 * @throws OcicryptError `not-written` if another run does not end in time
 */
export async function lockFile(
  path: string,
  { signal, patience = PATIENCE_MILLISECONDS }: LockOptions = {},
): Promise<() => Promise<void>> {
  // A name that tells which run it is, and is no other lock's.
  const own = temporaryName();
  const deadline = performance.now() + patience;
  while (!((await create(path, own)) || (await takeOver(path, own)))) {
    signal?.throwIfAborted();
    if (performance.now() > deadline) {
      throw new OcicryptError('not-written', `another run holds ${showImagePath(path)}`, {
        hint: 'nothing was changed: wait for its end; if none is running, remove that file',
      });
    }
    await sleep(INTERVAL_MILLISECONDS);
  }
  return async () => {
    // A lock that cannot be removed blocks no other run once this one has ended.
    if ((await readFile(path, 'utf8').catch(() => '')) === own) await rm(path, { force: true }).catch(() => undefined);
  };
}

async function create(path: string, own: string): Promise<boolean> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const file = await open(path, flags, 0o644).catch((error: unknown) =>
    systemCode(error) === 'EEXIST' ? undefined : notWritten(path)(error),
  );
  if (file === undefined) return false;
  try {
    await file.writeFile(own);
    // Another run has it if that took so long that the lock seemed to be of a run that is gone.
    return (await readFile(path, 'utf8').catch(() => '')) === own;
  } catch (error) {
    await rm(path, { force: true });
    return notWritten(path)(error);
  } finally {
    await file.close();
  }
}

/** Replaces the lock of a run that is gone; of two that do so at once, the later one has it. */
async function takeOver(path: string, own: string): Promise<boolean> {
  const holder = await readFile(path, 'utf8').catch(() => undefined);
  if (holder === undefined || !isForgotten(path, holder)) return false;
  const file = await createAtomicFile(dirname(path));
  try {
    await file.write(new TextEncoder().encode(own));
    await file.seal();
    if (!replaceSame(file.path, path, holder)) return false;
  } finally {
    await file.discard();
  }
  await sleep(INTERVAL_MILLISECONDS * 2);
  return (await readFile(path, 'utf8').catch(() => '')) === own;
}

/** Without a pause between the look and the change. */
function replaceSame(from: string, path: string, holder: string): boolean {
  try {
    if (readFileSync(path, 'utf8') !== holder) return false;
    renameSync(from, path);
    return true;
  } catch {
    return false;
  }
}

function isForgotten(path: string, holder: string): boolean {
  const running = isRunning(holder);
  if (running !== undefined) return !running;
  try {
    // Just made and not yet written is a lock, too.
    const limit = holder === '' ? UNNAMED_MILLISECONDS : FORGOTTEN_MILLISECONDS;
    return statSync(path).mtimeMs < Date.now() - limit;
  } catch {
    return false;
  }
}
