// Sets a node up: every file at once or none, seen by containerd before it is restarted, and tried afterwards.

import { mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { TomlTable } from 'smol-toml';
import { OcicryptError } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';
import { findWeakness, stepsTo } from '../../base/trusted-path.ts';
import { applyChanges, installedPaths, lockNode, pendingChanges, refuseEdited } from '../../node/changes.ts';
import { encryptedProcessors, foreignDifferences, parseQuietly } from '../../node/containerd-config.ts';
import { POLICY_FILE, PROCESSOR_IDS } from '../../node/drop-in.ts';
import { isWritable } from '../../node/files.ts';
import { ownerOf, refuseByHand } from '../../node/owner.ts';
import { KEY_DIRECTORIES, type NodePlan, planNode, type Restart } from '../../node/plan.ts';
import { isNewer } from '../../node/processes.ts';
import { type Containerd, dumpConfig, type Runtimes, runtimeName } from '../../node/runtimes.ts';
import type { FileChange } from '../../node/whole-file.ts';
import type { CommandContext } from '../command.ts';
import { SERVICE_ADDRESS } from '../config-systemd.ts';
import { showFinding } from '../doctor/finding.ts';
import { examineNode } from '../doctor/node.ts';
import { thisExecutable } from '../executable.ts';
import { policyText } from './policy.ts';
import { concernsService, hasService, serviceFiles, startService } from './service.ts';
import { isByHand, reloadUnits, restartAll } from './services.ts';
import { failWith, rootOf, someRuntimes } from './setup.ts';

export async function installNode(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const root = rootOf(settings);
  refuseByHand(root, realpathSync(thisExecutable()[0]));
  const runtimes = await someRuntimes(root, settings);
  terminal.write(runtimes.containerds.map((one) => `found  ${runtimeName(one)}\n`).join(''));
  if (runtimes.crio !== undefined) terminal.write('found  CRI-O\n');
  const hasKeyFiles = root === '/' && !isByHand(settings) && !hasStopped(runtimes);
  const filesFor = (runtimes: Runtimes) => {
    const { words, files: programs } = executableFor(root);
    const isService = settings.switch('service') || hasService(installedPaths(root));
    const plan = planNode(runtimes, {
      root,
      decoder: { kind: 'ocicrypt-kms', words: [...words, 'decoder', `--config=${POLICY_FILE}`] },
      // CRI-O would start the command once for each layer, only to have it ask the service.
      provider: isService ? SERVICE_ADDRESS : [...words, 'keyprovider', `--config=${POLICY_FILE}`],
      policy: policyText(context, { root, isService, hasKeyFiles }),
    });
    const units = isService ? serviceFiles(words, settings.text('audit-log')) : [];
    return { plan, all: [...programs, ...units, ...plan.files], isService };
  };
  const { plan, all } = filesFor(runtimes);
  // Agents bring a node back to what they say.
  const refuse = (files: readonly FileChange[]) =>
    ownerOf(root) === undefined ? refuseEdited(root, files) : undefined;
  if (settings.switch('dry-run')) {
    const pending = pendingChanges(root, all);
    refuse(pending);
    return terminal.write(describeChanges(pending, plan));
  }
  const unlock = await lockNode(
    root,
    all.map(({ path }) => path),
  );
  try {
    // What another run has written, and restarted, while this one waited is looked at again.
    const now = await someRuntimes(root, settings);
    const files = filesFor(now);
    const pending = pendingChanges(root, files.all);
    refuse(pending);
    if (!(await writeAndRestart(context, now, root, { ...files, pending }))) return;
  } finally {
    await unlock();
  }
  const findings = await examineNode(context, await someRuntimes(root, settings));
  terminal.write(findings.map(showFinding).join(''));
  failWith(findings);
}

type Due = { readonly plan: NodePlan; readonly pending: readonly FileChange[]; readonly isService: boolean };

/** @returns whether what was written can be tried: every service has read it, and none is left to the operator */
async function writeAndRestart(
  context: CommandContext,
  runtimes: Runtimes,
  root: string,
  { plan, pending, isService }: Due,
): Promise<boolean> {
  const { settings, terminal } = context;
  const undo = await writeAll(root, pending, runtimes);
  terminal.write(pending.map(({ path }) => `wrote  ${path}\n`).join('') || 'nothing to write: all of it is there\n');
  for (const note of plan.notes) terminal.say(`note: ${note}`);
  if (root !== '/') {
    if (isService) terminal.say('note: in the image, run systemctl enable ocicrypt-kms.socket');
    terminal.say('note: nothing was started or tried: run ocicrypt-kms node check on the node');
    return false;
  }
  const stopped = plan.restarts.filter(({ running }) => running === undefined);
  for (const { unit } of stopped)
    terminal.say(`note: ${unit} does not run and is not started: it reads this at its next start`);
  const paths = [...pending.map(({ path }) => path), ...stopped.flatMap(({ files }) => files)];
  await reloadUnits(context, paths).catch((error: unknown) => {
    undo();
    throw error;
  });
  const isRestarted = await restartAll(
    context,
    dueRestarts(plan.restarts, pending).map(({ unit }) => unit),
    undo,
  );
  // If it does not start, the files stay: what is wrong is mostly the policy, which it names.
  if (isService && !isByHand(settings)) await startService(concernsService(pending));
  else if (isService)
    terminal.say('note: run systemctl enable --now ocicrypt-kms.socket, and restart ocicrypt-kms.service if it runs');
  if (isRestarted && !(isByHand(settings) && (hasStopped(runtimes) || (isService && concernsService(pending)))))
    return true;
  terminal.say('note: nothing was tried: run ocicrypt-kms node check once the services run');
  return false;
}

/** Whether a runtime does not run: keys may not be there yet, as in the build of an image. */
function hasStopped({ containerds, crio }: Runtimes): boolean {
  return [...containerds, ...(crio === undefined ? [] : [crio])].some(({ running }) => running === undefined);
}

/** Of the services that run, those that read what is written now, or was written since they were started. */
function dueRestarts(restarts: readonly Restart[], pending: readonly FileChange[]): readonly Restart[] {
  return restarts.filter(
    ({ files, running }) =>
      running !== undefined && files.some((path) => pending.some((one) => one.path === path) || isNewer(path, running)),
  );
}

/** Where runtimes find this program: here if it is installed, else a copy. */
function executableFor(root: string): {
  readonly words: readonly [string, ...string[]];
  readonly files: readonly FileChange[];
} {
  const [path, ...args] = thisExecutable();
  const real = realpathSync(path);
  if (args.length > 0) {
    if (root === '/') return { words: [path, ...args], files: [] };
    throw new OcicryptError('configuration', 'this program runs by Node and cannot be copied into an image', {
      hint: 'run the executable of the release',
    });
  }
  if (root === '/' && /^\/(?:usr|opt)\//.test(real) && isRootsAlone(real)) return { words: [real], files: [] };
  const directory = PROGRAM_DIRECTORIES.find((one) => isWritable(join(root, one)));
  if (directory === undefined) {
    throw new OcicryptError('not-written', `none of ${PROGRAM_DIRECTORIES.join(', ')} can be written`, {
      hint: 'run this as root; on a host whose disk is read-only, build it into the image with --root=DIR',
    });
  }
  const target = join(directory, 'ocicrypt-kms');
  return { words: [target], files: [{ path: target, content: readFileSync(real), mode: 0o755 }] };
}

/** Runtimes start it as root: where others can replace it, it is copied from. */
function isRootsAlone(path: string): boolean {
  return findWeakness(stepsTo(path), { users: new Set([0]), sticky: false }) === undefined;
}

/** The second is for hosts whose /usr is read-only. */
const PROGRAM_DIRECTORIES = ['/usr/local/bin', '/opt/ocicrypt-kms/bin'];

function describeChanges(pending: readonly FileChange[], { restarts, notes }: NodePlan): string {
  const files = pending.map(({ path, content, mode }) => {
    const text = typeof content === 'string' ? content : `(${content.length} bytes: this program)\n`;
    return `would write  ${path} (mode 0${mode.toString(8)})\n${text.replaceAll(/^(?=.)/gm, '    ')}`;
  });
  return [
    ...files,
    ...dueRestarts(restarts, pending).map(({ unit }) => `would restart  ${unit}\n`),
    ...notes.map((note) => `note: ${note}\n`),
  ].join('');
}

/** Writes, and lets each containerd read it: what it then says of its settings may differ in nothing but ours. */
async function writeAll(root: string, pending: readonly FileChange[], { containerds }: Runtimes): Promise<() => void> {
  const before = await Promise.all(containerds.map((one) => readDump(one)));
  const undo = applyChanges(root, pending);
  try {
    for (const directory of KEY_DIRECTORIES)
      if (pending.some(({ path }) => path.startsWith('/etc/crio/')))
        mkdirSync(join(root, directory), { recursive: true });
    for (const [index, containerd] of containerds.entries()) await compare(containerd, before[index], pending);
    return undo;
  } catch (error) {
    undo();
    throw error;
  }
}

async function readDump(containerd: Containerd, withOurs = ''): Promise<TomlTable | undefined> {
  const dump = await dumpConfig(containerd);
  if (dump === undefined) return undefined;
  if ('text' in dump) return parseQuietly(dump.text);
  throw new OcicryptError(
    'configuration',
    `${runtimeName(containerd)} cannot read ${showPath(containerd.config)}${withOurs}: ${dump.problem}`,
    {
      hint: withOurs === '' ? 'correct it first: nothing was changed' : BY_HAND,
    },
  );
}

const BY_HAND = 'nothing was changed: set it up by hand: ocicrypt-kms config containerd';

async function compare(
  containerd: Containerd,
  before: TomlTable | undefined,
  pending: readonly FileChange[],
): Promise<void> {
  const after = before === undefined ? undefined : await readDump(containerd, ' together with what was written');
  // A template is read when k3s or RKE2 starts.
  if (before === undefined || after === undefined || pending.some(({ path }) => path.endsWith('.tmpl'))) return;
  const [foreign] = foreignDifferences(before, after);
  const refuse = (problem: string, hint: string) =>
    new OcicryptError('configuration', `${runtimeName(containerd)} ${problem}; nothing was changed`, { hint });
  if (foreign !== undefined)
    throw refuse(`would read ${foreign} otherwise than before`, 'set it up by hand: ocicrypt-kms config containerd');
  const ours = encryptedProcessors(after).filter(({ args }) => args.includes('decoder'));
  if (containerd.kind !== 'docker' && PROCESSOR_IDS.some((id) => !ours.some((one) => one.id === id)))
    throw refuse(
      'does not read the file that was written',
      'another file that it imports sets the same processors: remove them there',
    );
}
