// What every action on a node begins and ends with: its runtimes, its root, and what was found.

import { resolve } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';
import { isDirectory } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';
import { findRuntimes, type Runtimes } from '../../node/runtimes.ts';
import type { Settings } from '../options/settings.ts';
import { saidVersion } from './runtime-version.ts';

/** @throws OcicryptError `not-found` if there is none */
export async function someRuntimes(root: string, settings: Settings): Promise<Runtimes> {
  const runtimes = await findRuntimes(root, saidVersion(settings));
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

/** An image as a runtime names it: without the transport that our image commands have. */
export function runtimeImage(name: string): string {
  return name.replace(/^docker:\/\//, '');
}

/** The root of an image that is being built, or `/`. */
export function rootOf(settings: Settings): string {
  const root = resolve(settings.text('root') ?? '/');
  if (isDirectory(root)) return root;
  throw new OcicryptError('not-found', `there is no directory ${showPath(root)}`, {
    hint: 'name the directory that holds etc and usr of the image',
  });
}

/** @throws OcicryptError `configuration` with the first finding that fails */
export function failWith(findings: readonly Finding[]): void {
  const finding = findings.find(({ level }) => level === 'fail');
  if (finding !== undefined)
    throw new OcicryptError('configuration', `${finding.subject}: ${finding.message}`, { hint: finding.hint });
}
