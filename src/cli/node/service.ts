// The service of a node that keeps the keys, which decoders and CRI-O ask: its units, and how they are started and ended.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';
import { POLICY_FILE } from '../../node/drop-in.ts';
import type { FileChange } from '../../node/whole-file.ts';
import { AUDIT_LOG, SERVICE_ADDRESS, SOCKET_UNIT, serviceUnit } from '../config-systemd.ts';
import { systemctl, UNITS } from './services.ts';

const SOCKET = 'ocicrypt-kms.socket';
const SERVICE = 'ocicrypt-kms.service';
/** What its unit has systemd make. */
const LOGS = '/var/log/ocicrypt-kms/';

/** Whether these files, which were written on a node, have the service among them. */
export function hasService(paths: readonly string[]): boolean {
  return paths.includes(`${UNITS}/${SOCKET}`);
}

/** The member of a policy by which a decoder asks the service. The service itself reads the same file, and not this. */
export function remoteMember(): string {
  return `remote: ${JSON.stringify(SERVICE_ADDRESS)}\n`;
}

/**
 * @param words the command line of our program
 * @param audit a file, if it is not the usual one
 */
export function serviceFiles(words: readonly [string, ...string[]], audit: string | undefined): readonly FileChange[] {
  if (audit !== undefined && !audit.startsWith(LOGS)) {
    throw new OcicryptError('configuration', `the service can write below ${LOGS} alone, not to ${showPath(audit)}`, {
      hint: `leave --audit-log out: it writes ${LOGS}audit.log`,
    });
  }
  const log = audit === undefined ? AUDIT_LOG : `--audit-log=${audit}`;
  const unit = serviceUnit([...words, 'serve', `--config=${POLICY_FILE}`, log], words.length > 1);
  return [
    { path: `${UNITS}/${SERVICE}`, content: unit, mode: 0o644 },
    { path: `${UNITS}/${SOCKET}`, content: SOCKET_UNIT, mode: 0o644 },
  ];
}

/** Whether the service has to read one of these files, or runs an older program than the one among them. */
export function concernsService(pending: readonly FileChange[]): boolean {
  return pending.some(
    ({ path, content }) =>
      typeof content !== 'string' ||
      path === POLICY_FILE ||
      path === `${UNITS}/${SERVICE}` ||
      path === `${UNITS}/${SOCKET}`,
  );
}

/** @throws OcicryptError `unavailable` */
export async function startService(isChanged: boolean): Promise<void> {
  await systemctl(['daemon-reload']);
  await systemctl(['enable', '--now', SOCKET]);
  if (isChanged) await systemctl(['try-restart', SERVICE]);
}

/** @throws OcicryptError `unavailable` */
export async function endService(): Promise<void> {
  const units = unitsIn('/');
  if (units.length > 0) await systemctl(['disable', '--now', ...units]);
}

/** The units whose files are there: systemd ends no other ones, and an uninstallation that was killed has ended them. */
export function unitsIn(root: string): readonly string[] {
  return [SOCKET, SERVICE].filter((unit) => existsSync(join(root, UNITS, unit)));
}
