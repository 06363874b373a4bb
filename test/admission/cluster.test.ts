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

test('who asks while labels or a secret are read waits for that', async () => {
  const { cluster, asked } = clusterOf({ 'namespaces/shop': {} });
  await Promise.all(Array.from({ length: 9 }, () => cluster.namespaceLabels('shop', signal)));
  await Promise.all(Array.from({ length: 9 }, () => cluster.logins('shop', ['gone'], signal)));
  assert.deepEqual(asked, ['GET namespaces/shop', 'GET namespaces/shop/secrets/gone']);
});

test('of a secret only the member counts that its type is for, and no more than 64 KiB of it', async () => {
  const data = (size: number) => ({ '.dockerconfigjson': base64('{}'.padEnd(size)), '.dockercfg': base64('{}') });
  const { cluster } = clusterOf({
    'namespaces/shop/secrets/opaque': { type: 'Opaque', data: data(2) },
    'namespaces/shop/secrets/none': { data: data(2) },
    'namespaces/shop/secrets/full': { type: 'kubernetes.io/dockerconfigjson', data: data(65_536) },
    'namespaces/shop/secrets/large': { type: 'kubernetes.io/dockerconfigjson', data: data(65_537) },
  });
  assert.deepEqual((await cluster.logins('shop', ['opaque', 'none'], signal)).documents, []);
  assert.equal((await cluster.logins('shop', ['full'], signal)).documents.length, 1);
  await rejects('bad-input', cluster.logins('shop', ['large'], signal));
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
