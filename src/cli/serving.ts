// What the options of `serve` and `admission` say alike: certificates, the status page, logs, files that are read later.

import { accessSync, constants, statSync } from 'node:fs';
import { asOcicryptError, describeError, OcicryptError, showSystemCode } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';
import { parseListenAddress } from '../server/address.ts';
import { findServiceManager } from '../server/service-manager.ts';
import { runUntilStopped } from '../server/signals.ts';
import type { StatusTarget } from '../server/status-page.ts';
import type { TlsFiles } from '../server/tls.ts';
import { checkDoors, type DoorPlan, type RunningServer, type ServerLog } from '../server/upkeep.ts';
import type { Settings } from './options/settings.ts';
import type { ProviderLogs } from './setup.ts';
import type { Terminal } from './terminal.ts';

/** Serves until it is told to stop, and tells the service manager of it. */
export function serveUntilStopped(start: () => Promise<RunningServer>, log: ServerLog): Promise<void> {
  const warn = (problem: string) => log.warn({ problem }, 'the service manager was not told');
  return runUntilStopped(start, log, findServiceManager(process.env, warn));
}

/** Ends a check, of which all is read but where it would listen. @throws OcicryptError `configuration` */
export function sayServable(terminal: Terminal, plan: DoorPlan): void {
  checkDoors(plan);
  terminal.write('the configuration can be served\n');
}

/** The certificate that is shown to clients; undefined if none is named. @throws OcicryptError `configuration` for a part of it */
export function tlsFiles(settings: Settings): TlsFiles | undefined {
  const certificate = settings.text('tls-cert');
  const privateKey = settings.text('tls-key');
  const clientAuthority = settings.text('tls-client-ca');
  const minVersion = settings.text('tls-min') === '1.2' ? 'TLSv1.2' : 'TLSv1.3';
  if (certificate !== undefined && privateKey !== undefined)
    return { certificate, privateKey, clientAuthority, minVersion };
  if (certificate === undefined && privateKey === undefined && clientAuthority === undefined) return undefined;
  throw incompleteTls();
}

export function incompleteTls(): OcicryptError {
  return new OcicryptError('configuration', 'TLS needs both a certificate and its key', {
    hint: 'give --tls-cert=FILE and --tls-key=FILE',
  });
}

export function statusTarget(settings: Settings, tls: TlsFiles | undefined): StatusTarget | undefined {
  const status = settings.text('status');
  if (status === undefined) return undefined;
  return { address: parseListenAddress(status), tls, insecure: settings.switch('insecure-status') };
}

/** Goes on in the log files that have their names now; returns whether there are any. @throws OcicryptError */
export function reopenLogs({ audit, log }: ProviderLogs): boolean {
  audit?.reopen();
  log?.reopen();
  return audit !== undefined || log !== undefined;
}

/** A file that cannot be used is told now, not with the first image; what does not need it is none the worse. */
export async function warnOfFiles(settings: Settings, log: ServerLog): Promise<void> {
  for (const name of READ_LATER) {
    const paths = name === 'kbs-key' ? Object.values(settings.pairs(name) ?? {}) : settings.texts(name);
    for (const path of paths) {
      try {
        await tryRead(name, path);
      } catch (error) {
        const problem = describeError(asOcicryptError(error));
        log.warn({ problem }, `the file of --${name} cannot be used`);
      }
    }
  }
}

/** The options whose files are read when they are first needed. */
const READ_LATER = [
  'adc',
  'age-passphrase-file',
  'authfile',
  'ca',
  'kbs-key',
  'pkcs11-module',
  'pkcs11-pin-file',
  'vault-credentials',
] as const;

/** @throws OcicryptError of what is known without a service */
async function tryRead(name: (typeof READ_LATER)[number], path: string): Promise<void> {
  if (name === 'ca') {
    const { readCertificateFile } = await import('../base/http/certificates.ts');
    readCertificateFile(path, 'the file of CA certificates');
  } else if (name === 'adc') {
    const { readCredentials } = await import('../kms/gcpkms/credentials-file.ts');
    readCredentials(path);
  } else {
    try {
      accessSync(path, constants.R_OK);
    } catch (cause) {
      throw new OcicryptError('configuration', `${showPath(path)} cannot be read${showSystemCode(cause)}`, {
        cause,
        hint: 'correct its name, or who may read it',
      });
    }
    if (!statSync(path).isDirectory()) return;
    throw new OcicryptError('configuration', `${showPath(path)} is a directory`, { hint: 'name a file in it' });
  }
}
