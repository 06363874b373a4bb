// How a node of a cluster says whether it decrypts: a label for pods to select, a condition, and events when that changes.
// https://kubernetes.io/docs/reference/node/node-status/

import { createHash } from 'node:crypto';
import { asArray, asObject, asText, type JsonObject } from '../../base/json.ts';
import type { Kubernetes } from '../../base/kubernetes.ts';
import { printable } from '../../base/shown.ts';

const READY_LABEL = 'ocicrypt-kms.io/ready';
const CONDITION = 'OcicryptKmsReady';
/** Characters; the API server takes 1024 of an event. */
const MAXIMUM_MESSAGE = 1000;

/** Why a node is as it is, as conditions and events name it. */
export type NodeReason = 'Decrypts' | 'NotSetUp' | 'CheckFailed' | 'RestartNeeded' | Complaint;
/** What events alone say. */
export type Complaint = 'OtherAgents' | 'UninstallFailed';

export type NodeState = { readonly isReady: boolean; readonly reason: NodeReason; readonly message: string };

export class ClusterNode {
  readonly #kubernetes: Kubernetes;
  readonly #name: string;
  readonly #now: () => Date;

  constructor(kubernetes: Kubernetes, name: string, now: () => Date = () => new Date()) {
    this.#kubernetes = kubernetes;
    this.#name = name;
    this.#now = now;
  }

  /**
   * Writes what differs from what the API server has. Of a node that is not ready, the label goes first.
   *
   * @throws OcicryptError as of {@link Kubernetes.ask}
   */
  async report({ isReady, reason, message }: NodeState): Promise<void> {
    const node = await this.#kubernetes.ask({ method: 'GET', path: this.#path });
    const said = printable(message).slice(0, MAXIMUM_MESSAGE);
    const before = conditionOf(node);
    const status = isReady ? 'True' : 'False';
    const isNew = asText(before?.get('status')) !== status;
    if (!isReady) await this.#label(node, null);
    const time = this.#now()
      .toISOString()
      .replace(/\.\d+Z$/, 'Z');
    const condition = {
      type: CONDITION,
      status,
      reason,
      message: said,
      lastHeartbeatTime: time,
      lastTransitionTime: isNew ? time : (asText(before?.get('lastTransitionTime')) ?? time),
    };
    await this.#patchStatus(condition);
    if (isReady) await this.#label(node, 'true');
    if (isNew || asText(before?.get('reason')) !== reason)
      await this.#tell(node, isReady ? 'Normal' : 'Warning', reason, said);
  }

  /** Takes back what was ever reported. */
  async forget(): Promise<void> {
    await this.#label(await this.#kubernetes.ask({ method: 'GET', path: this.#path }), null);
    await this.#patchStatus({ type: CONDITION, $patch: 'delete' });
  }

  /** Says by an event alone why a node is not set up by these agents, or is not as it was before they came. */
  async complain(reason: Complaint, message: string): Promise<void> {
    const node = await this.#kubernetes.ask({ method: 'GET', path: this.#path });
    await this.#tell(node, 'Warning', reason, printable(message).slice(0, MAXIMUM_MESSAGE));
  }

  get #path(): readonly string[] {
    return ['api', 'v1', 'nodes', this.#name];
  }

  async #label(node: JsonObject, value: 'true' | null): Promise<void> {
    const labels = asObject(asObject(node.get('metadata'))?.get('labels'));
    if ((asText(labels?.get(READY_LABEL)) ?? null) === value && (value !== null || !labels?.has(READY_LABEL))) return;
    const body = { metadata: { labels: { [READY_LABEL]: value } } };
    await this.#kubernetes.ask({ method: 'PATCH', path: this.#path, how: 'merge', body });
  }

  async #patchStatus(condition: object): Promise<void> {
    const body = { status: { conditions: [condition] } };
    await this.#kubernetes.ask({ method: 'PATCH', path: [...this.#path, 'status'], how: 'strategic-merge', body });
  }

  /** Nodes are in no namespace; their events are in the default one. */
  async #tell(node: JsonObject, type: 'Normal' | 'Warning', reason: NodeReason, message: string): Promise<void> {
    const now = this.#now().toISOString();
    const name = createHash('sha256').update(`${this.#name} ${now} ${reason}`).digest('hex').slice(0, 16);
    const event = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `ocicrypt-kms.${name}`, namespace: 'default' },
      involvedObject: {
        apiVersion: 'v1',
        kind: 'Node',
        name: this.#name,
        uid: asText(asObject(node.get('metadata'))?.get('uid')) ?? this.#name,
      },
      type,
      reason,
      message,
      source: { component: 'ocicrypt-kms', host: this.#name },
      firstTimestamp: now.replace(/\.\d+Z$/, 'Z'),
      lastTimestamp: now.replace(/\.\d+Z$/, 'Z'),
      count: 1,
    };
    await this.#kubernetes.ask({ method: 'POST', path: ['api', 'v1', 'namespaces', 'default', 'events'], body: event });
  }
}

function conditionOf(node: JsonObject): JsonObject | undefined {
  const conditions = asArray(asObject(node.get('status'))?.get('conditions')) ?? [];
  return conditions.map(asObject).find((one) => asText(one?.get('type')) === CONDITION);
}
