// The chart by the tools of its users: Helm 3 and 4 render the same, kubeconform knows every object, kustomize takes the base.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parseAllDocuments } from 'yaml';
import { fetchHelm, fetchKubeconform, fetchKustomize, renderBase, writeKubernetesSchemas } from '../peers/charts.ts';

const run = promisify(execFile);
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const CHART = join(PROJECT, 'deploy/helm/ocicrypt-kms');
const KUBERNETES = '--kube-version=1.34.0';

type KubernetesObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
};

const POLICY = { policy: { allow: ['gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k'] } };
const on = { enabled: true };

/** Values by what they are for. */
const VALUES: Readonly<Record<string, object>> = {
  'the least': POLICY,
  'a key in a Secret, and volumes': {
    policy: { key: ['/opt/ocicrypt-kms/node/secrets/image-keys/app.key'] },
    secrets: ['image-keys', 'other.keys'],
    volumes: [{ name: 'vault', csi: { driver: 'secrets-store.csi.k8s.io', readOnly: true } }],
    imagePullSecrets: [{ name: 'registry' }],
    image: { digest: `sha256:${'a'.repeat(64)}` },
    node: { affinity: { nodeAffinity: {} }, podAnnotations: { a: 'b' }, uninstall: { enabled: false } },
    priorityClassName: 'system-node-critical',
  },
  everything: {
    ...POLICY,
    fullnameOverride: 'images',
    secrets: ['image-keys'],
    server: {
      ...on,
      serviceAccount: { annotations: { 'eks.amazonaws.com/role-arn': 'arn:aws:iam::1:role/r' } },
      podLabels: { 'azure.workload.identity/use': 'true' },
      env: [{ name: 'AWS_REGION', value: 'eu-west-1' }],
    },
    admission: {
      ...on,
      policy: { rules: [{ name: 'all' }] },
      certificate: { certManager: on },
      registrySecret: 'logins',
      readPullSecrets: true,
      readNamespaces: true,
      args: ['--allow=age1"quoted"'],
      secrets: ['unwrap'],
      clientCA: 'api-servers',
      auditLog: on,
      namespaceExpressions: [{ key: 'judged', operator: 'In', values: ['yes'] }],
    },
    monitoring: { labels: { release: 'p' }, podMonitor: on, rules: on, dashboard: on },
    networkPolicy: {
      ...on,
      metricsFrom: [{ namespaceSelector: {} }],
      webhookFrom: [{ ipBlock: { cidr: '192.0.2.0/24' } }],
    },
  },
  'the webhook alone': {
    node: { enabled: false },
    admission: { ...on, policy: { rules: [{ name: 'all' }] }, certificate: { secretName: 'tls', caBundle: 'LS0t' } },
  },
  'a certificate of the operator': {
    existingPolicy: 'mine',
    admission: {
      ...on,
      pin: false,
      policy: { rules: [{ name: 'all' }] },
      certificate: { secretName: 'tls', caBundle: 'LS0t' },
    },
  },
};

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chart-'));
});
after(() => rm(directory, { recursive: true, force: true }));

async function render(major: 3 | 4, values: object): Promise<string> {
  const file = join(directory, `values-${major}.json`);
  await writeFile(file, JSON.stringify(values));
  const words = ['template', 'release', CHART, '--namespace=system', KUBERNETES, `--values=${file}`];
  return (await run(await fetchHelm(major), words, { maxBuffer: 16 * 1024 * 1024 })).stdout;
}

/** In one order: that in which they are installed differs between the two. */
function objectsOf(text: string): readonly KubernetesObject[] {
  const objects: readonly KubernetesObject[] = parseAllDocuments(text).flatMap((document) => document.toJS() ?? []);
  const name = ({ kind, metadata }: KubernetesObject) => `${kind} ${metadata.namespace} ${metadata.name}`;
  return objects.toSorted((one, other) => name(one).localeCompare(name(other)));
}

for (const major of [3, 4] as const)
  test(`helm lint finds no fault (Helm ${major})`, async () => {
    for (const [name, values] of Object.entries(VALUES)) {
      const file = join(directory, 'lint.json');
      await writeFile(file, JSON.stringify(values));
      const words = ['lint', '--strict', CHART, KUBERNETES, `--values=${file}`];
      const { stdout } = await run(await fetchHelm(major), words);
      assert.match(stdout, /0 chart\(s\) failed/, name);
    }
  });

test('both render the same objects, and kubeconform knows all their members', async () => {
  const schemas = join(directory, 'schemas');
  for (const [name, values] of Object.entries(VALUES)) {
    const text = await render(3, values);
    const objects = objectsOf(text);
    assert.deepEqual(objectsOf(await render(4, values)), objects, name);
    await writeKubernetesSchemas(
      schemas,
      objects.map(({ kind }) => kind),
    );
    const file = join(directory, 'rendered.yaml');
    await writeFile(file, text);
    assert.equal(await conform(schemas, file), objects.length, name);
  }
  // A check that cannot fail shows nothing.
  const broken = join(directory, 'broken.yaml');
  await writeFile(broken, (await render(3, POLICY)).replace('hostPID:', 'hostPid:'));
  await assert.rejects(conform(schemas, broken), /hostPid/);
});

/** @returns how many objects are valid; none is passed over */
async function conform(schemas: string, file: string): Promise<number> {
  const location = `${schemas}/{{ .ResourceKind }}{{ .KindSuffix }}.json`;
  const words = ['-strict', '-summary', '-output=json', `-schema-location=${location}`, file];
  const { stdout } = await run(await fetchKubeconform(), words).catch((error) => {
    throw new Error(error.stdout);
  });
  return JSON.parse(stdout).summary.valid;
}

test('objects of a namespace say so, and no two have one name', async () => {
  const objects = objectsOf(await render(3, VALUES.everything ?? {}));
  const names = objects.map(({ kind, metadata: { namespace, name } }) => `${kind} ${namespace} ${name}`);
  assert.equal(new Set(names).size, names.length);
  const free = /^(?:Cluster|Priority|Validating|Mutating)/;
  for (const { kind, metadata } of objects) assert.equal(metadata.namespace === undefined, free.test(kind), kind);
});

test('the webhook alone brings nothing of the nodes; it ends after the API server has heard of that', async () => {
  const text = await render(3, VALUES['the webhook alone'] ?? {});
  assert.ok(!text.includes('DaemonSet') && !text.includes('config.yaml'), 'no key policy is needed');
  assert.match(text, /preStop: \{sleep: \{seconds: 5\}\}/);
  assert.match(text, /terminationGracePeriodSeconds: 45/);
  const everything = await render(3, VALUES.everything ?? {});
  assert.match(everything, /--tls-client-ca=\/etc\/ocicrypt-kms\/client-ca\/ca\.crt/);
  assert.match(everything, /--audit-log=\/var\/log\/ocicrypt-kms\/audit\.jsonl/);
  assert.doesNotMatch(everything, /serviceaccounts/);
  assert.equal(everything.match(/isCA: true/g)?.length, 1);
});

test('values that mean nothing are refused', async () => {
  const wrong: readonly (readonly [object, RegExp])[] = [
    [{}, /policy is empty/],
    [{ policy: { keys: ['/a'] } }, /additional properties 'keys' not allowed/],
    [{ ...POLICY, nodes: {} }, /nodes/],
    [{ ...POLICY, node: { directory: '/opt/../etc' } }, /directory/],
    [{ ...POLICY, node: { directory: 'opt' } }, /directory/],
    [{ ...POLICY, secrets: ['../etc'] }, /secrets/],
    [{ ...POLICY, volumes: [{ name: 'policy' }] }, /volumes/],
    [{ ...POLICY, admission: { ...on, policy: { rules: [{ name: 'all' }] } } }, /needs a certificate/],
    [{ ...POLICY, admission: { ...on, certificate: { certManager: on } } }, /admission\.policy is empty/],
    [
      {
        ...POLICY,
        admission: { ...on, port: 8443, policy: { rules: [{ name: 'all' }] }, certificate: { certManager: on } },
      },
      /choose another one/,
    ],
    [{ ...POLICY, server: on, node: { enabled: false } }, /needs node.enabled/],
  ];
  for (const [values, message] of wrong) await assert.rejects(render(3, values), message, JSON.stringify(values));
});

test('kustomize builds the base, and an overlay with a policy of its own', async () => {
  const kustomize = await fetchKustomize();
  const base = join(PROJECT, 'deploy/kustomize/base');
  const { stdout } = await run(kustomize, ['build', base]);
  const kinds = objectsOf(stdout).map(({ kind }) => kind);
  assert.ok(kinds.includes('DaemonSet') && kinds.includes('Namespace'), kinds.join());
  const { stdout: overlay } = await run(kustomize, ['build', join(PROJECT, 'deploy/kustomize/example')]);
  assert.match(overlay, /awskms:\/\//);
  const file = join(directory, 'kustomized.yaml');
  await writeFile(file, overlay);
  await writeKubernetesSchemas(
    join(directory, 'kustomized'),
    objectsOf(overlay).map(({ kind }) => kind),
  );
  assert.equal(await conform(join(directory, 'kustomized'), file), objectsOf(overlay).length);
});

test('the base is what Helm renders of the chart', async () => {
  const file = join(PROJECT, 'deploy/kustomize/base/chart.yaml');
  assert.equal(await readFile(file, 'utf8'), await renderBase());
});
