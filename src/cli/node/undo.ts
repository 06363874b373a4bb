// What an agent does last: once its DaemonSet is deleted, the node is as it was before the agents came, or says why not.

import type { Clock } from '../../base/clock.ts';
import { asOcicryptError, describeError, ERROR_STATUS, OcicryptError } from '../../base/errors.ts';
import { asObject } from '../../base/json.ts';
import type { Kubernetes } from '../../base/kubernetes.ts';
import { retry } from '../../base/retry.ts';
import type { Carriage } from '../../node/carried.ts';
import { type Ended, lastComplaint } from '../../node/programs.ts';
import type { ClusterNode } from './cluster-node.ts';
import type { HostTask } from './host.ts';

export type Undoing = {
  /** Whether the node was last found to be that of other agents, whose label and condition stay. */
  readonly isRefused: boolean;
  readonly node: Pick<ClusterNode, 'complain' | 'forget'>;
  /** Runs a task on the machine to its end. */
  readonly run: (task: HostTask) => Promise<Ended>;
  readonly log: (level: 'info' | 'warn', fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock?: Clock | undefined;
};

/**
 * Whether the agents were dismissed: that this pod ends alone may be a new version, or a node that is emptied. If the API
 * server does not say so, they were not.
 */
export async function isDismissed(
  kubernetes: Pick<Kubernetes, 'ask'>,
  [namespace, name]: readonly [string, string],
  { log, clock }: Pick<Undoing, 'log' | 'clock'>,
): Promise<boolean> {
  const path = ['apis', 'apps', 'v1', 'namespaces', namespace, 'daemonsets', name];
  try {
    const found = await patiently(() => kubernetes.ask({ method: 'GET', path }), clock);
    const isDeleted = asObject(found.get('metadata'))?.has('deletionTimestamp') === true;
    if (!isDeleted) log('info', {}, 'the node stays set up: its DaemonSet is not deleted');
    return isDeleted;
  } catch (error) {
    const known = asOcicryptError(error);
    if (known.code === 'not-found') return true;
    const fields = { problem: describeError(known) };
    log('warn', fields, 'the node stays set up: the API server does not say whether its DaemonSet is deleted');
    return false;
  }
}

/**
 * The label goes first, so that no pod comes that the node cannot run. What was brought goes last: until the runtimes have
 * read that they have no decoder, they name the program. An API server that does not answer stops none of it.
 *
 * @throws OcicryptError `configuration` if something of ours is still there
 */
export async function undoNode(
  { owner, directory }: Carriage,
  { isRefused, node, run, log, clock }: Undoing,
): Promise<void> {
  const tell = async (what: () => Promise<void>, message: string) => {
    try {
      await patiently(what, clock);
    } catch (error) {
      log('warn', { problem: describeError(asOcicryptError(error)) }, message);
    }
  };
  if (!isRefused) await tell(() => node.forget(), 'the label and the condition of the node could not be removed');
  const undone = await run({ owner, directory, words: ['node', 'uninstall'] });
  const last = NOTHING_LEFT.has(undone.status) ? await run({ owner, directory, words: [] }) : undone;
  if (last.status === 0) return log('info', {}, 'the node is as it was before these agents came');
  const problem = complaintOf(last);
  log('warn', { problem }, 'the node is not as it was before');
  await tell(() => node.complain('UninstallFailed', problem), 'the API server was not told');
  throw new OcicryptError('configuration', `the node is not as it was before: ${problem}`);
}

/** It is undone, no installation came so far that it wrote something, or what is installed is that of other agents. */
const { 'not-found': notFound, refused } = ERROR_STATUS;
const NOTHING_LEFT: ReadonlySet<number | undefined> = new Set([0, notFound.exit, refused.exit]);

const MAXIMUM_COMPLAINT = 1000;

/** What a task that failed says of it. */
export function complaintOf(ended: Ended): string {
  const line = lastComplaint(ended, MAXIMUM_COMPLAINT).replace(/^ocicrypt-kms: /, '');
  return line || `it ended without a word (status ${ended.status ?? 'unknown'})`;
}

/** An API server that is updated, or whose node changes, is away for seconds. */
const ATTEMPTS = 5;
const PAUSES = { first: 2000, longest: 4000 };

/** @throws OcicryptError as of what is asked, which was tried again if that may help */
function patiently<Value>(ask: () => Promise<Value>, clock: Clock | undefined): Promise<Value> {
  let left = ATTEMPTS;
  return retry(
    () =>
      ask().catch((error: unknown) => {
        throw mayPass(error) ? asOcicryptError(error).with({ retryable: true }) : error;
      }),
    {
      pauses: PAUSES,
      signal: new AbortController().signal,
      clock,
      pauseAfter: (_, usual) => (--left > 0 ? usual : undefined),
    },
  );
}

/** Whether a call of the API server may succeed later: also one that it did not answer in time. */
export function mayPass(error: unknown): boolean {
  const { code, retryable } = asOcicryptError(error);
  return retryable || code === 'deadline-exceeded';
}
