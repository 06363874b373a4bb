// Restarts services of a node, where systemd runs.

import { existsSync } from 'node:fs';
import { OcicryptError } from '../../base/errors.ts';
import { runProgram } from '../../node/programs.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';

/** Where an operator's units are, and ours. */
export const UNITS = '/etc/systemd/system';

/** sd_booted(3) */
export function hasSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

/** Whether the operator starts and restarts services. */
export function isByHand(settings: Settings): boolean {
  return settings.switch('no-restart') || !hasSystemd();
}

/**
 * Lets systemd read its units again if some of these files are units: else it starts a service by those that it has read
 * before. Nothing is restarted by this.
 *
 * @throws OcicryptError `unavailable`
 */
export async function reloadUnits({ terminal }: CommandContext, paths: readonly string[]): Promise<void> {
  if (!paths.some((path) => path.startsWith(`${UNITS}/`))) return;
  if (hasSystemd()) await systemctl(['daemon-reload']);
  else
    terminal.say('note: units of systemd, which does not run here, have changed: systemctl daemon-reload reads them');
}

/**
 * Restarts a service, and sees that it stays.
 *
 * @throws OcicryptError `unavailable`
 */
async function restartService(unit: string): Promise<void> {
  await systemctl(['daemon-reload']);
  await systemctl(['restart', unit]);
  await systemctl(['is-active', '--quiet', unit]);
}

/**
 * Restarts services one after the other, or says that this is to be done by hand.
 *
 * @param undo puts the files back if one does not come up: those that were restarted then read them once more
 * @returns whether all of them have read their files
 * @throws OcicryptError `unavailable`
 */
export async function restartAll(
  { settings, terminal }: CommandContext,
  units: readonly string[],
  undo?: () => void,
): Promise<boolean> {
  if (units.length === 0) return true;
  if (isByHand(settings)) {
    const why = hasSystemd() ? '' : ': systemd does not run here';
    terminal.say(`note: restart ${units.join(' and ')} so that it reads this${why}`);
    return false;
  }
  for (const [index, unit] of units.entries()) {
    terminal.say(`restarting ${unit}: containers go on running, pulls that are under way fail`);
    try {
      await restartService(unit);
    } catch (error) {
      if (undo !== undefined) {
        undo();
        for (const one of units.slice(0, index + 1)) {
          terminal.say(`restarting ${one} once more: its files are as they were before`);
          await restartService(one).catch(() => undefined);
        }
      }
      throw error;
    }
  }
  return true;
}

/** @throws OcicryptError `unavailable` with what it says */
export async function systemctl(words: readonly string[]): Promise<void> {
  const { status, complaint } = await runProgram(['systemctl', ...words], { milliseconds: PATIENCE_MILLISECONDS });
  if (status === 0) return;
  throw new OcicryptError(
    'unavailable',
    `systemctl ${words.join(' ')} failed: ${complaint.split('\n')[0]?.slice(0, 300) || `status ${status ?? 'unknown'}`}`,
    {
      hint: `see: journalctl -u ${words.at(-1)}`,
    },
  );
}

/** k3s waits for its cluster before systemd says that it is there. */
const PATIENCE_MILLISECONDS = 300_000;
