// A webhook over real HTTPS beside a registry that misbehaves on demand, for tests of what an API server is answered.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type AdmissionEvent, createAdmission } from '../../src/admission/admission.ts';
import type { Cluster } from '../../src/admission/decision.ts';
import { Judge } from '../../src/admission/judge.ts';
import { parsePolicy } from '../../src/admission/policy-file.ts';
import type { LayerKeyUnwrapper } from '../../src/client/layer-keys.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { createStoredManifest } from '../../src/image/transports/store.ts';
import type { WebLimits } from '../../src/server/web.ts';
import { DEFAULT_WEB_LIMITS, startWebhook } from '../../src/server/webhook.ts';
import { WebhookInstruments } from '../../src/server/webhook-instruments.ts';
import { type CertificateOptions, createCertificateAuthority } from '../fixtures/certificates.ts';
import type { Lifetime } from '../image/harness.ts';
import { v2Recipient } from '../image/packet-recipients.ts';
import { setUpRegistry } from '../image/transports/registry/harness.ts';

export const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
export const OTHER = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/b';

export type Answered = {
  readonly uid: string;
  readonly allowed: boolean;
  readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
  readonly warnings?: readonly string[];
  readonly patchType?: string;
  readonly patch?: string;
};

/** What is asked of a webhook from now on. */
export type Stage = {
  /** YAML; `REGISTRY` in it is the fake's address. */
  readonly policy?: string;
  readonly cluster?: Cluster;
  readonly record?: (event: AdmissionEvent) => Promise<void>;
  readonly unwrapper?: LayerKeyUnwrapper;
};

const POLICY = 'rules: [{name: all}]\nregistries: [REGISTRY]\nnodes: [{runtime: containerd}]\n';

/** A registry in which `app:1` is encrypted and has its digest tag, and `plain:2` is not encrypted. */
export async function startImages(t: Lifetime) {
  const registry = await setUpRegistry(t, { layers: [{}] });
  const { made, open } = registry;
  const layout = openLayout(made.directory, 'latest', 'oci:plain');
  const wrapped = { recipients: [v2Recipient([KEY])] };
  const { digest } = await encryptImage(layout, open('app:1', { digestTag: true }), wrapped);
  const plain = await layout.readRoot();
  await open('plain:2').writeRoot(createStoredManifest(plain.bytes, plain.mediaType));
  return { ...registry, digest };
}

/** A webhook beside a registry with {@link startImages}. Tests {@link Stage | stage} it. */
export async function startWorld(
  t: Lifetime,
  limits: Partial<WebLimits> = {},
  { perNamespace = 256, memory }: { readonly perNamespace?: number; readonly memory?: number } = {},
) {
  let now: Stage = {};
  const { directory, fake, open, digest } = await startImages(t);
  const authority = await createCertificateAuthority(join(directory, 'webhook'));
  const tls = { ...(await authority.issue('server', { usage: 'server' })), clientAuthority: undefined } as const;
  const environment = { HOME: directory, SSL_CERT_FILE: fake.authority, SSL_CERT_DIR: join(directory, 'none') };
  const events: AdmissionEvent[] = [];
  const instruments = new WebhookInstruments();
  const court = async (yaml: string) => ({
    policy: await parsePolicy(parse(yaml.replaceAll('REGISTRY', fake.host))),
    judge: new Judge({
      registry: { environment, authFile: join(directory, 'auth.json') },
      unwrapperFor({ unwrap }) {
        const { unwrapper } = now;
        return unwrap && unwrapper !== undefined ? () => unwrapper : undefined;
      },
      onVerdict: (source) => instruments.verdict(source),
      ...(memory === undefined ? {} : { memory }),
    }),
  });
  let current = await court(POLICY);
  const handler = createAdmission({
    court: () => current,
    cluster: {
      namespaceLabels: (...words) => now.cluster?.namespaceLabels(...words) ?? assert.fail('no cluster'),
      logins: (...words) => now.cluster?.logins(...words) ?? assert.fail('no cluster'),
    },
    perNamespace,
    record: (event) => now.record?.(event) ?? Promise.resolve(void events.push(event)),
    onReview: (...report) => instruments.review(...report),
    onImage: (outcome) => instruments.image(outcome),
  });
  const log = { info: () => undefined, warn: () => undefined };
  const server = await startWebhook({
    ...{ tls: { ...tls, minVersion: 'TLSv1.3' }, limits: { ...DEFAULT_WEB_LIMITS, ...limits }, instruments, log },
    listen: [{ kind: 'tls', host: '127.0.0.1', port: 0 }],
    policy: { handler, hasChanged: () => false, reread: async () => undefined },
    status: undefined,
    reopenLogs: () => false,
  });
  const agent = new Agent({ keepAlive: true, ca: await readFile(authority.certificate) });
  t.after(() => {
    agent.destroy();
    server.close();
    current.judge.close();
  });
  const address = (server.addresses[0] ?? '').replace('tls:', 'https:');
  /** Posts bytes as they are. */
  const post = (path: string, body: string | Uint8Array) => send(agent, `${address}${path}`, body);
  /** What is answered about a pod. */
  const ask = async (
    pod: object,
    { path = '/validate', ...more }: { readonly path?: string; readonly [member: string]: unknown } = {},
  ) => {
    const { status, body } = await post(path, JSON.stringify(review(pod, more)));
    assert.equal(status, 200, body);
    const { apiVersion, kind, response } = JSON.parse(body);
    assert.deepEqual([apiVersion, kind, response.uid], ['admission.k8s.io/v1', 'AdmissionReview', UID]);
    const answered: Answered = response;
    return answered;
  };
  const adopt = async (yaml: string) => {
    current.judge.close();
    current = await court(yaml);
  };
  /** Begins anew: by this policy, with all that was kept, recorded and broken forgotten. */
  const stage = async (next: Stage = {}) => {
    now = next;
    fake.fault = undefined;
    await adopt(next.policy ?? POLICY);
    fake.requests.splice(0);
    events.splice(0);
  };
  /** Replaces the webhook's certificate. */
  const issue = (wishes: Pick<CertificateOptions, 'expired'>) =>
    authority.issue('server', { usage: 'server', ...wishes });
  const image = (name: string) => `${fake.host}/${name}`;
  return {
    ...{ directory, fake, open, digest, events, instruments, server, agent, address },
    post,
    ask,
    adopt,
    stage,
    image,
    issue,
    certificate: tls.certificate,
  };
}

export const UID = '705ab4f5-6393-11e8-b7cc-42010a800002';

/** A review as API servers write them. @param more members of the request that differ */
export function review(pod: object, more: object = {}): object {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: UID,
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      name: 'web',
      namespace: 'shop',
      operation: 'CREATE',
      userInfo: { username: 'alice', groups: ['system:authenticated'] },
      object: pod,
      oldObject: null,
      dryRun: false,
      ...more,
    },
  };
}

/** A pod of containers with these images. */
export function podOf(...images: readonly string[]) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', labels: {} },
    spec: { containers: images.map((image, index) => ({ name: `c${index}`, image })) },
  };
}

/** What a patch says. */
export function patchOf({ patch = '', patchType }: Answered): unknown {
  return patchType === 'JSONPatch' ? JSON.parse(Buffer.from(patch, 'base64').toString()) : undefined;
}

/** Posts a document. */
export function send(
  agent: Agent,
  url: string,
  body: string | Uint8Array,
): Promise<{ readonly status: number; readonly body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly status: number; readonly body: string }>();
  const length = Buffer.byteLength(body);
  const outgoing = request(url, { agent, method: 'POST', headers: { 'content-length': length } }, (incoming) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
    incoming.on('error', reject);
  });
  outgoing.on('error', reject);
  outgoing.end(body);
  return promise;
}
