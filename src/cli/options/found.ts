// Finds the configuration file that is not named, and takes of it only what a caller need not name.

import { statSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { checkedEnvironment } from '../../base/environment.ts';
import { OcicryptError, systemCode } from '../../base/errors.ts';
import { isWrittenByOthers } from '../../base/secret-file.ts';
import { showPath } from '../../base/shown.ts';
import { readConfiguration } from './configuration.ts';
import { type OptionName, optionSpec } from './table.ts';

/** A file that was found, and what of it counts. */
export type FoundConfiguration = {
  readonly file: string;
  readonly texts: ReadonlyMap<OptionName, readonly string[]>;
  /** Policy that it holds, which does not count. */
  readonly left: readonly OptionName[];
};

/** The whole machine's, which its administrator writes. */
const SYSTEM_FILE = '/etc/ocicrypt-kms/config.yaml';

/**
 * The first of the user's own file and the machine's that is there, if this user may read it.
 *
 * @returns undefined if there is none
 * @throws OcicryptError `configuration` as of {@link readConfiguration}, and for a file or directory that belongs to another
 * user or that others may write
 */
export async function findConfiguration(environment: NodeJS.ProcessEnv): Promise<FoundConfiguration | undefined> {
  const file = placesOf(environment).find(isThere);
  if (file === undefined) return undefined;
  checkDirectory(file);
  const all = await readConfiguration(file, 'found');
  const left = [...all.keys()].filter((name) => optionSpec(name).isPolicy === true);
  // What it says of time is meant for one request, and would end the whole of an image command.
  const texts = [...all].filter(([name]) => !left.includes(name) && name !== 'timeout');
  return { file, texts: new Map(texts), left };
}

/**
 * Where to look. A pipeline's home is shared with, or written by, what it builds; a program that runs with the rights of
 * another user has that user's enemies in its environment: both have the machine's file alone.
 */
function placesOf(environment: NodeJS.ProcessEnv): readonly string[] {
  const { CI, XDG_CONFIG_HOME, HOME } = checkedEnvironment(environment);
  const isPipeline = CI !== undefined && CI !== '' && CI !== 'false' && CI !== '0';
  if (isPipeline || hasOthersRights()) return [SYSTEM_FILE];
  // https://specifications.freedesktop.org/basedir-spec/latest/: a relative path is as none.
  const isGiven = XDG_CONFIG_HOME !== undefined && isAbsolute(XDG_CONFIG_HOME);
  const directory = isGiven
    ? XDG_CONFIG_HOME
    : HOME !== undefined && isAbsolute(HOME)
      ? join(HOME, '.config')
      : undefined;
  return [...(directory === undefined ? [] : [join(directory, 'ocicrypt-kms/config.yaml')]), SYSTEM_FILE];
}

function hasOthersRights(): boolean {
  return process.getuid?.() !== process.geteuid?.() || process.getgid?.() !== process.getegid?.();
}

/** The machine's file may be for the server's group alone: to all others it is not there. */
function isThere(file: string): boolean {
  try {
    statSync(file);
    return true;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return false;
    throw new OcicryptError('configuration', `cannot look for ${showPath(file)}`, { cause: error });
  }
}

/** Who may write the directory may put another file there. */
function checkDirectory(file: string): void {
  if (!isWrittenByOthers(statSync(dirname(file)))) return;
  throw new OcicryptError('configuration', `others may put a configuration into ${showPath(dirname(file))}`, {
    hint: `make it a directory of yours with mode 0755, or name a file with --config`,
  });
}
