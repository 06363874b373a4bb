// What every action on a node begins and ends with: its runtimes, its root, and what was found.

import { resolve } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { showPath, showValue } from '../../base/shown.ts';
import { isDirectory } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';
import { findRuntimes, type Runtimes } from '../../node/runtimes.ts';
import { parseVersion } from '../../node/versions.ts';
import { showBlock } from '../doctor/finding.ts';
import type { Settings } from '../options/settings.ts';

/** @throws OcicryptError `not-found` if there is none */
export async function someRuntimes(root: string, settings: Settings): Promise<Runtimes> {
  const said = settings.text('runtime-version');
  const version = said === undefined ? undefined : parseVersion(said);
  if (said !== undefined && version === undefined) {
    throw new OcicryptError('usage', `option --runtime-version takes a version, not ${showValue(said)}`, {
      hint: 'write it as containerd --version prints it: --runtime-version=2.1.7',
    });
  }
  const runtimes = await findRuntimes(root, version);
  if (runtimes.containerds.length > 0 || runtimes.crio !== undefined || runtimes.hasPodman || runtimes.hasDocker)
    return runtimes;
  throw new OcicryptError(
    'not-found',
    `no container runtime was found ${root === '/' ? 'on this machine' : `in ${showPath(root)}`}`,
    {
      hint: 'it looks for containerd, k3s, RKE2, CRI-O, docker and podman',
    },
  );
}

/** The root of an image that is being built, or `/`. */
export function rootOf(settings: Settings): string {
  const root = resolve(settings.text('root') ?? '/');
  if (isDirectory(root)) return root;
  throw new OcicryptError('not-found', `there is no directory ${showPath(root)}`, {
    hint: 'name the directory that holds etc and usr of the image',
  });
}

export function showNodeFinding({ level, subject, message, hint }: Finding): string {
  return showBlock(level, `${subject}: ${message}`, [['to do', hint]]);
}

/** @throws OcicryptError `configuration` with the first finding that fails */
export function failWith(findings: readonly Finding[]): void {
  const finding = findings.find(({ level }) => level === 'fail');
  if (finding !== undefined)
    throw new OcicryptError('configuration', `${finding.subject}: ${finding.message}`, { hint: finding.hint });
}
