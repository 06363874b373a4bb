// The chart in a real API server, which takes its objects and refuses an agent's token all that it must not change.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { addReleaseNamespace, CHART, helm, RELEASE } from './chart.ts';
import { type ControlPlane, startControlPlane, until } from './control-plane.ts';

const READY = 'ocicrypt-kms.io/ready';
const ACCOUNT = `${RELEASE}-node`;
const OWN = 'node-1';
const OTHER = 'node-2';

let plane: ControlPlane;
/** That of the agent's pod on its node, and one that is bound to no pod. */
let token: string;
let unbound: string;

before(async () => {
  plane = await startControlPlane();
  await addReleaseNamespace(plane);
});
after(() => plane.stop());

test('Helm installs every part of the chart', async () => {
  const on = { enabled: true };
  const caBundle = (await readFile(plane.callers.certificate)).toString('base64');
  const values = {
    policy: { key: ['/opt/ocicrypt-kms/node/secrets/keys/app.key'] },
    secrets: ['keys'],
    server: on,
    admission: {
      ...{ ...on, policy: { rules: [{ name: 'all' }] }, certificate: { secretName: 'tls', caBundle } },
      ...{ readPullSecrets: true, readNamespaces: true, clientCA: 'callers', auditLog: on },
    },
    networkPolicy: on,
    monitoring: { dashboard: on },
  };
  await helm(plane, ['install', RELEASE, CHART], values);
  assert.match(await helm(plane, ['status', RELEASE]), /^STATUS: deployed$/m);
  for (const name of [OWN, OTHER])
    await plane.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels: { zone: 'a' } } });
  await plane.apply({
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'agent', namespace: RELEASE } },
    spec: { serviceAccountName: ACCOUNT, nodeName: OWN, containers: [{ name: 'agent', image: 'none' }] },
  });
  const create = ['create', 'token', ACCOUNT, `--namespace=${RELEASE}`];
  token = (await plane.succeed([...create, '--bound-object-kind=Pod', '--bound-object-name=agent'])).trim();
  unbound = (await plane.succeed(create)).trim();
});

type Call = readonly [method: string, path: string, object?: object];

const DAEMON_SETS = `/apis/apps/v1/namespaces/${RELEASE}/daemonsets`;
const NODES = '/api/v1/nodes';
const patch = (path: string, change: object): Call => ['PATCH', `${NODES}/${path}`, change];
const label = (name: string, value: string | null) => ({ metadata: { labels: { [name]: value } } });
const CONDITION = {
  ...{ type: 'OcicryptKmsReady', status: 'True', reason: 'Decrypts', message: 'it does' },
  ...{ lastHeartbeatTime: '2026-01-01T00:00:00Z', lastTransitionTime: '2026-01-01T00:00:00Z' },
};
const condition = { status: { conditions: [CONDITION] } };

test('an agent may label its own node, set its condition, and read its own DaemonSet', async () => {
  // The API server compiles the policy of the chart some time after it was created: until then nothing is refused.
  const other = patch(OTHER, label(READY, 'true'));
  await until(60_000, 'the policy is in force', async () => (await plane.asAccount(token, ...other)).status === 403);
  for (const one of [
    patch(OWN, label(READY, 'true')),
    patch(`${OWN}/status`, condition),
    ['GET', `${DAEMON_SETS}/${ACCOUNT}`] as const,
    patch(OWN, label(READY, null)),
  ]) {
    const { status, body } = await plane.asAccount(token, ...one);
    assert.equal(status, 200, `${one.slice(0, 2).join(' ')}: ${body}`);
  }
});

const ELSEWHERE = 'an agent changes the node on which it runs, and no other';
const OTHER_LABEL = 'an agent changes the label ocicrypt-kms.io/ready, and no other';
const USE = 'an agent does not change how its node is used';
const RBAC = /User \\"\S+\\" cannot/;

/** What is tried, and the words of the refusal. */
const FORBIDDEN: readonly (readonly [what: string, call: Call, refusal: string | RegExp])[] = [
  ['the label of another node', patch(OTHER, label(READY, 'true')), ELSEWHERE],
  ['the condition of another node', patch(`${OTHER}/status`, condition), ELSEWHERE],
  ['another label', patch(OWN, label('zone', 'b')), OTHER_LABEL],
  ['a label that is removed', patch(OWN, label('zone', null)), OTHER_LABEL],
  ['a role', patch(OWN, label('node-role.kubernetes.io/control-plane', '')), OTHER_LABEL],
  ['a label by the status', patch(`${OWN}/status`, label('zone', 'b')), OTHER_LABEL],
  ['a node that takes no pods', patch(OWN, { spec: { unschedulable: true } }), USE],
  ['a taint', patch(OWN, { spec: { taints: [{ key: 'a', effect: 'NoExecute' }] } }), USE],
  ['a node replaced', ['PUT', `${NODES}/${OWN}`, { apiVersion: 'v1', kind: 'Node', metadata: { name: OWN } }], RBAC],
  ['a node deleted', ['DELETE', `${NODES}/${OWN}`], RBAC],
  ['all nodes listed', ['GET', NODES], RBAC],
  ['Secrets read', ['GET', `/api/v1/namespaces/${RELEASE}/secrets`], RBAC],
  ['pods read', ['GET', `/api/v1/namespaces/${RELEASE}/pods`], RBAC],
  ['events read', ['GET', '/api/v1/namespaces/default/events'], RBAC],
  ['its DaemonSet deleted', ['DELETE', `${DAEMON_SETS}/${ACCOUNT}`], RBAC],
  ['another DaemonSet read', ['GET', `${DAEMON_SETS}/${RELEASE}-server`], RBAC],
];

for (const [what, call, refusal] of FORBIDDEN)
  test(`refused to an agent: ${what}`, () => assertRefused(token, call, refusal));

async function assertRefused(by: string, call: Call, refusal: string | RegExp): Promise<void> {
  const { status, body } = await plane.asAccount(by, ...call);
  assert.equal(status, 403, body);
  assert.ok(typeof refusal === 'string' ? body.includes(refusal) : refusal.test(body), body);
}

test('a token of the same account that belongs to no pod changes no node', () =>
  assertRefused(unbound, patch(OWN, label(READY, 'true')), ELSEWHERE));

test('the account of the Job of helm uninstall deletes the one DaemonSet, and reads nothing else', async () => {
  const account = `${RELEASE}-uninstall`;
  const rendered = await helm(plane, ['get', 'hooks', RELEASE]);
  // Helm creates what is a hook only when it runs it.
  await plane.succeed(['apply', `--namespace=${RELEASE}`, '--filename=-'], {
    stdin: Buffer.from(withoutJob(rendered)),
  });
  const job = (await plane.succeed(['create', 'token', account, `--namespace=${RELEASE}`])).trim();
  for (const call of [
    ['DELETE', `${DAEMON_SETS}/${RELEASE}-server`],
    ['GET', `/api/v1/namespaces/${RELEASE}/secrets`],
    ['GET', NODES],
  ] as const)
    await assertRefused(job, call, RBAC);
  assert.equal((await plane.asAccount(job, 'DELETE', `${DAEMON_SETS}/${ACCOUNT}`)).status, 200);
});

function withoutJob(text: string): string {
  return text
    .split(/^---$/m)
    .filter((one) => !/^kind: Job$/m.test(one))
    .join('---\n');
}
