// Takes back what `node install` did: the files are as they were before it.

import { OcicryptError } from '../../base/errors.ts';
import { forgetInstalled, installedPaths, lockNode, restoreAll } from '../../node/changes.ts';
import { withoutOurs } from '../../node/plan.ts';
import { findRuntimes } from '../../node/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { endService, hasService } from './service.ts';
import { hasSystemd, restartService } from './services.ts';
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

async function restore({ settings, terminal }: CommandContext, root: string): Promise<void> {
  const { containerds, crio } = await findRuntimes(root);
  const hasUnits = hasService(installedPaths(root)) && root === '/' && hasSystemd();
  if (hasUnits) await endService();
  const { restored, changedSince } = restoreAll(root, withoutOurs);
  terminal.write(restored.map((path) => `as before  ${path}\n`).join(''));
  for (const path of changedSince) terminal.say(`note: ${path} was changed since, and stays as it is`);
  if (root === '/') {
    const units = [...containerds, ...(crio === undefined ? [] : [crio])].flatMap(({ unit }) => unit ?? []);
    if (settings.switch('no-restart') || !hasSystemd()) {
      if (units.length > 0) terminal.say(`note: restart ${units.join(' and ')} so that it reads this`);
    } else
      for (const unit of units) {
        terminal.say(`restarting ${unit}: containers go on running, pulls that are under way fail`);
        await restartService(unit);
      }
  }
  // Last: what is killed before can be done again, with the restarts.
  if (changedSince.length === 0) forgetInstalled(root);
}
