// Takes back what `node install` did: the files are as they were before it.

import { OcicryptError } from '../../base/errors.ts';
import { printable, showPath } from '../../base/shown.ts';
import { forgetInstalled, installedPaths, lockNode, restoreAll } from '../../node/changes.ts';
import { withoutOurs } from '../../node/plan.ts';
import { findRuntimes } from '../../node/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { endService, hasService } from './service.ts';
import { hasSystemd, reloadUnits, restartAll } from './services.ts';
import { rootOf } from './setup.ts';

export async function uninstallNode(context: CommandContext): Promise<void> {
  const root = rootOf(context.settings);
  const unlock = await lockNode(root, installedPaths(root));
  try {
    if (installedPaths(root).length === 0)
      throw new OcicryptError('not-found', 'node install has written nothing here', {
        hint: 'what was written by hand is removed by hand',
      });
    await restore(context, root);
  } finally {
    await unlock();
  }
}

async function restore(context: CommandContext, root: string): Promise<void> {
  const { containerds, crio } = await findRuntimes(root);
  const paths = installedPaths(root);
  if (hasService(paths) && root === '/' && hasSystemd()) await endService();
  const { restored, changedSince } = restoreAll(root, withoutOurs);
  context.terminal.write(restored.map((path) => `as before  ${printable(path)}\n`).join(''));
  if (root === '/') {
    // All that were written: a run that was killed may have put them back.
    await reloadUnits(context, paths);
    const runtimes = [...containerds, ...(crio === undefined ? [] : [crio])];
    await restartAll(
      context,
      runtimes.flatMap(({ unit, running }) => (unit === undefined || running === undefined ? [] : unit)),
    );
  }
  failIfChanged(changedSince);
  // Last: what is killed before can be done again, with the restarts.
  forgetInstalled(root);
}

/** @throws OcicryptError `configuration` if a file stays as it is, which may still name this program */
export function failIfChanged(paths: readonly string[]): void {
  if (paths.length === 0) return;
  const named = paths.map(showPath).join(', ');
  throw new OcicryptError(
    'configuration',
    `${named} ${paths.length === 1 ? 'was' : 'were'} changed since, and not undone`,
    {
      hint: 'keep elsewhere what is yours in it, remove the file, and run ocicrypt-kms node uninstall again',
    },
  );
}
