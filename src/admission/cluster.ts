// What only the cluster itself knows: a namespace's labels, and the secrets by which a pod pulls its images.

import { OcicryptError } from '../base/errors.ts';
import { asBytes, asObject, asText, type JsonObject } from '../base/json.ts';
import { type Kubernetes, openKubernetes } from '../base/kubernetes.ts';
import { SharedRuns } from '../base/share.ts';
import { printable } from '../base/shown.ts';
import type { AuthDocument } from '../image/transports/registry/credentials.ts';
import type { Cluster } from './decision.ts';
import { createLogins } from './judge.ts';
import { Kept } from './kept.ts';
import type { Labels } from './policy.ts';

const MAXIMUM_SECRETS = 16;
/** A secret may hold a mebibyte, and a login needs some hundred bytes: what is kept must not be for its author to say. */
const MAXIMUM_DOCUMENT_BYTES = 64 * 1024;
/** What was read holds for so long; who asks while it is read waits for it: a burst of pods asks once. */
const HOLD_MILLISECONDS = 5_000;
const MAXIMUM_KEPT = 256;

/** The cluster that this is a pod of; undefined if it is none. */
export function findCluster(environment: NodeJS.ProcessEnv): Cluster | undefined {
  return environment.KUBERNETES_SERVICE_HOST ? createCluster(openKubernetes({ environment })) : undefined;
}

/** @param kubernetes asked for each namespace and each secret once in five seconds */
export function createCluster(kubernetes: Pick<Kubernetes, 'ask'>): Cluster {
  const readNamespace = held(async (path, signal) => labelsOf(await kubernetes.ask({ method: 'GET', path }, signal)));
  const readSecret = held(async (path, signal): Promise<AuthDocument | 'none'> => {
    const secret = await kubernetes.ask({ method: 'GET', path }, signal).catch(orNothing);
    const [, , , namespace, , name] = path;
    return documentOf(secret, `the secret ${printable(`${namespace}/${name}`)}`) ?? 'none';
  });
  return {
    namespaceLabels: (namespace, signal) => readNamespace(['api', 'v1', 'namespaces', namespace], signal),
    async logins(namespace, secrets, signal) {
      if (secrets.length > MAXIMUM_SECRETS) {
        throw new OcicryptError('bad-input', `the pod names more than ${MAXIMUM_SECRETS} pull secrets`);
      }
      const path = ['api', 'v1', 'namespaces', namespace, 'secrets'];
      const found = await Promise.all(secrets.map((name) => readSecret([...path, name], signal)));
      return createLogins(found.filter((document) => document !== 'none'));
    },
  };
}

type Read<Value> = (path: readonly string[], signal: AbortSignal) => Promise<Value>;

/** Reads each object once for all who ask while it is read, and for some time after. */
function held<Value>(read: Read<Value>): Read<Value> {
  const values = new Kept<Value>(MAXIMUM_KEPT);
  const runs = new SharedRuns<Value>();
  return async (path, signal) => {
    const name = path.join('/');
    const kept = values.get(name);
    if (kept !== undefined) return kept;
    return runs.run(name, signal, async (running) => {
      const value = await read(path, running);
      values.set(name, value, HOLD_MILLISECONDS);
      return value;
    });
  };
}

function labelsOf(namespace: JsonObject): Labels {
  const labels = asObject(asObject(namespace.get('metadata'))?.get('labels')) ?? new Map();
  return Object.fromEntries([...labels].map(([name, value]) => [name, asText(value) ?? '']));
}

/** The kubelet goes on without a secret that is not there. */
function orNothing(error: unknown): undefined {
  if (!(error instanceof OcicryptError && error.code === 'not-found')) throw error;
}

/** Of a secret of another type nothing is taken, as the kubelet takes nothing. */
function documentOf(secret: JsonObject | undefined, name: string): AuthDocument | undefined {
  const data = asObject(secret?.get('data'));
  const type = asText(secret?.get('type')) ?? '';
  const content = asBytes(data?.get(MEMBERS.get(type) ?? ''));
  if (content === undefined) return undefined;
  if (content.length > MAXIMUM_DOCUMENT_BYTES) {
    throw new OcicryptError('bad-input', `${name} is larger than ${MAXIMUM_DOCUMENT_BYTES} bytes`, {
      hint: 'leave in it the registries alone that the pod needs',
    });
  }
  if (type !== OLD) return { name, content };
  const rows = new TextDecoder().decode(content);
  return { name, content: new TextEncoder().encode(`{"auths":${rows}}`) };
}

const OLD = 'kubernetes.io/dockercfg';
/** Types of pull secrets, and the member of each that counts. */
const MEMBERS: ReadonlyMap<string, string> = new Map([
  [OLD, '.dockercfg'],
  ['kubernetes.io/dockerconfigjson', '.dockerconfigjson'],
]);
