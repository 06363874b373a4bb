// How a node of a cluster is reported: bodies, their order, and what of the API server's refusals a person reads.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { OcicryptError } from '../../../src/base/errors.ts';
import { openKubernetes } from '../../../src/base/kubernetes.ts';
import { ClusterNode } from '../../../src/cli/node/cluster-node.ts';
import { createWorkspace } from '../../end-to-end/workspace.ts';
import { FakeKubernetes } from '../../fakes/kubernetes.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

const NAME = 'node-1.example';
const READY = { isReady: true, reason: 'Decrypts', message: 'tried' } as const;
const FAILED = { isReady: false, reason: 'CheckFailed', message: 'it does\u202enot\u0007decrypt' } as const;

async function start(t: TestContext) {
  const { directory } = await createWorkspace(t);
  const authority = await createCertificateAuthority(directory);
  const fake = new FakeKubernetes(NAME);
  const server = await fake.listen(await authority.issue('server'));

  await writeFile(join(directory, 'token'), `${fake.token}\n`);
  const kubernetes = openKubernetes({
    environment: { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(server.port) },
    account: directory,
  });
  t.after(async () => {
    kubernetes.close();
    await server.close();
  });
  let minutes = 0;
  const node = new ClusterNode(kubernetes, NAME, () => new Date(Date.UTC(2026, 0, 1, 0, minutes++)));
  return { directory, fake, server, kubernetes, node };
}

test('a node is labelled last and unlabelled first; an event is made when that changes, and time is kept', async (t) => {
  const { fake, server, node } = await start(t);
  await node.report(READY);
  assert.equal(fake.labels['ocicrypt-kms.io/ready'], 'true');
  const [, status, label, event] = server.requests;
  assert.deepEqual(
    [status, label, event],
    [`PATCH /api/v1/nodes/${NAME}/status`, `PATCH /api/v1/nodes/${NAME}`, 'POST /api/v1/namespaces/default/events'],
  );
  const since = fake.condition?.lastTransitionTime;
  await node.report({ ...READY, message: 'tried again' });
  assert.deepEqual([fake.events.length, fake.condition?.lastTransitionTime], [1, since]);
  assert.notEqual(fake.condition?.lastHeartbeatTime, since);
  await node.report(FAILED);
  assert.deepEqual(server.requests.slice(-3), [
    `PATCH /api/v1/nodes/${NAME}`,
    `PATCH /api/v1/nodes/${NAME}/status`,
    'POST /api/v1/namespaces/default/events',
  ]);
  assert.equal(fake.labels['ocicrypt-kms.io/ready'], undefined);
  assert.deepEqual(
    fake.events.map(({ type, reason, message, involvedObject: { name } }) => [type, reason, message, name]),
    [
      ['Normal', 'Decrypts', 'tried', NAME],
      ['Warning', 'CheckFailed', 'it does not decrypt', NAME],
    ],
  );
  await node.forget();
  assert.deepEqual([fake.condition, fake.labels['kubernetes.io/os']], [undefined, 'linux']);
});

test('a message of any length fits into an event', async (t) => {
  const { fake, node } = await start(t);
  await node.report({ ...FAILED, message: 'x'.repeat(5000) });
  assert.equal(fake.events.length, 1);
});

test('each refusal has its code and none of the server’s words; a renewed token counts at once', async (t) => {
  const { directory, fake, kubernetes, node } = await start(t);
  const codes: (readonly [number, string, boolean])[] = [
    [400, 'bad-input', false],
    [401, 'unauthenticated', false],
    [403, 'refused', false],
    [404, 'not-found', false],
    [409, 'unavailable', true],
    [429, 'throttled', true],
    [500, 'unavailable', true],
    [503, 'unavailable', true],
  ];
  for (const [status, code, retryable] of codes) {
    fake.refuse = () => status;
    await assert.rejects(node.report(READY), (error) => {
      assert.ok(error instanceof OcicryptError);
      assert.deepEqual([error.code, error.retryable], [code, retryable]);
      return !/words of the server|first-token/.test(`${error.message} ${error.hint}`);
    });
  }
  fake.refuse = () => undefined;
  fake.token = 'second-token';
  await assert.rejects(node.report(READY), { code: 'unauthenticated' });
  await writeFile(join(directory, 'token'), 'second-token');
  await node.report(READY);
  // A segment of a path is one, whatever it holds.
  await assert.rejects(kubernetes.ask({ method: 'GET', path: ['api', 'v1', 'nodes', `../nodes/${NAME}`] }), {
    code: 'not-found',
  });
  for (const segment of ['', '.', '..']) {
    const path = ['api', 'v1', 'namespaces', 'shop', 'secrets', segment];
    await assert.rejects(kubernetes.ask({ method: 'GET', path }), { code: 'bad-input' }, segment);
  }
});

test('outside of a pod, and before the token is there, it is said', async (t) => {
  const { directory } = await start(t);
  assert.throws(() => openKubernetes({ environment: {} }), { code: 'configuration' });
  const environment = { KUBERNETES_SERVICE_HOST: '::1', KUBERNETES_SERVICE_PORT: '1' };
  const kubernetes = openKubernetes({ environment, account: join(directory, 'none') });
  await assert.rejects(kubernetes.ask({ method: 'GET', path: ['api'] }), { code: 'not-found' });
});
