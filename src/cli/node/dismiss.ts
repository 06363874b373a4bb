// `node dismiss`: deletes the DaemonSet of the agents, and waits until each of them has undone its node.

import { setTimeout as sleep } from 'node:timers/promises';
import { checkedEnvironment } from '../../base/environment.ts';
import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { asNumber, asObject, type JsonObject } from '../../base/json.ts';
import { openKubernetes } from '../../base/kubernetes.ts';
import type { CommandContext } from '../command.ts';
import { untilInterrupted } from '../interrupt.ts';
import { count } from '../text.ts';
import { daemonSetOf } from './agent.ts';

const GLANCE_MILLISECONDS = 2000;

export async function dismissAgents({ settings, terminal }: CommandContext): Promise<void> {
  const [namespace, name] = daemonSetOf(settings);
  const path = ['apis', 'apps', 'v1', 'namespaces', namespace, 'daemonsets', name];
  const kubernetes = openKubernetes({ environment: checkedEnvironment(process.env) });
  let left: number | undefined;
  const describe = () =>
    new OcicryptError('unavailable', `${left ?? 'some'} nodes of ${namespace}/${name} are not undone`, {
      hint: 'see which: kubectl get pods -o wide; undo them with ocicrypt-kms node uninstall, or delete their pods by force',
    });
  const ask = (method: 'DELETE' | 'GET', query: string, signal: AbortSignal) =>
    kubernetes.ask({ method, path, query }, signal).catch((error: unknown) => {
      const known = asOcicryptError(error);
      if (known.code === 'not-found') return undefined;
      // It is asked again.
      if (known.retryable && left !== undefined) return left;
      throw known;
    });
  try {
    await untilInterrupted(
      terminal,
      async (signal) => {
        // In the foreground: the DaemonSet is there, and marked, until the last of its pods is gone.
        let found = await ask('DELETE', 'propagationPolicy=Foreground', signal);
        while (found !== undefined) {
          const now = typeof found === 'number' ? found : scheduledOf(found);
          if (now !== left) terminal.say(`waiting for ${count(now, 'node')}`);
          left = now;
          await sleep(GLANCE_MILLISECONDS, undefined, { signal });
          found = await ask('GET', '', signal);
        }
      },
      describe,
    );
    terminal.write('every node is as it was before the agents came, or has an event that says why not\n');
  } finally {
    kubernetes.close();
  }
}

function scheduledOf(daemonSet: JsonObject): number {
  return asNumber(asObject(daemonSet.get('status'))?.get('currentNumberScheduled')) ?? 0;
}
