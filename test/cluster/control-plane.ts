// Starts the control plane of a cluster on loopback: etcd and kube-apiserver, and what makes pods of objects and finds them nodes.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, type RequestOptions, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type CertificateAuthority, createCertificateAuthority } from '../fixtures/certificates.ts';
import { findPort, type StartedProgram, startProgram } from '../peers/started.ts';
import { type RunOptions, runClient } from '../real-clients/process.ts';
import { fetchEtcd, fetchKubernetes, type KubernetesProgram } from './software.ts';

/** What kubectl said on both of its outputs. */
export type Said = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** What the API server answered. */
export type Answer = { readonly status: number; readonly body: string };

export type ControlPlaneOptions = {
  /** Without controllers, what is created is kept, and nothing comes of it; without a scheduler, pods have no node. */
  readonly programs?: readonly ('kube-controller-manager' | 'kube-scheduler')[];
  /** Webhooks that the API server shows a certificate to: SERVICE.NAMESPACE.svc, with `:PORT` if that is not 443. */
  readonly webhooks?: readonly string[];
  /** Whether pods use the machine's network, because there is none of pods. */
  readonly isMachineNetwork?: boolean;
};

export interface ControlPlane {
  /** `https://127.0.0.1:PORT` */
  readonly url: string;
  readonly authority: CertificateAuthority;
  /** Of the certificate that the API server shows to webhooks. */
  readonly callers: CertificateAuthority;
  /** The administrator's. */
  readonly admin: string;
  /** kubectl of the cluster's administrator, to its end. */
  kubectl(words: readonly string[], options?: RunOptions): Promise<Said>;
  /** What kubectl prints. @throws Error with what it said if it fails */
  succeed(words: readonly string[], options?: RunOptions): Promise<string>;
  /** One call of an account that has this token. A patch is a strategic merge patch. */
  asAccount(token: string, method: string, path: string, object?: object): Promise<Answer>;
  /** Creates or replaces objects. */
  apply(...objects: readonly object[]): Promise<string>;
  /** One call of the administrator, without the time that kubectl takes to start. */
  post(path: string, object: object): Promise<Answer>;
  /** Writes a kubeconfig for a user and its group: `NAME, O=GROUP`. */
  kubeconfig(file: string, subject: string): Promise<string>;
  stop(): Promise<void>;
}

const PATIENCE = 60_000;

/** Policies that change objects are a beta. There is nothing that would translate addresses of Services. */
const MACHINE_NETWORK = [
  '--enable-aggregator-routing',
  '--feature-gates=MutatingAdmissionPolicy=true',
  '--runtime-config=admissionregistration.k8s.io/v1beta1=true',
];

/** Starts it with certificates of its own; it answers when the promise resolves. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const { programs = [], webhooks = [], isMachineNetwork = false } = options;
  const client = await fetchKubernetes('kubectl');
  const etcd = await fetchEtcd();
  const directory = await mkdtemp(join(tmpdir(), 'cluster-'));
  const path = (name: string) => join(directory, name);
  const authority = await createCertificateAuthority(directory);
  const callers = await createCertificateAuthority(directory, 'callers');
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
  /** The controllers and the scheduler are started in the same way, each as the user of its name. */
  const startBeside = async (name: KubernetesProgram, words: readonly string[]) => {
    const listens = await findPort();
    await start(name, listens, [
      ...[`--kubeconfig=${await kubeconfig(name, `system:${name}`)}`, '--leader-elect=false'],
      ...['--bind-address=127.0.0.1', `--secure-port=${listens}`, `--cert-dir=${path(name)}`, ...words],
    ]);
  };
  const accountWords = [
    ...['--use-service-account-credentials', `--root-ca-file=${authority.certificate}`],
    `--service-account-private-key-file=${accounts.privateKey}`,
  ];
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
      `--admission-control-config-file=${await showCertificate(directory, callers, webhooks)}`,
      ...(isMachineNetwork ? MACHINE_NETWORK : []),
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
    for (const name of programs) await startBeside(name, name === 'kube-scheduler' ? [] : accountWords);
    const ca = await readFile(authority.certificate);
    const anonymous = new Agent({ ca });
    const agent = new Agent({
      ...{ keepAlive: true, ca },
      cert: await readFile(path('admin.crt')),
      key: await readFile(path('admin.key')),
    });
    const apply = (...objects: readonly object[]) =>
      succeed(['apply', '--server-side', '--force-conflicts', '--filename=-'], {
        stdin: Buffer.from(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects })),
      });
    if (isMachineNetwork) await apply(...machineNetwork(port));
    return {
      ...{ url, authority, callers, admin, kubectl, succeed, kubeconfig, apply },
      asAccount: (token, method, name, object) =>
        call(`${url}${name}`, method, object, { agent: anonymous, headers: { authorization: `Bearer ${token}` } }),
      post: (name, object) => call(`${url}${name}`, 'POST', object, { agent }),
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

/** The file of the API server that docs/admission.md describes, and the kubeconfig that it names. @returns its path */
async function showCertificate(
  directory: string,
  callers: CertificateAuthority,
  webhooks: readonly string[],
): Promise<string> {
  const { certificate, privateKey } = await callers.issue('caller', { usage: 'client', names: [] });
  const user = { 'client-certificate': certificate, 'client-key': privateKey };
  const kubeconfig = join(directory, 'webhooks.conf');
  const users = webhooks.map((name) => ({ name, user }));
  await writeFile(kubeconfig, JSON.stringify({ apiVersion: 'v1', kind: 'Config', users }));
  const apiVersion = 'apiserver.config.k8s.io/v1';
  const configuration = { apiVersion, kind: 'WebhookAdmissionConfiguration', kubeConfigFile: kubeconfig };
  const plugins = ['ValidatingAdmissionWebhook', 'MutatingAdmissionWebhook'].map((name) => ({ name, configuration }));
  const file = join(directory, 'admission.json');
  await writeFile(file, JSON.stringify({ apiVersion, kind: 'AdmissionConfiguration', plugins }));
  return file;
}

/** Gives every pod the network of the machine, and the address of the API server there. */
function machineNetwork(port: number): readonly object[] {
  const name = 'machine-network';
  const variables = Object.entries({ HOST: '127.0.0.1', PORT: `${port}` })
    .map(([which, value]) => `Object.spec.containers.env{name: "KUBERNETES_SERVICE_${which}", value: "${value}"}`)
    .join(', ');
  const container = `Object.spec.containers{name: one.name, env: [${variables}]}`;
  const expression = `Object{spec: Object.spec{hostNetwork: true, containers: object.spec.containers.map(one, ${container})}}`;
  const apiVersion = 'admissionregistration.k8s.io/v1beta1';
  const pods = { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] };
  return [
    {
      ...{ apiVersion, kind: 'MutatingAdmissionPolicy', metadata: { name } },
      spec: {
        ...{ failurePolicy: 'Fail', reinvocationPolicy: 'Never', matchConstraints: { resourceRules: [pods] } },
        mutations: [{ patchType: 'ApplyConfiguration', applyConfiguration: { expression } }],
      },
    },
    { apiVersion, kind: 'MutatingAdmissionPolicyBinding', metadata: { name }, spec: { policyName: name } },
  ];
}

function call(url: string, method: string, object: object | undefined, options: RequestOptions): Promise<Answer> {
  const type = method === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json';
  const headers = { 'content-type': type, ...options.headers };
  return new Promise((resolve, reject) => {
    const asked = request(url, { ...options, method, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body })).once('error', reject);
    });
    asked.once('error', reject).end(object === undefined ? undefined : JSON.stringify(object));
  });
}
