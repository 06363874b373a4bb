// What a node has of an image, as ctr tells it: hostile images among others.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { type Ctr, readStored } from '../../src/node/ctr.ts';

/** A containerd that has these contents; those that were asked for, in their order. */
function newCtr() {
  const contents = new Map<string, Uint8Array>();
  const asked: string[] = [];
  const put = (text: string) => {
    const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
    contents.set(digest, new TextEncoder().encode(text));
    return digest;
  };
  const ctr: Ctr = {
    ask: async () => [...contents.keys()].join('\n'),
    async try(_, [, , digest = '']) {
      asked.push(digest);
      const output = contents.get(digest);
      return { status: output === undefined ? 1 : 0, output: output ?? new Uint8Array(), complaint: '' };
    },
  };
  return { ctr, put, asked };
}

const described = (digest: string) => ({ digest });
const index = (digests: readonly string[]) => JSON.stringify({ manifests: digests.map(described) });
const absent = `sha256:${'0'.repeat(64)}`;

test('a document is read once, however often others name it, and what is not there is passed over', async () => {
  const { ctr, put, asked } = newCtr();
  const config = put(JSON.stringify({ rootfs: { diff_ids: ['sha256:a', 'sha256:b'] } }));
  const manifest = put(JSON.stringify({ config: described(config), layers: [described('sha256:c')] }));
  let digest = manifest;
  const DEPTH = 12;
  for (let depth = 0; depth < DEPTH; depth++) digest = put(index([digest, '--help', ...Array(8).fill(digest), absent]));
  const { blobs, chains } = await readStored(ctr, { namespace: 'k8s.io', digest });
  assert.equal(asked.length, DEPTH + 2);
  for (const one of [digest, manifest, config, 'sha256:c', absent]) assert.ok(blobs.includes(one), one);
  const chain = createHash('sha256').update('sha256:a sha256:b').digest('hex');
  assert.deepEqual(chains, ['sha256:a', `sha256:${chain}`]);
});

test('what containerd may have read otherwise is no image of which nothing is there', async () => {
  const { ctr, put } = newCtr();
  const layers = '"layers":[{"digest":"sha256:c"}]';
  const twice = put(`{"config":{"digest":"sha256:d"},${layers},${layers}}`);
  const config = put('{"rootfs":{},"rootfs":{"diff_ids":["sha256:a"]}}');
  const manifest = put(`{"config":{"digest":"${config}"},${layers}}`);
  for (const digest of [twice, put(index([twice])), manifest])
    await assert.rejects(
      readStored(ctr, { namespace: 'k8s.io', digest }),
      (error) => asOcicryptError(error).code === 'bad-input',
    );
  // The config of an artifact may be anything.
  const artifact = put(`{"config":{"digest":"${put('no JSON')}"},${layers}}`);
  assert.deepEqual((await readStored(ctr, { namespace: 'k8s.io', digest: artifact })).chains, []);
});
