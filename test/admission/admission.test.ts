// What API servers are answered about pods.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { patchOf, podOf, startWorld } from './world.ts';

test('a pod with a plain image is refused in one sentence, and one with an encrypted image is let in and pinned', async (t) => {
  const { ask, image, digest } = await startWorld(t);
  const refused = await ask(podOf(image('plain:2')));
  assert.deepEqual([refused.allowed, refused.status?.code, refused.status?.reason], [false, 403, 'Forbidden']);
  assert.match(
    refused.status?.message ?? '',
    /^pod shop\/web: container "c0" \S+\/plain:2 is not encrypted as it must be: linux\/amd64: layer 0 is plain \(.+\) \(rule all\)$/,
  );
  const admitted = await ask(podOf(image('app:1')));
  assert.equal(admitted.allowed, true, admitted.status?.message);
  const mutated = await ask(podOf(image('app:1'), image('plain:2')), { path: '/mutate' });
  assert.deepEqual(patchOf(mutated), [
    { op: 'replace', path: '/spec/containers/0/image', value: image(`app@${digest}`) },
  ]);
  const pinned = await ask(podOf(image(`app@${digest}`)));
  assert.deepEqual([pinned.allowed, pinned.warnings], [true, undefined]);
});
