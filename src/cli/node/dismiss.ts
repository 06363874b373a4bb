// `node dismiss`: deletes the DaemonSet of the agents, and waits until each of them has ended.

import { setTimeout as sleep } from 'node:timers/promises';
import { checkedEnvironment } from '../../base/environment.ts';
import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { asNumber, asObject, type JsonObject } from '../../base/json.ts';
import { type Kubernetes, openKubernetes } from '../../base/kubernetes.ts';
import type { CommandContext } from '../command.ts';
import { untilInterrupted } from '../interrupt.ts';
import { count } from '../text.ts';
import { daemonSetOf } from './agent.ts';
import { mayPass } from './undo.ts';

const GLANCE_MILLISECONDS = 2000;

export async function dismissAgents({ settings, terminal }: CommandContext): Promise<void> {
  const daemonSet = daemonSetOf(settings);
  const kubernetes = openKubernetes({ environment: checkedEnvironment(process.env) });
  const say = (line: string) => terminal.say(line);
  try {
    await untilInterrupted(
      terminal,
      (signal) => endAgents(kubernetes, daemonSet, { say, signal, glance: GLANCE_MILLISECONDS }),
      () =>
        new OcicryptError('unavailable', `not every node of ${daemonSet.join('/')} is undone`, {
          hint: 'see which: kubectl get pods -o wide; undo them with ocicrypt-kms node uninstall, or delete their pods by force',
        }),
    );
    terminal.write('the agents have ended; a node that they could not undo has an event UninstallFailed\n');
  } finally {
    kubernetes.close();
  }
}

export type Waiting = {
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** Milliseconds between two looks. */
  readonly glance: number;
};

/** @throws OcicryptError as of {@link Kubernetes.ask}; what may pass is waited for once the DaemonSet is being deleted */
export async function endAgents(
  kubernetes: Pick<Kubernetes, 'ask'>,
  [namespace, name]: readonly [string, string],
  { say, signal, glance }: Waiting,
): Promise<void> {
  const path = ['apis', 'apps', 'v1', 'namespaces', namespace, 'daemonsets', name];
  try {
    // In the foreground: the DaemonSet is there, and marked, until the last of its pods is gone.
    const query = 'propagationPolicy=Foreground';
    // Said once: its status is not kept up while it is deleted.
    const agents = scheduledOf(await kubernetes.ask({ method: 'DELETE', path, query }, signal));
    say(`waiting for the agents of ${count(agents, 'node')}`);
    for (;;) {
      await sleep(glance, undefined, { signal });
      await kubernetes.ask({ method: 'GET', path }, signal).catch((error: unknown) => {
        if (!mayPass(error)) throw error;
      });
    }
  } catch (error) {
    if (asOcicryptError(error).code !== 'not-found') throw error;
  }
}

function scheduledOf(daemonSet: JsonObject): number {
  return asNumber(asObject(daemonSet.get('status'))?.get('currentNumberScheduled')) ?? 0;
}
