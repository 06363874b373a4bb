// Starts the API server of a cluster on loopback, with etcd. Nothing runs there: what is created is kept, and nothing comes of it.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { findPort, type StartedProgram, startProgram } from '../peers/started.ts';
import { type RunOptions, runClient } from '../real-clients/process.ts';
import { fetchEtcd, fetchKubernetes, type KubernetesProgram } from './software.ts';

/** What kubectl said on both of its outputs. */
export type Said = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** What the API server answered. */
export type Answer = { readonly status: number; readonly body: string };

export interface ControlPlane {
  /** kubectl of the cluster's administrator, to its end. */
  kubectl(words: readonly string[], options?: RunOptions): Promise<Said>;
  /** What kubectl prints. @throws Error with what it said if it fails */
  succeed(words: readonly string[], options?: RunOptions): Promise<string>;
  /** Creates or replaces objects. */
  apply(...objects: readonly object[]): Promise<string>;
  /** One call of the administrator, without the time that kubectl takes to start. */
  post(path: string, object: object): Promise<Answer>;
  stop(): Promise<void>;
}

const PATIENCE = 60_000;

/** Starts it with certificates of its own; it answers when the promise resolves. */
export async function startControlPlane(): Promise<ControlPlane> {
  const client = await fetchKubernetes('kubectl');
  const etcd = await fetchEtcd();
  const directory = await mkdtemp(join(tmpdir(), 'cluster-'));
  const path = (name: string) => join(directory, name);
  const authority = await createCertificateAuthority(directory);
  const server = await authority.issue('apiserver', { usage: 'server' });
  const accounts = await authority.issue('accounts');
  const [port, clients, peers] = [await findPort(), await findPort(), await findPort()];
  const url = `https://127.0.0.1:${port}`;
  const started = new Map<string, StartedProgram>();
  const start = async (name: KubernetesProgram | 'etcd', listens: number, words: readonly string[]) => {
    const program = name === 'etcd' ? etcd : await fetchKubernetes(name);
    started.set(name, await startProgram(program, words, { port: listens, environment: { HOME: directory } }));
  };
  const kubeconfig = async (file: string, subject: string) => {
    const user = await authority.issue(file, { usage: 'client', commonName: subject, names: [] });
    const cluster = { server: url, 'certificate-authority': authority.certificate };
    const credentials = { 'client-certificate': user.certificate, 'client-key': user.privateKey };
    const settings = {
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'it' },
      clusters: [{ name: 'it', cluster }],
      users: [{ name: 'it', user: credentials }],
      contexts: [{ name: 'it', context: { cluster: 'it', user: 'it' } }],
    };
    await writeFile(path(`${file}.conf`), JSON.stringify(settings));
    return path(`${file}.conf`);
  };
  const stop = async () => {
    for (const one of [...started.values()].reverse()) await one.stop();
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    await start('etcd', clients, [
      ...[`--data-dir=${path('etcd')}`, '--unsafe-no-fsync', '--log-level=warn'],
      ...[`--listen-client-urls=http://127.0.0.1:${clients}`, `--advertise-client-urls=http://127.0.0.1:${clients}`],
      ...[`--listen-peer-urls=http://127.0.0.1:${peers}`, `--initial-advertise-peer-urls=http://127.0.0.1:${peers}`],
      `--initial-cluster=default=http://127.0.0.1:${peers}`,
    ]);
    await start('kube-apiserver', port, [
      ...[`--etcd-servers=http://127.0.0.1:${clients}`, `--cert-dir=${path('apiserver')}`],
      ...['--bind-address=127.0.0.1', `--secure-port=${port}`, '--endpoint-reconciler-type=none'],
      ...[`--tls-cert-file=${server.certificate}`, `--tls-private-key-file=${server.privateKey}`],
      ...[`--client-ca-file=${authority.certificate}`, '--authorization-mode=Node,RBAC', '--allow-privileged'],
      ...['--service-cluster-ip-range=10.0.0.0/24', '--service-account-issuer=https://kubernetes.default.svc'],
      ...[
        `--service-account-key-file=${accounts.certificate}`,
        `--service-account-signing-key-file=${accounts.privateKey}`,
      ],
      '--enable-admission-plugins=NodeRestriction',
    ]);
    const admin = await kubeconfig('admin', 'admin, O=system:masters');
    const say = async (words: readonly string[], options: RunOptions = {}) => {
      const result = await runClient([client, ...words], options);
      return { ...result, stdout: new TextDecoder().decode(result.stdout) };
    };
    const kubectl = (words: readonly string[], options: RunOptions = {}) =>
      say([`--kubeconfig=${admin}`, ...words], options);
    const succeed = async (words: readonly string[], options: RunOptions = {}) => {
      const { exitCode, stdout, stderr } = await kubectl(words, options);
      if (exitCode !== 0) throw new Error(`kubectl ${words.join(' ')}: ${stderr}`);
      return stdout;
    };
    await until(
      PATIENCE,
      'the API server is ready',
      async () => (await kubectl(['get', '--raw=/readyz'])).exitCode === 0,
    );
    const agent = new Agent({
      keepAlive: true,
      ca: await readFile(authority.certificate),
      cert: await readFile(path('admin.crt')),
      key: await readFile(path('admin.key')),
    });
    return {
      kubectl,
      succeed,
      apply: (...objects) =>
        succeed(['apply', '--server-side', '--force-conflicts', '--filename=-'], {
          stdin: Buffer.from(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects })),
        }),
      post: (name, object) => post(agent, `${url}${name}`, JSON.stringify(object)),
      async stop() {
        agent.destroy();
        await stop();
      },
    };
  } catch (error) {
    const logs = [...started].map(([name, one]) => `${name}: ${one.output().slice(-2000)}`);
    await stop();
    throw new Error(`no cluster could be started\n${logs.join('\n')}`, { cause: error });
  }
}

/** Waits until something holds. @throws Error that says what did not come */
export async function until(patience: number, what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + patience; !(await holds()); await pause(200)) {
    if (Date.now() > end) throw new Error(`waited in vain for this: ${what}`);
  }
}

function post(agent: Agent, url: string, text: string): Promise<Answer> {
  const headers = { 'content-type': 'application/json' };
  return new Promise((resolve, reject) => {
    const call = request(url, { agent, method: 'POST', headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body })).once('error', reject);
    });
    call.once('error', reject).end(text);
  });
}
