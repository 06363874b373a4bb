// Really pulls an image on this node, in a namespace of its own, and removes it again.

import { showName } from '../../base/shown.ts';
import { type Ctr, hostWords, openCtr } from '../../node/ctr.ts';
import type { Finding } from '../../node/finding.ts';
import { lastComplaint } from '../../node/programs.ts';
import { type Containerd, type Runtimes, runtimeName } from '../../node/runtimes.ts';
import { runtimeImage } from './setup.ts';

const NAMESPACE = 'ocicrypt-kms-check';
const PATIENCE_MILLISECONDS = 600_000;

/** By each containerd that runs; docker's own decrypts nothing. */
export async function tryPulls(name: string, { containerds }: Runtimes): Promise<readonly Finding[]> {
  const running = containerds.filter((one) => one.running !== undefined && one.kind !== 'docker');
  const findings: Finding[] = [];
  for (const one of running) findings.push(await tryPull(runtimeImage(name), one));
  if (findings.length > 0) return findings;
  const message = 'no containerd runs that could pull';
  return [
    {
      level: 'fail',
      subject: 'pull',
      message,
      hint: 'start it: systemctl start containerd; with CRI-O: crictl pull IMAGE',
    },
  ];
}

/** Unpacked layers count for one namespace alone: what another one has of the image hides no mistake. */
async function tryPull(image: string, containerd: Containerd): Promise<Finding> {
  const subject = runtimeName(containerd);
  const ctr = await openCtr(containerd);
  try {
    const words = ['images', 'pull', ...hostWords(), image];
    const ended = await ctr.try(NAMESPACE, words, PATIENCE_MILLISECONDS);
    if (ended.status === 0)
      return { level: 'ok', subject, message: `pulled ${showName(image)}, decrypted it and removed it again` };
    const line = lastComplaint(ended, Infinity)
      .replace(/^ctr: /, '')
      .slice(0, 1000);
    return {
      level: 'fail',
      subject,
      message: `cannot pull ${showName(image)}: ${line}`,
      hint: 'docs/nodes.md explains what containerd says',
    };
  } finally {
    await clear(ctr, image);
  }
}

/** What a failed pull has fetched is kept by a lease. */
async function clear(ctr: Ctr, image: string): Promise<void> {
  await ctr.try(NAMESPACE, ['images', 'rm', '--sync', image]);
  const leases = new TextDecoder().decode((await ctr.try(NAMESPACE, ['leases', 'ls', '-q'])).output).split(/\s+/);
  for (const lease of leases.filter((one) => one !== '')) await ctr.try(NAMESPACE, ['leases', 'rm', '--sync', lease]);
  await ctr.try(NAMESPACE, ['namespaces', 'rm', NAMESPACE]);
}
