// What the API server is asked for, and what of it registries are shown.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCluster } from '../../src/admission/cluster.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { type JsonObject, parseJson } from '../../src/base/json.ts';
import { rejects } from '../image/harness.ts';
import { end } from '../image/transports/registry/harness.ts';
import { type Answered, podOf, startWorld } from './world.ts';

const signal = new AbortController().signal;
const base64 = (text: string) => Buffer.from(text).toString('base64');

function object(value: unknown): JsonObject {
  const parsed = parseJson(Buffer.from(JSON.stringify(value)), 'the test');
  return parsed instanceof Map ? parsed : assert.fail('no object');
}

/** An API server with these objects, by path, which counts what it is asked. */
function clusterOf(objects: Readonly<Record<string, unknown>>) {
  const asked: string[] = [];
  const cluster = createCluster({
    async ask({ method, path }) {
      const key = path.slice(2).join('/');
      asked.push(`${method} ${key}`);
      const found = objects[key];
      if (found instanceof Error) throw found;
      if (found === undefined) throw new OcicryptError('not-found', 'no such object');
      return object(found);
    },
  });
  return { cluster, asked };
}

test('labels of a namespace are asked for once in a burst; one that is not there is no namespace without labels', async () => {
  const { cluster, asked } = clusterOf({
    'namespaces/shop': { metadata: { labels: { tier: 'secret' } } },
    'namespaces/bare': {},
  });
  for (let time = 0; time < 3; time++)
    assert.deepEqual(await cluster.namespaceLabels('shop', signal), { tier: 'secret' });
  assert.deepEqual(await cluster.namespaceLabels('bare', signal), {});
  await rejects('not-found', cluster.namespaceLabels('gone', signal));
  assert.deepEqual(asked, ['GET namespaces/shop', 'GET namespaces/bare', 'GET namespaces/gone']);
});

test('pull secrets of both types count, others and those that are not there do not', async () => {
  const rows = JSON.stringify({ 'registry.example': { auth: base64('a:b') } });
  const { cluster } = clusterOf({
    'namespaces/shop/secrets/new': {
      type: 'kubernetes.io/dockerconfigjson',
      data: { '.dockerconfigjson': base64(`{"auths":${rows}}`) },
    },
    'namespaces/shop/secrets/old': { type: 'kubernetes.io/dockercfg', data: { '.dockercfg': base64(rows) } },
    'namespaces/shop/secrets/other': { type: 'Opaque', data: { password: base64('x') } },
    'namespaces/shop/secrets/closed': new OcicryptError('refused', 'forbidden'),
  });
  const { documents, id } = await cluster.logins('shop', ['new', 'gone', 'old', 'other'], signal);
  assert.deepEqual(
    documents.map(({ content }) => JSON.parse(new TextDecoder().decode(content)).auths),
    [JSON.parse(rows), JSON.parse(rows)],
  );
  assert.ok(!id.includes('a:b') && /^[0-9a-f]{64}$/.test(id));
  await rejects('refused', cluster.logins('shop', ['closed'], signal));
  await rejects(
    'bad-input',
    cluster.logins(
      'shop',
      Array.from({ length: 17 }, () => 'new'),
      signal,
    ),
  );
});

test('a registry is shown the pull secrets that the pod names, if the rule says so, and no helper of theirs is run', async (t) => {
  const message = ({ status }: Answered) => status?.message ?? '';
  const policy = (words: string) => `{rules: [{name: all, pin: never, ${words}}], registries: [REGISTRY]}`;
  const objects: Record<string, unknown> = {};
  const { cluster, asked } = clusterOf(objects);
  const { ask, adopt, image, fake } = await startWorld(t, { policy: policy('pull-secrets: true'), cluster });
  const secret = (config: object) => ({
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': base64(JSON.stringify(config)) },
  });
  objects['namespaces/shop/secrets/right'] = secret({ auths: { [fake.host]: { auth: base64('pod:right') } } });
  objects['namespaces/shop/secrets/helper'] = secret({ credsStore: 'evil', credHelpers: { [fake.host]: 'evil' } });
  objects['namespaces/shop/secrets/broken'] = {
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': base64('{') },
  };
  fake.fault = ({ headers }, response) =>
    headers.authorization === `Basic ${base64('pod:right')}`
      ? false
      : end(response, 401, { 'www-authenticate': 'Basic realm="fake"' });
  const pod = (...names: readonly string[]) => {
    const { spec, ...rest } = podOf(image('app:1'));
    return { ...rest, spec: { ...spec, imagePullSecrets: names.map((name) => ({ name })) } };
  };
  const admitted = await ask(pod('right'));
  assert.equal(admitted.allowed, true, message(admitted));
  assert.match(message(await ask(pod())), /cannot be judged: unauthenticated: /);
  assert.match(
    message(await ask(pod('helper'))),
    /cannot be judged: unauthenticated: /,
    'the operator’s credentials are next',
  );
  assert.match(
    message(await ask(pod('broken'))),
    /cannot be judged: configuration: the secret shop\/broken is no auth file/,
  );
  asked.splice(0);
  await adopt(policy(''));
  assert.match(message(await ask(pod('right'))), /cannot be judged: unauthenticated: /);
  assert.deepEqual(asked, []);
});
