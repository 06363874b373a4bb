// An API server of Kubernetes that holds one node, one DaemonSet and events: what the agent of a node asks for, and nothing else.
import assert from 'node:assert/strict';
import type { CertificateFiles } from '../fixtures/certificates.ts';
import { startWireServer, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

export type FakeEvent = {
  readonly type: string;
  readonly reason: string;
  readonly message: string;
  readonly involvedObject: { readonly kind: string; readonly name: string; readonly uid: string };
};

type Condition = Readonly<Record<string, string>>;
type DaemonSet = { isDeleted: boolean; pods: number };
type Change = (body: Readonly<Record<string, Readonly<Record<string, unknown>>>>) => object | undefined;

export const FAKE_DAEMON_SET = 'kube-system/ocicrypt-kms-node';
const DAEMON_SET = '/apis/apps/v1/namespaces/kube-system/daemonsets/ocicrypt-kms-node';

export class FakeKubernetes {
  readonly labels: Record<string, string | null> = { 'kubernetes.io/os': 'linux' };
  conditions: readonly Condition[] = [{ type: 'Ready', status: 'True' }];
  readonly events: FakeEvent[] = [];
  /** Undefined once it is gone. */
  daemonSet: DaemonSet | undefined = { isDeleted: false, pods: 1 };
  /** The one that is accepted. */
  token = 'first-token';
  /** What is answered instead of a request. */
  refuse: (request: string) => number | undefined = () => undefined;
  readonly #name: string;
  readonly #changes: ReadonlyMap<string, Change>;

  /** @param name of the node */
  constructor(name: string) {
    this.#name = name;
    const path = `/api/v1/nodes/${name}`;
    this.#changes = new Map<string, Change>([
      [`GET ${path}`, () => this.#node()],
      [`PATCH ${path}`, ({ metadata }) => this.#label(metadata?.labels)],
      [`PATCH ${path}/status`, ({ status }) => this.#mark(status?.conditions)],
      ['POST /api/v1/namespaces/default/events', (body) => this.#keep(body)],
      [`GET ${DAEMON_SET}`, () => this.#daemonSetObject()],
      [`DELETE ${DAEMON_SET}?propagationPolicy=Foreground`, () => this.#delete()],
    ]);
  }

  get condition(): Condition | undefined {
    return this.conditions.find(({ type }) => type === 'OcicryptKmsReady');
  }

  listen(tls: CertificateFiles): Promise<WireServer> {
    return startWireServer((request) => this.#answer(request), { tls });
  }

  #answer(request: WireRequest): WireAnswer {
    const asked = `${request.method} ${request.path}`;
    if (request.headers.authorization !== `Bearer ${this.token}`) return answer(401);
    const refused = this.refuse(asked);
    if (refused !== undefined) return answer(refused);
    const change = this.#changes.get(asked);
    if (change === undefined) return answer(404);
    assert.equal(request.headers['content-type'], TYPES[request.method]?.(request.path));
    const object = change(request.body.length === 0 ? {} : JSON.parse(new TextDecoder().decode(request.body)));
    return object === undefined ? answer(404) : answer(request.method === 'POST' ? 201 : 200, object);
  }

  #node() {
    const metadata = { name: this.#name, uid: '6a0a3b0e-0000-4000-8000-000000000001', labels: this.labels };
    return { kind: 'Node', metadata, status: { conditions: this.conditions } };
  }

  #label(labels: unknown) {
    Object.assign(this.labels, labels);
    for (const [key, value] of Object.entries(this.labels)) if (value === null) delete this.labels[key];
    return this.#node();
  }

  #mark(conditions: unknown) {
    assert.ok(Array.isArray(conditions));
    for (const one of conditions) {
      this.conditions = this.conditions.filter(({ type }) => type !== one.type);
      if (!('$patch' in one)) this.conditions = [...this.conditions, one];
    }
    return this.#node();
  }

  #keep(event: object) {
    assert.ok(isEvent(event));
    this.events.push(event);
    return event;
  }

  #daemonSetObject() {
    if (this.daemonSet === undefined) return undefined;
    const { isDeleted, pods } = this.daemonSet;
    const metadata = isDeleted ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {};
    return { kind: 'DaemonSet', metadata, status: { currentNumberScheduled: pods } };
  }

  #delete() {
    if (this.daemonSet !== undefined) this.daemonSet.isDeleted = true;
    return this.#daemonSetObject();
  }
}

/** What a body is, by its method. */
const TYPES: Readonly<Record<string, (path: string) => string>> = {
  POST: () => 'application/json',
  PATCH: (path) => `application/${path.endsWith('/status') ? 'strategic-merge' : 'merge'}-patch+json`,
};

/** What of an event the API server insists on: it is in the namespace of nodes, and not too long. */
function isEvent(event: object): event is FakeEvent {
  const { metadata, message } = event as { metadata?: { namespace?: string }; message?: string };
  return metadata?.namespace === 'default' && typeof message === 'string' && message.length <= 1024;
}

function answer(status: number, object: object = { kind: 'Status', message: 'words of the server' }): WireAnswer {
  return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(object) };
}
