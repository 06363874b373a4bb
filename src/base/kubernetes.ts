// Speaks to the API server of the cluster, as a pod does: with the token and the authority that are mounted for its account.
// https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/

import { join } from 'node:path';
import { withDeadline } from './deadline.ts';
import { type ErrorCode, OcicryptError } from './errors.ts';
import { createHttpClient } from './http/client.ts';
import type { HttpRequest } from './http/contract.ts';
import { asObject, type JsonObject, parseJson } from './json.ts';
import { readPublicFile } from './secret-file.ts';
import { printable } from './shown.ts';

export type KubernetesSettings = {
  readonly environment: NodeJS.ProcessEnv;
  /** Where the account's files are. */
  readonly account?: string | undefined;
};

/** What is asked. The segments of the path are escaped here, so that none can be more than one; none may lead up. */
export type KubernetesRequest =
  | { readonly method: 'DELETE' | 'GET'; readonly path: readonly string[]; readonly query?: string | undefined }
  | { readonly method: 'POST'; readonly path: readonly string[]; readonly body: object }
  | {
      readonly method: 'PATCH';
      readonly path: readonly string[];
      readonly body: object;
      /** How lists are changed: `merge` replaces them, `strategic-merge` goes by the names of their elements. */
      readonly how: 'merge' | 'strategic-merge';
    };

export interface Kubernetes {
  /**
   * Makes one request.
   *
   * @returns the object that the API server answers with
   * @throws OcicryptError `not-found`, `unauthenticated`, `refused`, `throttled`, `unavailable`, `deadline-exceeded`, or
   * `bad-input` if the API server does not take it
   */
  ask(request: KubernetesRequest, signal?: AbortSignal): Promise<JsonObject>;
  close(): void;
}

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const PATIENCE_MILLISECONDS = 15_000;
const MAXIMUM_TOKEN_BYTES = 64 * 1024;
const MAXIMUM_ANSWER_BYTES = 8 * 1024 * 1024;

/** @throws OcicryptError `configuration` outside of a pod */
export function openKubernetes({ environment, account = ACCOUNT }: KubernetesSettings): Kubernetes {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (!host || !port) {
    throw new OcicryptError('configuration', 'this is no pod: KUBERNETES_SERVICE_HOST or its port is not set', {
      hint: 'run it in a pod with a service account',
    });
  }
  const address = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  // The cluster's authority alone, and no proxy: neither the system's roots nor its variables count here.
  const trusted = { SSL_CERT_FILE: join(account, 'ca.crt'), SSL_CERT_DIR: join(account, 'none') };
  const http = createHttpClient({ environment: trusted });
  // Read for each request, because the kubelet renews it.
  const readToken = () => {
    const bytes = readPublicFile(join(account, 'token'), 'the token of the service account', MAXIMUM_TOKEN_BYTES);
    return new TextDecoder().decode(bytes).trim();
  };
  return {
    async ask(request, signal) {
      const what = `${request.method} /${request.path.join('/')}`;
      if (request.path.some((segment) => /^\.{0,2}$/.test(segment)))
        throw new OcicryptError('bad-input', `no object of the API server has this path: ${printable(what)}`);
      const answer = await withDeadline(PATIENCE_MILLISECONDS, signal, `${what} of the API server`, (running) =>
        http.request({
          ...written(request),
          url: `${address}/${request.path.map(encodeURIComponent).join('/')}${queryOf(request)}`,
          headers: {
            accept: 'application/json',
            'content-type': contentType(request),
            authorization: `Bearer ${readToken()}`,
          },
          signal: running,
          maximumBytes: MAXIMUM_ANSWER_BYTES,
        }),
      );
      if (answer.status >= 400) throw refusal(what, answer.status);
      const object = asObject(parseJson(answer.body, 'the answer of the API server'));
      if (object !== undefined) return object;
      throw new OcicryptError('unavailable', `the API server answers ${what} with something else than an object`);
    },
    close: () => http.close(),
  };
}

function queryOf(request: KubernetesRequest): string {
  return 'query' in request && request.query ? `?${request.query}` : '';
}

function written(request: KubernetesRequest): Pick<HttpRequest, 'method' | 'body'> {
  const { method } = request;
  return 'body' in request ? { method, body: new TextEncoder().encode(JSON.stringify(request.body)) } : { method };
}

function contentType(request: KubernetesRequest): string | undefined {
  if (request.method === 'PATCH') return `application/${request.how}-patch+json`;
  return request.method === 'POST' ? 'application/json' : undefined;
}

/** https://kubernetes.io/docs/reference/using-api/api-concepts/; what else it answers is the server's own trouble. */
const REFUSALS: ReadonlyMap<number, readonly [code: ErrorCode, problem: string, hint: string]> = new Map([
  [401, ['unauthenticated', 'does not know this account', 'the account was deleted, or its token is not renewed']],
  [
    403,
    [
      'refused',
      'does not permit it',
      'see the roles of this account, and admission policies: kubectl auth can-i --list',
    ],
  ],
  [404, ['not-found', 'has no such object', 'see whether its name is right, and whether it was deleted']],
  [409, ['unavailable', 'has had another change meanwhile', 'try again']],
  [429, ['throttled', 'is asked too much', 'try again later']],
]);

function refusal(what: string, status: number): OcicryptError {
  const [code, problem, hint] = REFUSALS.get(status) ?? [
    status < 500 ? 'bad-input' : 'unavailable',
    'cannot answer',
    status < 500 ? 'see its version: docs/kubernetes.md says which ones are supported' : 'see how the API server is',
  ];
  return new OcicryptError(code, `the API server ${problem}: ${what} (${status})`, {
    hint,
    retryable: status === 409 || status === 429 || status >= 500,
  });
}
