// Restarts services of a node, where systemd runs.

import { existsSync } from 'node:fs';
import { OcicryptError } from '../../base/errors.ts';
import { runProgram } from '../../node/programs.ts';

/** sd_booted(3) */
export function hasSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

/**
 * Restarts a service, and sees that it stays.
 *
 * @throws OcicryptError `unavailable`
 */
export async function restartService(unit: string): Promise<void> {
  await systemctl(['daemon-reload']);
  await systemctl(['restart', unit]);
  await systemctl(['is-active', '--quiet', unit]);
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
