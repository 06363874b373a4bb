// The chart in a whole cluster: its agent sets up a node, encrypted images run there, and it goes without a trace.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { readProduct } from '../../tools/release/contents.ts';
import { succeed } from '../end-to-end/workspace.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { writeImage } from '../fixtures/images.ts';
import { imageName } from '../nodes/images.ts';
import { createLab, type Lab } from '../nodes/lab.ts';
import type { Node } from '../nodes/node.ts';
import { findPort } from '../peers/started.ts';
import { copy } from '../real-clients/skopeo.ts';
import { released } from '../release/roots.ts';
import { addReleaseNamespace, CHART, helm, RELEASE } from './chart.ts';
import { type ControlPlane, startControlPlane, until } from './control-plane.ts';
import { kubeletLog, PATIENCE, startWorker } from './worker.ts';

const WORKER = 'worker-1';
const READY = 'ocicrypt-kms.io/ready';
const AGENTS = `daemonset/${RELEASE}-node`;
const DIRECTORY = '/opt/ocicrypt-kms/node';
const CONFIG = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/ocicrypt-kms.toml';
/** As API servers name it in the configuration that docs/admission.md describes. */
const WEBHOOK_HOST = `${RELEASE}-admission.${RELEASE}.svc`;
const SOCKET = '/run/ocicrypt-kms/ocicrypt-kms.sock';
/** All that there may be of ours on a node. */
const OURS = [
  ...[DROP_IN, '/opt/ocicrypt-kms', '/etc/ocicrypt-kms/config.yaml', '/var/lib/ocicrypt-kms/node'],
  dirname(SOCKET),
];

let lab: Lab;
let plane: ControlPlane;
let node: Node;
let port: number;
let configBefore: string;
const cleanups: (() => unknown)[] = [];
const context = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };

before(async () => {
  lab = await createLab(context, ['gzip', 'zstd']);
  const archive = `oci-archive:${released('*-image.tar')}:${readProduct().version}`;
  for (const tag of ['first', 'second'])
    await succeed(copy(archive, lab.registry.reference(`${RELEASE}:${tag}`), { registry: lab.registry }));
  const programs = ['kube-controller-manager', 'kube-scheduler'] as const;
  plane = await startControlPlane({ programs, webhooks: [WEBHOOK_HOST], isMachineNetwork: true });
  cleanups.push(plane.stop);
  port = await findPort();
  node = await startWorker(context, lab, plane, WORKER);
  configBefore = await readFile(node.path(CONFIG), 'utf8');
  await addReleaseNamespace(plane);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** The keys of the node, as a Secret: files by the names of its members. */
async function setKeys(files: Readonly<Record<string, string>>): Promise<void> {
  const read = async ([name, file]: readonly [string, string]) => [name, (await readFile(file)).toString('base64')];
  const data = Object.fromEntries(await Promise.all(Object.entries(files).map(read)));
  await plane.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys', namespace: RELEASE }, data });
}

/** Of one of the two versions, with a policy of these members of the Secret. */
function values(tag: 'first' | 'second', keys: readonly string[]): object {
  return {
    image: { repository: `${lab.registry.host}/${RELEASE}`, tag },
    policy: { key: keys.map((name) => `${DIRECTORY}/secrets/keys/${name}`) },
    secrets: ['keys'],
    node: { period: '5s', port },
  };
}

const agents = (...words: readonly string[]) => plane.succeed([...words, `--namespace=${RELEASE}`]);
const ofNode = (path: string) => plane.succeed(['get', `node/${WORKER}`, `--output=jsonpath=${path}`]);
const label = () => ofNode(`{.metadata.labels.${READY.replaceAll('.', '\\.')}}`);
const condition = () => ofNode('{.status.conditions[?(@.type=="OcicryptKmsReady")]}');
/** Those that the agents wrote of this reason, a line each. */
const events = (reason: string) =>
  plane.succeed([
    ...['get', 'events', '--namespace=default', `--field-selector=involvedObject.kind=Node,reason=${reason}`],
    '--output=jsonpath={range .items[*]}{.type} {.message}{"\\n"}{end}',
  ]);

/** Waits for something of the node, and says otherwise what all concerned have said. */
async function awaitNode(what: string, holds: () => Promise<boolean>): Promise<void> {
  try {
    await until(PATIENCE, what, holds);
  } catch (error) {
    const pods = await plane.kubectl(['describe', 'pods', '--all-namespaces']);
    const all = await plane.kubectl(['get', 'events', '--all-namespaces']);
    const said = await node.run(['sh', '-c', 'tail -n 50 /var/log/pods/*/*/*.log']);
    const texts = [
      pods.stdout,
      all.stdout,
      new TextDecoder().decode(said.stdout),
      (await kubeletLog(node)).slice(-3000),
    ];
    throw new Error(texts.join('\n---\n'), { cause: error });
  }
}

const untilReady = (expected: boolean) =>
  awaitNode(`${READY} is ${expected}`, async () => ((await label()) === 'true') === expected);

/** A pod of an encrypted image, for nodes that say that they are ready. */
async function addPod(name: string, image: string): Promise<void> {
  await plane.apply({
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' } },
    spec: {
      ...{ restartPolicy: 'Never', nodeSelector: { [READY]: 'true' } },
      containers: [{ name: 'main', image, imagePullPolicy: 'Always' }],
    },
  });
}

/** An image that no node has decrypted before. @returns its name */
async function pushNew(name: string, key: string): Promise<string> {
  await lab.push(name, key, []);
  return `${lab.registry.host}/${name}:1`;
}

/** Waits for the end of a pod. @returns what it has printed */
async function outputOf(name: string): Promise<string> {
  const phase = () => plane.succeed(['get', `pod/${name}`, '--output=jsonpath={.status.phase}']);
  await awaitNode(`${name} has ended well`, async () => (await phase()) === 'Succeeded');
  const { stdout } = await node.run(['sh', '-c', `cat /var/log/pods/default_${name}_*/main/*.log`]);
  return new TextDecoder().decode(stdout);
}

test('no pod with an encrypted image comes to a node that does not say it is ready', async () => {
  await addPod('early', imageName(lab.registry, 'gzip'));
  const reason = ['get', 'pod/early', '--output=jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}'];
  await awaitNode('it has no node', async () => /node affinity\/selector/.test(await plane.succeed(reason)));
});

test('installed, the agent sets the node up and labels it, and the pod runs there', async (t) => {
  await setKeys({ 'node.key': lab.key.file });
  const begun = performance.now();
  await helm(plane, ['install', RELEASE, CHART], values('first', ['node.key']));
  await untilReady(true);
  t.diagnostic(`a node is ready after ${Math.round(performance.now() - begun)} ms`);
  assert.ok(existsSync(node.path(DROP_IN)));
  assert.match(await condition(), /"status":"True"/);
  assert.match(await events('Decrypts'), /^Normal .*containerd/m);
  assert.match(await outputOf('early'), / hello$/m);
  await agents('rollout', 'status', AGENTS, '--timeout=60s');
  // Nothing went wrong before, as for want of memory: the pod has no more than the chart gives it.
  assert.equal((await events('NotSetUp')) + (await events('CheckFailed')), '');
});

test('upgraded to another version of chart and image, with another policy, the node opens what that names', async () => {
  const second = await lab.keygen('second.key');
  const image = await pushNew('for-second', second.uri);
  await setKeys({ 'node.key': lab.key.file, 'second.key': second.file });
  const chart = lab.path('chart');
  await cp(CHART, chart, { recursive: true });
  const file = join(chart, 'Chart.yaml');
  await writeFile(file, (await readFile(file, 'utf8')).replace(/^version: .*$/m, 'version: 9.9.9'));
  await helm(plane, ['upgrade', RELEASE, chart], values('second', ['node.key', 'second.key']));
  await agents('rollout', 'status', AGENTS, '--timeout=120s');
  assert.match(await agents('get', 'pods', '--output=jsonpath={.items[*].spec.containers[*].image}'), /:second$/);
  assert.match(await agents('get', AGENTS, '--show-labels'), /ocicrypt-kms-9\.9\.9/);
  await untilReady(true);
  await addPod('upgraded', image);
  assert.match(await outputOf('upgraded'), / hello$/m);
});

test('a label that somebody removes comes back', async () => {
  await plane.succeed(['label', `node/${WORKER}`, `${READY}-`]);
  await untilReady(true);
});

test('what was removed from the node is found by the next trial, said by an event, and put back', async () => {
  await node.run(['rm', DROP_IN]);
  await awaitNode('the event', async () => (await events('CheckFailed')) !== '');
  assert.match(await events('CheckFailed'), /^Warning .*containerd/m);
  await untilReady(true);
  assert.ok(existsSync(node.path(DROP_IN)));
});

test('if the key cannot be used the label goes, condition and event say why, and a right one heals it', async () => {
  await writeFile(lab.path('nonsense'), 'nonsense');
  await setKeys({ 'node.key': lab.path('nonsense'), 'second.key': lab.path('nonsense') });
  await untilReady(false);
  assert.match(await condition(), /"status":"False"/);
  assert.match(await condition(), /node\.key/);
  assert.match((await events('NotSetUp')) + (await events('CheckFailed')), /^Warning .*node\.key/m);
  await addPod('waiting', imageName(lab.registry, 'zstd'));
  await setKeys({ 'node.key': lab.key.file, 'second.key': lab.path('second.key') });
  await untilReady(true);
  assert.match(await outputOf('waiting'), / hello$/m);
});

test('with servers in pods the node has no key, and opens layers by their socket; and back', async () => {
  const upgrade = ['upgrade', RELEASE, CHART, '--reuse-values', '--wait', '--timeout=3m'];
  const status = await findPort();
  await helm(plane, upgrade, { server: { enabled: true, port: status } });
  const policyOfNode = () => readFile(node.path('/etc/ocicrypt-kms/config.yaml'), 'utf8');
  await awaitNode('the node asks the server', async () => (await policyOfNode()).includes(`unix://${SOCKET}`));
  assert.doesNotMatch(await policyOfNode(), /node\.key/);
  await untilReady(true);
  await addPod('by-server', await pushNew('by-server', lab.key.uri));
  assert.match(await outputOf('by-server'), / hello$/m);
  const metrics = await (await fetch(`http://127.0.0.1:${status}/metrics`)).text();
  assert.match(metrics, /^ocicrypt_kms_requests_total\{operation="unwrap",[^}]*code="ok"\} [1-9]/m);
  await helm(plane, upgrade, { server: { enabled: false } });
  await awaitNode('the node has its keys again', async () => (await policyOfNode()).includes('node.key'));
  await untilReady(true);
});

test('with the webhook of the chart, a plain image is kept out, and an encrypted one is pinned and runs', async () => {
  const plain = await writeImage(lab.path('plain'), {});
  await succeed(copy(plain.reference, lab.registry.reference('plain:1'), { registry: lab.registry }));
  const authority = await createCertificateAuthority(lab.path('webhook'));
  const names = [WEBHOOK_HOST];
  const { certificate, privateKey } = await authority.issue('webhook', { usage: 'server', names });
  const inRelease = `--namespace=${RELEASE}`;
  const create = ['create', inRelease];
  await plane.succeed([...create, 'secret', 'tls', 'webhook', `--cert=${certificate}`, `--key=${privateKey}`]);
  await plane.succeed([...create, 'secret', 'generic', 'registry', `--from-file=ca.crt=${lab.registry.authority}`]);
  await plane.succeed([...create, 'configmap', 'callers', `--from-file=ca.crt=${plane.callers.certificate}`]);
  const admission = {
    ...{ enabled: true, replicas: 1, port: await findPort(), clientCA: 'callers', secrets: ['registry'] },
    args: ['--ca=/etc/ocicrypt-kms/secrets/registry/ca.crt'],
    certificate: { secretName: 'webhook', caBundle: (await readFile(authority.certificate)).toString('base64') },
    policy: {
      registries: [lab.registry.host],
      nodes: [{ runtime: 'containerd' }],
      rules: [{ name: 'encrypted', require: [lab.key.thumbprint] }],
    },
  };
  const kept = ['--reuse-values', '--wait', '--timeout=2m'];
  await helm(plane, ['upgrade', RELEASE, CHART, ...kept], { admission });
  const run = ['run', 'plain', `--image=${lab.registry.host}/plain:1`];
  await awaitNode('the webhook answers', async () =>
    /is not encrypted as it must be/.test((await plane.kubectl(run)).stderr),
  );
  await addPod('pinned', await pushNew('pinned', lab.key.uri));
  const image = await plane.succeed(['get', 'pod/pinned', '--output=jsonpath={.spec.containers[*].image}']);
  assert.match(image, /@sha256:[0-9a-f]{64}$/);
  assert.match(await outputOf('pinned'), / hello$/m);
});

test('uninstalled, the node is as it was before, and nothing of the chart is left', async (t) => {
  const restarts = ['get', 'pods', '--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}'];
  assert.match(await agents(...restarts), /^0( 0)*$/);
  const begun = performance.now();
  await helm(plane, ['uninstall', RELEASE, '--timeout=5m']);
  t.diagnostic(`helm uninstall took ${Math.round(performance.now() - begun)} ms`);
  assert.deepEqual([await label(), await condition()], ['', '']);
  assert.deepEqual(
    OURS.filter((path) => existsSync(node.path(path))),
    [],
  );
  assert.equal(await readFile(node.path(CONFIG), 'utf8'), configBefore);
  const kinds = 'daemonsets,jobs,pods,configmaps,serviceaccounts,roles,rolebindings';
  const cluster = 'clusterroles,clusterrolebindings,priorityclasses,validatingadmissionpolicies';
  const selected = `--selector=app.kubernetes.io/instance=${RELEASE}`;
  const left = ['get', `${kinds},${cluster}`, '--all-namespaces', selected, '--output=name'];
  await awaitNode('nothing of the chart is left', async () => (await plane.succeed(left)) === '');
  assert.equal(await events('UninstallFailed'), '');
});
