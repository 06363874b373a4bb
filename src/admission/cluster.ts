// The only code that asks the API server: for a namespace's labels, and for the secrets by which a pod pulls its images.
// https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/

import { decodeBase64 } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { createHttpClient } from '../base/http/client.ts';
import type { HttpClient } from '../base/http/contract.ts';
import { readPublicFile } from '../base/secret-file.ts';
import { printable } from '../base/shown.ts';
import { isRecord, type UnknownRecord } from '../base/yaml-file.ts';
import type { AuthDocument } from '../image/transports/registry/credentials.ts';
import type { Cluster } from './decision.ts';
import { createLogins, type Logins } from './judge.ts';
import { Kept } from './kept.ts';
import { labelsOf } from './pod.ts';
import type { Labels } from './policy.ts';
import { textOf } from './review.ts';

/** Where a pod finds the API server, and what it shows it. */
export type ClusterSettings = {
  /** `HOST` and port, from the variables that every pod has. */
  readonly host: string;
  readonly port: string;
  /** The directory with `token` and `ca.crt` of the service account. */
  readonly directory: string;
};

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const MAXIMUM_TOKEN_BYTES = 64 * 1024;
/** etcd takes no more. */
const MAXIMUM_ANSWER_BYTES = 2 * 1024 * 1024;
const MAXIMUM_SECRETS = 16;
/** What was read holds for so long: a burst of pods asks once. */
const HOLD_MILLISECONDS = 5_000;
const MAXIMUM_KEPT = 256;

/** The API server of the cluster that this is a pod of; undefined if it is none. */
export function findCluster(environment: NodeJS.ProcessEnv, directory = SERVICE_ACCOUNT): Cluster | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = '443' } = environment;
  return host === undefined || host === '' ? undefined : createCluster({ host, port, directory });
}

function createCluster({ host, port, directory }: ClusterSettings): Cluster {
  const authority = `${directory}/ca.crt`;
  // The cluster's authority alone, and no proxy: neither the system's roots nor its variables count here.
  const environment = { SSL_CERT_FILE: authority, SSL_CERT_DIR: `${directory}/none` };
  const http = createHttpClient({ environment });
  const base = `https://${host.includes(':') ? `[${host}]` : host}:${port}/api/v1/namespaces`;
  const labels = new Kept<Labels>(MAXIMUM_KEPT);
  const documents = new Kept<AuthDocument | 'none'>(MAXIMUM_KEPT);
  const get = (path: string, signal: AbortSignal) => readObject(http, `${base}/${path}`, `${directory}/token`, signal);
  const readSecret = async (namespace: string, name: string, signal: AbortSignal) => {
    const path = `${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
    const kept = documents.get(path);
    if (kept !== undefined) return kept;
    const secret = await get(path, signal);
    const document =
      secret === undefined ? 'none' : documentOf(secret, `the secret ${printable(`${namespace}/${name}`)}`);
    documents.set(path, document, HOLD_MILLISECONDS);
    return document;
  };
  return {
    async namespaceLabels(namespace, signal) {
      const kept = labels.get(namespace);
      if (kept !== undefined) return kept;
      const found = await get(encodeURIComponent(namespace), signal);
      if (found === undefined) throw new OcicryptError('not-found', `no namespace ${printable(namespace)}`);
      const read = labelsOf(found);
      labels.set(namespace, read, HOLD_MILLISECONDS);
      return read;
    },
    async logins(namespace, secrets, signal): Promise<Logins> {
      if (secrets.length > MAXIMUM_SECRETS) {
        throw new OcicryptError('bad-input', `the pod names more than ${MAXIMUM_SECRETS} pull secrets`);
      }
      const found = await Promise.all(secrets.map((name) => readSecret(namespace, name, signal)));
      return createLogins(found.filter((document) => document !== 'none'));
    },
  };
}

/** An object of the API; undefined if it is not there. @throws OcicryptError */
async function readObject(
  http: HttpClient,
  url: string,
  tokenFile: string,
  signal: AbortSignal,
): Promise<UnknownRecord | undefined> {
  // Read each time: the kubelet renews it.
  const token = new TextDecoder().decode(readPublicFile(tokenFile, 'the token', MAXIMUM_TOKEN_BYTES)).trim();
  const { status, body } = await http.request({
    ...{ method: 'GET', url, headers: { accept: 'application/json', authorization: `Bearer ${token}` } },
    ...{ signal, maximumBytes: MAXIMUM_ANSWER_BYTES },
  });
  if (status === 404) return undefined;
  const value: unknown = status === 200 ? JSON.parse(new TextDecoder().decode(body)) : undefined;
  if (isRecord(value)) return value;
  const isRight = status === 401 || status === 403;
  throw new OcicryptError(
    isRight ? 'refused' : 'unavailable',
    `the API server does not show what is asked for (${status})`,
    {
      hint: isRight
        ? 'let the service account get namespaces, or secrets where a rule has pull-secrets'
        : 'try again later',
    },
  );
}

/** Of a secret of another type nothing is taken, as the kubelet takes nothing. */
function documentOf(secret: UnknownRecord, name: string): AuthDocument | 'none' {
  const data = isRecord(secret.data) ? secret.data : {};
  const isOld = secret.type === 'kubernetes.io/dockercfg';
  const text = textOf(data[isOld ? '.dockercfg' : '.dockerconfigjson']);
  const content = text === '' ? undefined : decodeBase64(new TextEncoder().encode(text));
  if (content === undefined) return 'none';
  return {
    name,
    content: isOld ? new TextEncoder().encode(`{"auths":${new TextDecoder().decode(content)}}`) : content,
  };
}
