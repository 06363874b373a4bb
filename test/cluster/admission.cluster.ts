// The admission webhook before a real API server: what kubectl prints, what becomes of pods, and what an attacker may try.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { after, before, test } from 'node:test';
import { writeImage } from '../fixtures/images.ts';
import { startFakeRegistry } from '../image/transports/registry/fake-registry.ts';
import { imageName } from '../nodes/images.ts';
import { createLab, type Lab } from '../nodes/lab.ts';
import { findPort } from '../peers/started.ts';
import { copy } from '../real-clients/skopeo.ts';
import { type ControlPlane, startControlPlane, until } from './control-plane.ts';
import { addNamespace, guard, SERVER_NAME, startWebhook, TIMEOUT, WEBHOOK, type Webhook } from './webhook.ts';

const MANY_PODS = 200;
const MANY_CONTAINERS = 1000;
/** Nothing listens there. */
const DOWN = '127.0.0.1:1';
const DIGEST = /@sha256:[0-9a-f]{64}$/;

let lab: Lab;
let plane: ControlPlane;
let webhook: Webhook;
let silent: string;
const cleanups: (() => unknown)[] = [];
const context = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };

before(async () => {
  lab = await createLab(context, ['gzip', 'zstd']);
  const { directory } = lab;
  const plain = await writeImage(`${directory}/plain`, {});
  await copy(plain.reference, lab.registry.reference('plain:1'), { registry: lab.registry });
  const port = await findPort();
  plane = await startControlPlane({ programs: ['kube-controller-manager'], webhooks: [`${SERVER_NAME}:${port}`] });
  cleanups.push(plane.stop);
  const fake = await startFakeRegistry(context, directory);
  // It takes every request and never answers.
  fake.fault = () => true;
  silent = fake.host;
  const options = [`--ca=${lab.registry.authority}`, `--ca=${fake.authority}`, `--key=${lab.key.file}`];
  webhook = await startWebhook(context, plane, directory, policy(), { port, options });
  for (const name of ['guarded', 'opened', 'warned', 'tried', 'crowd', 'hostile', 'renewed', 'reloaded'])
    await guard(plane, name);
  for (const name of ['free', 'bare']) await addNamespace(plane, name);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** @param rule members of the rule of the namespace `reloaded` */
function policy(rule: object = { require: [lab.key.thumbprint] }) {
  const demands = { require: [lab.key.thumbprint] };
  return {
    registries: [lab.registry.host, silent, DOWN],
    nodes: [{ runtime: 'containerd' }],
    rules: [
      { name: 'warned', namespaces: ['warned'], mode: 'warn', ...demands },
      { name: 'tried', namespaces: ['tried'], mode: 'dry-run', ...demands },
      { name: 'opened', namespaces: ['opened'], unwrap: true, ...demands },
      { name: 'reloaded', namespaces: ['reloaded'], ...rule },
      { name: 'encrypted', ...demands },
    ],
  };
}

const run = (namespace: string, name: string, image: string, ...words: readonly string[]) =>
  plane.kubectl(['run', name, `--namespace=${namespace}`, `--image=${image}`, '--restart=Never', ...words]);
const imageOf = (namespace: string, name: string) =>
  plane.succeed(['get', `pod/${name}`, `--namespace=${namespace}`, '--output=jsonpath={.spec.containers[*].image}']);
const plain = () => `${lab.registry.host}/plain:1`;
const denial = (sentence: string) =>
  `Error from server (Forbidden): admission webhook "${WEBHOOK}" denied the request: ${sentence}\n`;

test('a plain image is denied, and kubectl prints why', async () => {
  const { exitCode, stderr } = await run('guarded', 'plain', plain());
  assert.equal(exitCode, 1);
  assert.equal(
    stderr,
    denial(
      `pod guarded/plain: container "plain" ${plain()} is not encrypted as it must be: ` +
        'linux/amd64: layer 0 is plain (application/vnd.oci.image.layer.v1.tar+gzip) (rule encrypted)',
    ),
  );
});

test('an encrypted image is admitted, and pinned to its digest', async () => {
  const { exitCode, stderr } = await run('guarded', 'encrypted', imageName(lab.registry, 'gzip'));
  assert.deepEqual([exitCode, stderr], [0, '']);
  const image = await imageOf('guarded', 'encrypted');
  assert.ok(image.startsWith(`${lab.registry.host}/gzip@`) && DIGEST.test(image), image);
});

test('only the API server, which shows its certificate, is answered', async () => {
  const ca = await readFile(webhook.authority.certificate);
  const call = request({
    host: '127.0.0.1',
    port: webhook.port,
    method: 'POST',
    path: '/validate',
    ca,
    servername: SERVER_NAME,
  });
  await assert.rejects(once(call.end('{}'), 'response'), { code: /CERTIFICATE_REQUIRED|ECONNRESET/ });
});

test('a rule may ask that keys really open the layers', async () => {
  const { exitCode, stderr } = await run('opened', 'encrypted', imageName(lab.registry, 'gzip'));
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.equal((await run('opened', 'plain', plain())).exitCode, 1);
});

test('every container counts: those of initialization, and those that are added later', async () => {
  const containers = [{ name: 'main', image: imageName(lab.registry, 'gzip') }];
  const pod = (name: string, spec: object) => ({ ...podOf('guarded', name, containers[0]?.image ?? ''), spec });
  const { status, body } = await plane.post(
    PODS('guarded'),
    pod('first', { containers, initContainers: [{ name: 'early', image: plain() }] }),
  );
  assert.equal(status, 403, body);
  assert.match(body, /init container \\"early\\"/);
  await run('guarded', 'debugged', imageName(lab.registry, 'gzip'));
  const { exitCode, stderr } = await plane.kubectl([
    ...['debug', 'pod/debugged', '--namespace=guarded', `--image=${plain()}`, '--container=late', '--attach=false'],
  ]);
  assert.ok(exitCode !== 0 && stderr.includes('ephemeral container "late"'), stderr);
});

test('a pod that a Deployment wants: the event of its ReplicaSet says why there is none', async () => {
  await plane.succeed(['create', 'deployment', 'plain', '--namespace=guarded', `--image=${plain()}`]);
  const selected = '--field-selector=involvedObject.kind=ReplicaSet,reason=FailedCreate';
  const messages = () =>
    plane.succeed(['get', 'events', '--namespace=guarded', selected, '--output=jsonpath={.items[*].message}']);
  await until(60_000, 'the event is there', async () => (await messages()) !== '');
  assert.match(
    await messages(),
    new RegExp(
      `^Error creating: admission webhook "${WEBHOOK}" denied the request: pod guarded/plain-\\S+: container "plain" ` +
        `${plain()} is not encrypted as it must be: linux/amd64: layer 0 is plain \\(\\S+\\) \\(rule encrypted\\)`,
    ),
  );
});

test('a registry that never answers: denied in time, and what waits beside is not kept', async (t) => {
  const begun = performance.now();
  const waiting = run('guarded', 'silent', `${silent}/image:1`);
  const { exitCode, stderr } = await run('guarded', 'beside', imageName(lab.registry, 'zstd'));
  assert.deepEqual([exitCode, stderr], [0, '']);
  const beside = performance.now() - begun;
  const { exitCode: refused, stderr: said } = await waiting;
  const milliseconds = performance.now() - begun;
  assert.equal(refused, 1);
  assert.match(said, /denied the request: .* cannot be judged: /);
  t.diagnostic(`a registry that never answers: denied after ${Math.round(milliseconds)} ms`);
  // The one that pins waits as well as the one that judges.
  assert.ok(milliseconds < 2 * TIMEOUT * 1000 && beside < milliseconds, `${milliseconds} ms, ${beside} ms beside`);
});

test('a registry that is down: denied in time, and the reason is said', async (t) => {
  const begun = performance.now();
  const { exitCode, stderr } = await run('guarded', 'down', `${DOWN}/image:1`);
  t.diagnostic(`a registry that is down: denied after ${Math.round(performance.now() - begun)} ms`);
  assert.equal(exitCode, 1);
  assert.match(stderr, /cannot be judged: .*127\.0\.0\.1:1/);
  const stranger = await run('guarded', 'stranger', '127.0.0.1:2/image:1');
  assert.ok(stranger.stderr.includes('the policy does not list the registry 127.0.0.1:2'), stranger.stderr);
});

test('a rule that warns: kubectl prints it, and the pod is made', async () => {
  const { exitCode, stderr } = await run('warned', 'plain', plain());
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /^Warning: container "plain" \S+ is not encrypted as it must be: .*\n$/);
});

test('a rule that only counts: nothing is printed, and the metrics know', async () => {
  const { exitCode, stderr } = await run('tried', 'plain', plain());
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(await webhook.metrics(), /outcome="would-deny"\} [1-9]/);
});

test('what is only tried with --dry-run=server is judged as well', async () => {
  const { exitCode, stderr } = await run('guarded', 'tried', plain(), '--dry-run=server');
  assert.ok(exitCode === 1 && stderr.includes('is not encrypted as it must be'), stderr);
  const good = await run('guarded', 'tried', imageName(lab.registry, 'gzip'), '--dry-run=server');
  assert.deepEqual([good.exitCode, good.stderr], [0, '']);
});

test('another policy holds once it is read', async () => {
  const other = await lab.keygen('other.key');
  const image = imageName(lab.registry, 'gzip');
  assert.equal((await run('reloaded', 'before', image)).exitCode, 0);
  await webhook.setPolicy(policy({ require: [other.thumbprint] }));
  const { exitCode, stderr } = await run('reloaded', 'after', image);
  assert.ok(exitCode === 1 && stderr.includes('(rule reloaded)'), stderr);
  await webhook.setPolicy(policy());
  assert.equal((await run('reloaded', 'again', image)).exitCode, 0);
});

test(`${MANY_PODS} pods at once are admitted and pinned`, async (t) => {
  const image = imageName(lab.registry, 'gzip');
  const create = (namespace: string) =>
    Promise.all(
      Array.from({ length: MANY_PODS }, async (_, index) => {
        const begun = performance.now();
        const { status, body } = await plane.post(PODS(namespace), podOf(namespace, `pod-${index}`, image));
        assert.equal(status, 201, body);
        return { milliseconds: performance.now() - begun, images: imagesOf(body) };
      }),
    );
  // What the API server takes by itself, on the same connections.
  await create('free');
  const bare = await create('bare');
  const judged = await create('crowd');
  for (const { images } of judged) assert.match(images.join(), DIGEST);
  for (const [what, made] of [
    ['without the webhook', bare],
    ['judged and pinned', judged],
  ] as const) {
    const times = made.map(({ milliseconds }) => milliseconds).toSorted((one, other) => one - other);
    const [p50 = 0, p99 = 0] = [0.5, 0.99].map((part) => times[Math.ceil(part * times.length) - 1]);
    t.diagnostic(`${MANY_PODS} creations at once, ${what}: p50 ${Math.round(p50)} ms, p99 ${Math.round(p99)} ms`);
  }
});

test(`a pod of ${MANY_CONTAINERS} containers`, async (t) => {
  const image = imageName(lab.registry, 'gzip');
  const containers = Array.from({ length: MANY_CONTAINERS }, (_, index) => ({ name: `c${index}`, image }));
  const begun = performance.now();
  const { status, body } = await plane.post(PODS('hostile'), {
    ...podOf('hostile', 'many', image),
    spec: { containers },
  });
  t.diagnostic(`${MANY_CONTAINERS} containers of one image: ${Math.round(performance.now() - begun)} ms`);
  assert.equal(status, 201, body.slice(0, 2000));
  const images = imagesOf(body);
  assert.ok(images.length === MANY_CONTAINERS && images.every((one) => DIGEST.test(one)));
  // Each has another image, which is not there: all are asked for, or the time is up.
  const others = containers.map(({ name }, index) => ({ name, image: `${lab.registry.host}/none-${index}:1` }));
  const { status: refused, body: said } = await plane.post(PODS('hostile'), {
    ...podOf('hostile', 'others', image),
    spec: { containers: others },
  });
  assert.equal(refused, 403, said.slice(0, 2000));
  assert.ok(said.length < 4000, said.slice(0, 2000));
  assert.equal((await run('hostile', 'afterwards', image)).exitCode, 0);
});

test('what drives a terminal is not printed', async () => {
  const evil = '\u001b[2Jgood\u202e\r\n';
  const pod = podOf('hostile', 'evil', `${lab.registry.host}/plain:1${evil}x`);
  const { status, body } = await plane.post(PODS('hostile'), {
    ...pod,
    metadata: { ...pod.metadata, annotations: { note: evil } },
  });
  assert.ok(status === 403 || status === 422, body);
  const { message } = JSON.parse(body);
  for (const character of evil.match(/[^ -~]/gu) ?? [])
    assert.ok(!message.includes(character), JSON.stringify(message));
  assert.ok(![...webhook.log()].some((character) => character !== '\n' && /[^ -~]/.test(character)), webhook.log());
});

test('a certificate that has expired keeps every pod out until it is renewed', async () => {
  await webhook.renew({ expired: true });
  // The API server keeps the connections that it has; more pods at once take more of them.
  const image = imageName(lab.registry, 'gzip');
  await until(60_000, 'it is refused', async () => {
    const pods = Array.from({ length: MANY_PODS }, (_, index) => podOf('renewed', `pod-${index}`, image));
    const answers = await Promise.all(pods.map((pod) => plane.post(`${PODS('renewed')}?dryRun=All`, pod)));
    return answers.some(({ status, body }) => status === 500 && body.includes('certificate has expired'));
  });
  await webhook.renew();
  await until(60_000, 'pods are made again', async () => {
    return (await run('renewed', `pod-${Date.now()}`, imageName(lab.registry, 'gzip'))).exitCode === 0;
  });
});

const PODS = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`;

function podOf(namespace: string, name: string, image: string) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: { containers: [{ name: 'main', image }] },
  };
}

/** The images of the pod that the API server has answered with. */
function imagesOf(body: string): readonly string[] {
  const pod: { readonly spec: { readonly containers: readonly { readonly image: string }[] } } = JSON.parse(body);
  return pod.spec.containers.map(({ image }) => image);
}
