// The agent of a cluster on a real containerd, beside an API server that holds its node: in a container, which it leaves.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { executable } from '../end-to-end/workspace.ts';
import { FAKE_DAEMON_SET, FakeKubernetes } from '../fakes/kubernetes.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { pull } from './clients.ts';
import { imageName } from './images.ts';
import { createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { CHOSEN } from './software.ts';
import { addSystemd, SYSTEMD_PROGRAMS, systemctlCalls } from './systemd.ts';

const CONFIG = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/ocicrypt-kms.toml';
const DIRECTORY = '/opt/ocicrypt-kms/node';
const ACCOUNT = '/run/secrets/kubernetes.io/serviceaccount';
const NODE = 'node-1.example';

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, ['gzip']);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** A container: mounts of its own, with a root whose /opt and /etc/containerd are not the node's. */
const CONTAINER = `mount --make-rprivate /
mount -t tmpfs tmpfs /opt; mount -t tmpfs tmpfs /etc/containerd; mount --bind "$SOURCE" /srv
exec "$@"`;

/** An agent in it, told what the chart tells it. */
const AGENT: readonly string[] = [
  ...['unshare', '--mount', 'sh', '-c', CONTAINER, 'sh', executable(), 'node', 'agent'],
  ...[`--node=${NODE}`, `--daemon-set=${FAKE_DAEMON_SET}`, '--source=/srv', `--directory=${DIRECTORY}`],
  ...['--period=2s', '--status=unix:///run/agent/status'],
];
const PATIENCE = 60_000;

async function until(node: Node, isTrue: () => unknown): Promise<void> {
  const log = node.path('/run/agent.log');
  for (const end = Date.now() + PATIENCE; !(await isTrue()); await pause(100))
    assert.ok(Date.now() < end, existsSync(log) ? readFileSync(log, 'utf8') : 'nothing was started');
}

/** One containerd: what differs between them is the affair of install.nodes.ts. */
const [containerd] = CHOSEN.slice(-1);
assert.ok(containerd !== undefined);

test(`the agent on containerd ${containerd}`, async (t) => {
  const directory = lab.path('cluster');
  const authority = await createCertificateAuthority(directory);
  const kubernetes = new FakeKubernetes(NODE);
  const server = await kubernetes.listen(await authority.issue('server'));
  t.after(() => server.close());
  const node = await lab.start(t, { containerd, programs: SYSTEMD_PROGRAMS });
  await addSystemd(node);
  // On the machine the agent finds programs where services do, whatever a container's PATH says.
  await node.run(['mount', '--bind', SYSTEMD_PROGRAMS.systemctl, '/usr/bin/systemctl']);
  const config = readFileSync(node.path(CONFIG), 'utf8');
  await node.write(`${ACCOUNT}/ca.crt`, await readFile(authority.certificate, 'utf8'));
  await node.write(`${ACCOUNT}/token`, kubernetes.token);
  const source = join(directory, 'source');
  for (const place of ['policy', 'secrets/keys']) await mkdir(join(source, place), { recursive: true });
  await copyFile(lab.key.file, join(source, 'secrets/keys/app.key'));
  const setPolicy = (text: string) => writeFile(join(source, 'policy/config.yaml'), text);
  const good = `key: [${DIRECTORY}/secrets/keys/app.key]\n`;
  await setPolicy(good);
  const variables = [
    ...[`SOURCE=${source}`],
    ...['KUBERNETES_SERVICE_HOST=127.0.0.1', `KUBERNETES_SERVICE_PORT=${server.port}`],
  ];
  const start = () => node.start('agent', ['env', ...variables, ...AGENT]);
  const isLabelled = () => kubernetes.labels['ocicrypt-kms.io/ready'] === 'true';
  const restarts = async () => (await systemctlCalls(node)).filter((call) => call.startsWith('restart')).length;
  const reasons = () => kubernetes.events.map(({ reason }) => reason);

  await t.test('sets the node up, tries it, and labels it', async () => {
    await start();
    await until(node, isLabelled);
    assert.equal(kubernetes.condition?.status, 'True');
    assert.equal(await restarts(), 1);
    const { exitCode, text } = await pull(node, 'CRI', imageName(lab.registry, 'gzip'));
    assert.equal(exitCode, 0, text);
    assert.equal(statSync(node.path(`${DIRECTORY}/secrets/keys/app.key`)).mode & 0o777, 0o600);
    // The container's own /opt is another one.
    assert.ok(existsSync(node.path(`${DIRECTORY}/bin/ocicrypt-kms`)));
  });
  await t.test('a policy that is broken takes the label away and says why; the old one goes on', async () => {
    await setPolicy('keys: []\n');
    await until(node, () => kubernetes.condition?.reason === 'NotSetUp');
    assert.deepEqual([isLabelled(), reasons()], [false, ['Decrypts', 'NotSetUp']]);
    assert.match(kubernetes.condition?.message ?? '', /unknown member "keys"/);
    await setPolicy(good);
    await until(node, isLabelled);
    assert.equal(await restarts(), 1);
  });
  await t.test('what is removed on the node is brought back, with a token that was renewed meanwhile', async () => {
    kubernetes.token = 'second-token';
    await node.write(`${ACCOUNT}/token`, kubernetes.token);
    await node.run(['rm', DROP_IN]);
    await until(node, () => reasons().includes('CheckFailed'));
    await until(node, isLabelled);
    assert.ok(existsSync(node.path(DROP_IN)));
  });
  await t.test('while the API server is away nothing changes on the node, and it is told afterwards', async () => {
    kubernetes.refuse = () => 503;
    await node.run(['rm', `${DIRECTORY}/secrets/keys/app.key`]);
    await pause(3000);
    assert.ok(isLabelled());
    kubernetes.refuse = () => undefined;
    await until(node, () => isLabelled() && existsSync(node.path(`${DIRECTORY}/secrets/keys/app.key`)));
  });
  await t.test('a key that is withdrawn goes from the node', async () => {
    await rename(join(source, 'secrets/keys/app.key'), join(source, 'secrets/keys/other.key'));
    await setPolicy(good.replace('app.key', 'other.key'));
    await until(node, () => !existsSync(node.path(`${DIRECTORY}/secrets/keys/app.key`)));
    await until(node, () => readFileSync(node.path('/etc/ocicrypt-kms/config.yaml'), 'utf8').includes('other.key'));
    await until(node, isLabelled);
  });
  await t.test('a disk that became read-only does not stop a node that decrypts', async () => {
    await node.run(['mount', '-o', 'remount,ro', '/opt']);
    await pause(5000);
    assert.ok(isLabelled());
    await node.run(['mount', '-o', 'remount,rw', '/opt']);
  });
  await t.test('agents of another owner leave the node alone', async () => {
    const task = { owner: 'other/agents', directory: DIRECTORY, files: null, words: ['node', 'uninstall'] };
    const { exitCode, stderr } = await node.run(['unshare', '--mount', executable(), 'node', 'host'], {
      stdin: new TextEncoder().encode(JSON.stringify(task)),
    });
    assert.equal(exitCode, 77, stderr);
    assert.match(stderr, /those of kube-system\/ocicrypt-kms-node/);
  });
  await t.test('ended for a new version, it leaves everything as it is', async () => {
    await node.kill('agent');
    assert.ok(isLabelled() && existsSync(node.path(DROP_IN)));
    const log = node.path('/run/agent.log');
    await rm(log);
    await start();
    await until(node, () => existsSync(log) && readFileSync(log, 'utf8').includes('the node decrypts'));
  });
  await t.test('ended because its DaemonSet is deleted, it undoes the node', async () => {
    kubernetes.daemonSet = { isDeleted: true, pods: 1 };
    await node.kill('agent');
    assert.deepEqual([isLabelled(), kubernetes.condition], [false, undefined]);
    assert.equal(readFileSync(node.path(CONFIG), 'utf8'), config);
    const left = [DROP_IN, '/opt/ocicrypt-kms', '/etc/ocicrypt-kms/config.yaml'].filter((path) =>
      existsSync(node.path(path)),
    );
    assert.deepEqual(left, []);
  });
});
