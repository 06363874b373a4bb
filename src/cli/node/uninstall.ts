// Takes back what `node install` did: the files are as they were before it.

import { OcicryptError } from '../../base/errors.ts';
import { isInstalled, restoreAll } from '../../node/changes.ts';
import { withoutOurs } from '../../node/plan.ts';
import { findRuntimes } from '../../node/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { hasSystemd, restartService } from './services.ts';
import { rootOf } from './setup.ts';

export async function uninstallNode({ settings, terminal }: CommandContext): Promise<void> {
  const root = rootOf(settings);
  if (!isInstalled(root))
    throw new OcicryptError('not-found', 'node install has written nothing here', {
      hint: 'what was written by hand is removed by hand',
    });
  const { containerds, crio } = await findRuntimes(root);
  const { restored, changedSince } = restoreAll(root, withoutOurs);
  terminal.write(restored.map((path) => `as before  ${path}\n`).join(''));
  for (const path of changedSince) terminal.say(`note: ${path} was changed since, and stays as it is`);
  if (root !== '/') return;
  const units = [...containerds, ...(crio === undefined ? [] : [crio])].flatMap(({ unit }) => unit ?? []);
  if (settings.switch('no-restart') || !hasSystemd()) {
    if (units.length > 0) terminal.say(`note: restart ${units.join(' and ')} so that it reads this`);
    return;
  }
  for (const unit of units) {
    terminal.say(`restarting ${unit}: containers go on running, pulls that are under way fail`);
    await restartService(unit);
  }
}
