// What only the cluster itself knows: a namespace's labels, and the secrets by which a pod pulls its images.

import { OcicryptError } from '../base/errors.ts';
import { asBytes, asObject, asText, type JsonObject } from '../base/json.ts';
import { type Kubernetes, openKubernetes } from '../base/kubernetes.ts';
import { printable } from '../base/shown.ts';
import type { AuthDocument } from '../image/transports/registry/credentials.ts';
import type { Cluster } from './decision.ts';
import { createLogins } from './judge.ts';
import { Kept } from './kept.ts';
import type { Labels } from './policy.ts';

const MAXIMUM_SECRETS = 16;
/** What was read holds for so long: a burst of pods asks once. */
const HOLD_MILLISECONDS = 5_000;
const MAXIMUM_KEPT = 256;

/** The cluster that this is a pod of; undefined if it is none. */
export function findCluster(environment: NodeJS.ProcessEnv): Cluster | undefined {
  return environment.KUBERNETES_SERVICE_HOST ? createCluster(openKubernetes({ environment })) : undefined;
}

/** @param kubernetes asked for each namespace and each secret once in five seconds */
export function createCluster(kubernetes: Pick<Kubernetes, 'ask'>): Cluster {
  const labels = new Kept<Labels>(MAXIMUM_KEPT);
  const documents = new Kept<AuthDocument | 'none'>(MAXIMUM_KEPT);
  const readSecret = async (namespace: string, name: string, signal: AbortSignal) => {
    const path = ['api', 'v1', 'namespaces', namespace, 'secrets', name];
    const key = path.join('/');
    const kept = documents.get(key);
    if (kept !== undefined) return kept;
    const secret = await kubernetes.ask({ method: 'GET', path }, signal).catch(orNothing);
    const document = documentOf(secret, `the secret ${printable(`${namespace}/${name}`)}`) ?? 'none';
    documents.set(key, document, HOLD_MILLISECONDS);
    return document;
  };
  return {
    async namespaceLabels(namespace, signal) {
      const kept = labels.get(namespace);
      if (kept !== undefined) return kept;
      const read = labelsOf(
        await kubernetes.ask({ method: 'GET', path: ['api', 'v1', 'namespaces', namespace] }, signal),
      );
      labels.set(namespace, read, HOLD_MILLISECONDS);
      return read;
    },
    async logins(namespace, secrets, signal) {
      if (secrets.length > MAXIMUM_SECRETS) {
        throw new OcicryptError('bad-input', `the pod names more than ${MAXIMUM_SECRETS} pull secrets`);
      }
      const found = await Promise.all(secrets.map((name) => readSecret(namespace, name, signal)));
      return createLogins(found.filter((document) => document !== 'none'));
    },
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
  const isOld = asText(secret?.get('type')) === 'kubernetes.io/dockercfg';
  const content = asBytes(data?.get(isOld ? '.dockercfg' : '.dockerconfigjson'));
  if (content === undefined) return undefined;
  const rows = new TextDecoder().decode(content);
  return { name, content: isOld ? new TextEncoder().encode(`{"auths":${rows}}`) : content };
}
