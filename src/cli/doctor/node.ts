// Examines the runtimes of this node, and tries their decoders: for `node check`, `node install` and `doctor`.

import { parseQuietly } from '../../node/containerd-config.ts';
import { type ConfigFiles, readConfigFiles } from '../../node/containerd-files.ts';
import { examineContainerd, stoppedContainerd, unreadableConfig } from '../../node/containerd-findings.ts';
import { examineCrio } from '../../node/crio.ts';
import type { Finding } from '../../node/finding.ts';
import { type Containerd, dumpConfig, type Runtimes, runtimeName } from '../../node/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { examineFile } from './clients.ts';
import { probeDecoder } from './decoder.ts';

/**
 * Changes nothing; a key service may log its calls.
 *
 * @param kind a `node` must have a decoder, and what it does must be seen of its runtimes; a `machine` need be no node, and
 * files say what its containerd would do if that is not here
 */
export async function examineNode(
  context: CommandContext,
  { containerds, crio }: Runtimes,
  kind: 'machine' | 'node' = 'node',
  isRoot = process.geteuid?.() === 0,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const containerd of containerds) {
    // Processes of root are seen by root alone.
    if (kind === 'node' && containerd.running === undefined && isRoot) findings.push(stoppedContainerd(containerd));
    findings.push(...(await examineOne(context, containerd, { kind, isRoot })));
  }
  if (crio !== undefined) {
    const { findings: found, providersFile } = examineCrio(crio);
    findings.push(...found);
    if (providersFile !== undefined)
      findings.push(...(await examineFile('CRI-O', providersFile, crio.running?.environment ?? {})));
  }
  return findings;
}

/** Undefined if it cannot be known. */
async function readConfig(containerd: Containerd, kind: 'machine' | 'node'): Promise<ConfigFiles | undefined> {
  const dump = await dumpConfig(containerd);
  if (dump === undefined)
    return kind === 'node' ? undefined : readConfigFiles(containerd.config, runtimeName(containerd));
  return 'problem' in dump ? dump : { config: parseQuietly(dump.text) ?? {}, findings: [] };
}

async function examineOne(
  context: CommandContext,
  containerd: Containerd,
  { kind, isRoot }: { readonly kind: 'machine' | 'node'; readonly isRoot: boolean },
): Promise<readonly Finding[]> {
  const subject = runtimeName(containerd);
  const read = await readConfig(containerd, kind);
  if (read === undefined)
    return [
      {
        level: 'warn',
        subject,
        message: 'cannot be asked for its configuration here',
        hint: 'run this on the node itself, as root',
      },
    ];
  if ('problem' in read) return [unreadableConfig(containerd, read.problem)];
  // One of docker's own decrypts nothing, and need not: who wants that installs another one.
  const unset = kind === 'node' && containerd.kind !== 'docker' ? 'fail' : 'warn';
  const { findings, decoders } = examineContainerd(containerd, read.config, unset);
  const all = [...read.findings, ...findings];
  // Only root's own processes are not seen: one that is seen is of this user, as its decoders are.
  if (decoders.length > 0 && !isRoot && containerd.running === undefined) {
    const message = 'has decoders that were not tried: it starts them as root';
    return [...all, { level: kind === 'node' ? 'fail' : 'warn', subject, message, hint: 'run this as root' }];
  }
  const files = new Set<string>();
  for (const decoder of decoders) {
    const file = decoder.kind === 'ours' ? undefined : decoder.environment.OCICRYPT_KEYPROVIDER_CONFIG;
    if (decoder.kind === 'ctd-decoder' && file === undefined)
      all.push({
        level: 'fail',
        subject: decoder.subject,
        message: 'is given no OCICRYPT_KEYPROVIDER_CONFIG: it asks no provider',
        hint: 'ocicrypt-kms config containerd --decoder=ctd-decoder prints what it lacks',
      });
    if (file !== undefined && !files.has(file)) all.push(...(await examineFile(subject, file, decoder.environment)));
    if (file !== undefined) files.add(file);
    all.push(...(await probeDecoder(context, decoder)));
  }
  return all;
}
