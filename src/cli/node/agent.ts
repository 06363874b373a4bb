// `node agent`: a pod on every node of a cluster that sets its node up, tries it again and again, and says how it is.

import { checkedEnvironment } from '../../base/environment.ts';
import { OcicryptError } from '../../base/errors.ts';
import { openKubernetes } from '../../base/kubernetes.ts';
import { showValue } from '../../base/shown.ts';
import { type Ended, runProgram } from '../../node/programs.ts';
import { parseListenAddress } from '../../server/address.ts';
import { startStatusPage } from '../../server/status-page.ts';
import type { CommandContext } from '../command.ts';
import { thisExecutable } from '../executable.ts';
import { formatLogLine } from '../logs/log-line.ts';
import type { Settings } from '../options/settings.ts';
import type { TextName } from '../options/table.ts';
import { Agent } from './agent-loop.ts';
import { ClusterNode } from './cluster-node.ts';
import { encodeHostTask, type HostTask } from './host.ts';
import { Rounds } from './rounds.ts';
import { isDismissed, type Undoing, undoNode } from './undo.ts';

const DIRECTORY = '/opt/ocicrypt-kms/node';
const PERIOD_MILLISECONDS = 600_000;
/** systemctl waits for k3s and RKE2 for minutes. The pod is given longer to end. */
export const TASK_MILLISECONDS = 900_000;

export async function runAgent({ settings, terminal }: CommandContext): Promise<void> {
  const name = nodeName(settings);
  const daemonSet = daemonSetOf(settings);
  const kubernetes = openKubernetes({ environment: checkedEnvironment(process.env) });
  const node = new ClusterNode(kubernetes, name);
  const task = {
    owner: daemonSet.join('/'),
    directory: settings.text('directory') ?? DIRECTORY,
    socketUser: settings.count('socket-user'),
  };
  const log: Undoing['log'] = (level, fields, message) => terminal.say(formatLogLine(level, fields, message));
  const stop = stopSignal();
  const agent = new Agent({
    node,
    rounds: new Rounds({ ...task, source: needed(settings, 'source'), run: runTask, now: () => performance.now() }),
    period: settings.duration('period') ?? PERIOD_MILLISECONDS,
    log,
    stop: stop.signal,
  });
  const page = await openPage(settings, agent, stop.signal);
  try {
    await agent.run();
    if (await isDismissed(kubernetes, daemonSet, { log }))
      await undoNode(task, { isRefused: agent.isRefused(), node, run: runTask, log });
  } finally {
    page?.close();
    kubernetes.close();
    stop.forget();
  }
}

/** Once more with these words: in a process of its own, which leaves the container. */
function runTask(task: HostTask): Promise<Ended> {
  const words = [...thisExecutable(), 'node', 'host'] as const;
  return runProgram([...words], { input: encodeHostTask(task), milliseconds: TASK_MILLISECONDS });
}

async function openPage(settings: Settings, agent: Agent, stop: AbortSignal) {
  const status = settings.text('status');
  if (status === undefined) return undefined;
  return startStatusPage(
    { address: parseListenAddress(status), insecure: settings.switch('insecure-status') },
    { metrics: () => agent.render(), isReady: async () => agent.isReady(), isDraining: () => stop.aborted },
  );
}

/** SIGTERM and SIGINT, from now on. */
function stopSignal(): { readonly signal: AbortSignal; readonly forget: () => void } {
  const controller = new AbortController();
  const stop = () => controller.abort();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, stop);
  return {
    signal: controller.signal,
    forget() {
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.off(name, stop);
    },
  };
}

/** RFC 1123, as Kubernetes names objects. */
const NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/;

function nodeName(settings: Settings): string {
  const name = needed(settings, 'node');
  if (NAME.test(name)) return name;
  throw new OcicryptError('usage', `option --node takes the name of a node, not ${showValue(name)}`, {
    hint: 'kubectl get nodes shows them',
  });
}

/** Namespace and name. */
export function daemonSetOf(settings: Settings): readonly [namespace: string, name: string] {
  const text = needed(settings, 'daemon-set');
  const [namespace = '', name = '', ...more] = text.split('/');
  if (more.length === 0 && NAME.test(namespace) && NAME.test(name)) return [namespace, name];
  throw new OcicryptError('usage', `option --daemon-set takes NAMESPACE/NAME, not ${showValue(text)}`, {
    hint: 'kubectl get daemonsets -A shows them',
  });
}

function needed(settings: Settings, name: TextName): string {
  const text = settings.text(name);
  if (text !== undefined) return text;
  throw new OcicryptError('usage', `this action needs --${name}`, { hint: 'run ocicrypt-kms node --help' });
}
