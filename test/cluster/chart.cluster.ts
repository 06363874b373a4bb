// The chart in a real cluster: the API server takes its objects, and its agent sets up a node on which encrypted images run.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { readProduct } from '../../tools/release/contents.ts';
import { succeed } from '../end-to-end/workspace.ts';
import { imageName } from '../nodes/images.ts';
import { createLab, type Lab } from '../nodes/lab.ts';
import type { Node } from '../nodes/node.ts';
import { copy } from '../real-clients/skopeo.ts';
import { released } from '../release/roots.ts';
import { applyChart, RELEASE } from './chart.ts';
import { type ControlPlane, startControlPlane, until } from './control-plane.ts';
import { kubeletLog, PATIENCE, startWorker } from './worker.ts';

const WORKER = 'worker-1';
const READY = 'ocicrypt-kms.io/ready';
const AGENTS = `daemonset/${RELEASE}-node`;
const DIRECTORY = '/opt/ocicrypt-kms/node';
const DROP_IN = '/etc/containerd/conf.d/ocicrypt-kms.toml';

let lab: Lab;
let plane: ControlPlane;
let node: Node;
const cleanups: (() => unknown)[] = [];
const context = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };

before(async () => {
  lab = await createLab(context, ['gzip', 'zstd']);
  const archive = `oci-archive:${released('*-image.tar')}:${readProduct().version}`;
  for (const tag of ['first', 'second']) {
    await succeed(copy(archive, lab.registry.reference(`${RELEASE}:${tag}`), { registry: lab.registry }));
  }
  plane = await startControlPlane(true);
  cleanups.push(plane.stop);
  node = await startWorker(context, lab, plane, WORKER);
  await plane.succeed(['create', 'namespace', RELEASE]);
  await plane.succeed(['wait', '--for=create', 'serviceaccount/default', '--timeout=60s']);
  await setKey(lab.key.file);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** The key of the node, as a Secret. */
async function setKey(file: string): Promise<void> {
  const data = { 'node.key': (await readFile(file)).toString('base64') };
  await plane.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys', namespace: RELEASE }, data });
}

/** Of one of the two versions. @param words for `kubectl apply` */
function install(tag: 'first' | 'second', words: readonly string[] = []): Promise<string> {
  const { hostname, port } = new URL(plane.url);
  const values = {
    image: { repository: `${lab.registry.host}/${RELEASE}`, tag },
    policy: { key: [`${DIRECTORY}/secrets/keys/node.key`] },
    secrets: ['keys'],
    node: { directory: DIRECTORY, period: '5s' },
  };
  // There is no network of pods: the agent is in the machine's, and is told where the API server is.
  const env = [
    { name: 'KUBERNETES_SERVICE_HOST', value: hostname },
    { name: 'KUBERNETES_SERVICE_PORT', value: port },
  ];
  const pod = { hostNetwork: true, containers: [{ name: 'agent', env }] };
  return applyChart(plane, lab.path('chart'), values, { spec: { template: { spec: pod } } }, words);
}

const agents = (...words: readonly string[]) => plane.succeed([...words, `--namespace=${RELEASE}`]);
const ofNode = (path: string) => plane.succeed(['get', `node/${WORKER}`, `--output=jsonpath=${path}`]);
const label = () => ofNode(`{.metadata.labels.${READY.replaceAll('.', '\\.')}}`);
const condition = () => ofNode('{.status.conditions[?(@.type=="OcicryptKmsReady")]}');

/** Waits for the node to be so, and says otherwise what the agent says. */
async function untilReady(expected: boolean): Promise<void> {
  try {
    await until(PATIENCE, `${READY} is ${expected}`, async () => ((await label()) === 'true') === expected);
  } catch (error) {
    const pods = await agents('describe', 'pods');
    const logs = await plane.kubectl(['get', 'events', '--all-namespaces']);
    const said = await node.run(['sh', '-c', 'cat /var/log/pods/*/*/*.log | tail -n 50']);
    const texts = [pods, logs.stdout, new TextDecoder().decode(said.stdout), (await kubeletLog(node)).slice(-3000)];
    throw new Error(texts.join('\n---\n'), { cause: error });
  }
}

/** Runs an encrypted image on a node that says that it is ready, to its end. */
async function runEncrypted(name: string, image: string): Promise<string> {
  await plane.apply({
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' } },
    spec: {
      ...{ hostNetwork: true, restartPolicy: 'Never', nodeSelector: { [READY]: 'true' } },
      containers: [{ name: 'main', image, imagePullPolicy: 'Always' }],
    },
  });
  await plane.succeed(['wait', `pod/${name}`, '--for=jsonpath={.status.phase}=Succeeded', '--timeout=120s']);
  const { stdout } = await node.run(['sh', '-c', `cat /var/log/pods/default_${name}_*/main/*.log`]);
  return new TextDecoder().decode(stdout);
}

test('the API server takes every object of the chart', async () => {
  const said = await install('first', ['--dry-run=server']);
  assert.match(said, /daemonset\.apps\/ocicrypt-kms-node/);
});

test('the agent sets the node up and labels it, and an encrypted image runs there', async () => {
  await install('first');
  await untilReady(true);
  assert.ok(existsSync(node.path(DROP_IN)));
  assert.match(await condition(), /"status":"True"/);
  assert.match(await runEncrypted('first', imageName(lab.registry, 'gzip')), / hello$/m);
});

test('upgraded, the node stays one that decrypts', async () => {
  await install('second');
  await agents('rollout', 'status', AGENTS, '--timeout=120s');
  await untilReady(true);
  assert.match(await runEncrypted('second', imageName(lab.registry, 'zstd')), / hello$/m);
});

test('what was removed from the node is put back', async () => {
  await node.run(['rm', DROP_IN]);
  await until(PATIENCE, 'the file is there again', async () => existsSync(node.path(DROP_IN)));
  await untilReady(true);
});

test('if the key cannot be used the label goes, condition and event say why, and a right one heals it', async () => {
  await plane.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys', namespace: RELEASE } },
    data: { 'node.key': Buffer.from('nonsense').toString('base64') },
  });
  await untilReady(false);
  assert.match(await condition(), /"status":"False"/);
  const events = await plane.succeed(['events', '--for', `node/${WORKER}`, '--types=Warning']);
  assert.match(events, /node\.key/);
  await setKey(lab.key.file);
  await untilReady(true);
});

test('an agent may change no other node, and of its own nothing else', async () => {
  await plane.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'other' } });
  const account = `${RELEASE}-node`;
  const pod = await agents('get', 'pods', '--output=jsonpath={.items[0].metadata.name}');
  const uid = await agents('get', `pod/${pod}`, '--output=jsonpath={.metadata.uid}');
  const token = (
    await agents(
      'create',
      'token',
      account,
      '--bound-object-kind=Pod',
      `--bound-object-name=${pod}`,
      `--bound-object-uid=${uid}`,
    )
  ).trim();
  const patch = (name: string, change: object) =>
    plane.asAccount(token, ['patch', `node/${name}`, '--type=merge', `--patch=${JSON.stringify(change)}`]);
  const other = await patch('other', { metadata: { labels: { [READY]: 'true' } } });
  assert.ok(other.exitCode !== 0 && other.stderr.includes('an agent changes the node on which it runs'), other.stderr);
  const taint = await patch(WORKER, { spec: { unschedulable: true } });
  assert.ok(taint.exitCode !== 0 && taint.stderr.includes('does not change how its node is used'), taint.stderr);
  const role = await patch(WORKER, { metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } } });
  assert.ok(role.exitCode !== 0 && role.stderr.includes('and no other'), role.stderr);
});

test('uninstalled, the node is as it was before', async () => {
  await agents('delete', AGENTS, '--cascade=foreground', '--timeout=120s');
  assert.deepEqual(
    [await label(), existsSync(node.path(DROP_IN)), existsSync(node.path(DIRECTORY))],
    ['', false, false],
  );
  assert.equal(await condition(), '');
});
