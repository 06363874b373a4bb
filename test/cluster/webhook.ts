// Starts the admission webhook beside the API server, and registers it as an operator does.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { executable } from '../end-to-end/workspace.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../fixtures/certificates.ts';
import { findPort, waitUntilListening } from '../peers/started.ts';
import { clientEnvironment } from '../real-clients/process.ts';
import type { ControlPlane } from './control-plane.ts';

/** Seconds that the API server waits for an answer of each of the two, as docs/admission.md has it. */
export const TIMEOUT = 10;
export const WEBHOOK = 'images.ocicrypt-kms.io';
/** As docs/admission.md names the service. */
const SERVICE = { name: 'admission', namespace: 'ocicrypt-kms' };
export const SERVER_NAME = `${SERVICE.name}.${SERVICE.namespace}.svc`;
/** A namespace is judged if it has this label. */
const JUDGED = { 'images.ocicrypt-kms.io/judged': 'true' };

export interface Webhook {
  readonly authority: CertificateAuthority;
  readonly port: number;
  /** What it has written to standard error so far. */
  log(): string;
  /** What the status page counts. */
  metrics(): Promise<string>;
  /** Replaces its policy, and waits until it has read it. @param rules as in docs/admission.md */
  setPolicy(policy: object): Promise<void>;
  /** Replaces its certificate by another one. */
  renew(options?: { readonly expired?: boolean }): Promise<void>;
}

/** The port is known before, because the API server is told to whom it shows its certificate. */
export type WebhookOptions = { readonly port: number; readonly options: readonly string[] };

/** Starts it with a policy. It judges the pods of all namespaces that {@link guard} makes. */
export async function startWebhook(
  t: Pick<TestContext, 'after'>,
  plane: ControlPlane,
  directory: string,
  policy: object,
  { port, options }: WebhookOptions,
): Promise<Webhook> {
  const authority = await createCertificateAuthority(directory, 'webhook-ca');
  const file = `${directory}/policy.yaml`;
  await replace(file, JSON.stringify(policy));
  const server = { usage: 'server', names: [SERVER_NAME] } as const;
  const { certificate, privateKey } = await authority.issue('webhook', server);
  const status = await findPort();
  const words = [
    ...['admission', `--policy=${file}`, `--listen=tls://127.0.0.1:${port}`, `--status=tcp://127.0.0.1:${status}`],
    ...[`--tls-cert=${certificate}`, `--tls-key=${privateKey}`, `--tls-client-ca=${plane.callers.certificate}`],
    ...options,
  ];
  const child = spawn(executable(), words, { env: clientEnvironment(), stdio: ['ignore', 'ignore', 'pipe'] });
  t.after(() => end(child));
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => (log += chunk));
  await Promise.race([waitUntilListening(port), once(child, 'exit').then(() => Promise.reject(new Error(log)))]);
  await plane.apply(...(await registrations(port, await readFile(authority.certificate))));
  return {
    ...{ authority, port },
    log: () => log,
    metrics: async () => (await fetch(`http://127.0.0.1:${status}/metrics`)).text(),
    async setPolicy(next) {
      const before = log.length;
      await replace(file, JSON.stringify(next));
      child.kill('SIGHUP');
      await heard(child, () => log.slice(before).includes('policy read again'));
    },
    async renew(certificateOptions = {}) {
      const before = log.length;
      await authority.issue('webhook', { ...server, ...certificateOptions });
      child.kill('SIGHUP');
      await heard(child, () => /certificate/.test(log.slice(before)));
    },
  };
}

/** Makes a namespace whose pods are judged. */
export function guard(plane: ControlPlane, name: string): Promise<void> {
  return addNamespace(plane, name, JUDGED);
}

/** Makes a namespace, with the account that pods need and a controller would make. */
export async function addNamespace(plane: ControlPlane, name: string, labels: object = {}): Promise<void> {
  await plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: name } },
  );
}

type Registration = {
  readonly webhooks: readonly { readonly clientConfig: { readonly service: { readonly path: string } } }[];
};

/** Those of docs/admission.md, but for the port and the namespaces that are judged; the service is on this machine. */
async function registrations(port: number, authority: Uint8Array): Promise<readonly object[]> {
  const text = await readFile(new URL('../../docs/admission.md', import.meta.url), 'utf8');
  const block = text.split(/^```(?:yaml)?\n/m).find((one) => one.startsWith('apiVersion: admissionregistration'));
  const registrations = parseAllDocuments(block ?? '').map((document) => {
    const registration: Registration = document.toJS();
    const webhooks = registration.webhooks.map((webhook) => ({
      ...webhook,
      clientConfig: {
        service: { ...webhook.clientConfig.service, port },
        caBundle: Buffer.from(authority).toString('base64'),
      },
      namespaceSelector: { matchLabels: JUDGED },
    }));
    return { ...registration, webhooks };
  });
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: SERVICE.namespace } },
    {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: SERVICE },
      spec: { type: 'ExternalName', externalName: 'localhost' },
    },
    ...registrations,
  ];
}

/** As editors do it: the new file is there whole or not at all. */
async function replace(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text);
  await rename(`${file}.new`, file);
}

async function heard(child: ChildProcess, holds: () => boolean): Promise<void> {
  while (!holds()) {
    if (child.stderr === null || child.exitCode !== null) throw new Error('the webhook has ended');
    await once(child.stderr, 'data', { signal: AbortSignal.timeout(30_000) });
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
