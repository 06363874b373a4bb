// What the API server is asked for, and what of it registries are shown.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { rejects } from '../image/harness.ts';
import { base64, clusterOf } from './cluster-of.ts';

const signal = new AbortController().signal;
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
