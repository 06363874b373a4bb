// What is kept of verdicts, and for whom.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Kept } from '../../src/admission/kept.ts';
import { podOf, startWorld } from './world.ts';

test('a verdict about a digest is kept, what a tag stands for is asked each time, and another policy begins anew', async (t) => {
  const { ask, adopt, image, digest, fake, open, instruments } = await startWorld(t);
  const asked = () => fake.requests.splice(0).filter(({ path }) => path.includes('/manifests/')).length;
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 1);
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 0, 'kept');
  assert.equal((await ask(podOf(image('app:1')))).allowed, true);
  assert.equal(asked(), 1, 'the tag');
  await open('app:1').writeRoot(await open('plain:2').readRoot());
  assert.equal((await ask(podOf(image('app:1')))).allowed, false, 'the tag was moved');
  assert.match(instruments.render(), /verdicts_total\{source="made"\} 2\n.*verdicts_total\{source="kept"\} 2\n/s);
  asked();
  await adopt('{rules: [{name: all}], registries: [REGISTRY]}');
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 1);
});

test('so many values are kept, each for its time', () => {
  let now = 0;
  const kept = new Kept<number>(2, () => now);
  kept.set('a', 1, 10);
  kept.set('b', 2, 20);
  assert.deepEqual([kept.get('a'), kept.get('b'), kept.get('c')], [1, 2, undefined]);
  now = 10;
  assert.deepEqual([kept.get('a'), kept.get('b')], [undefined, 2]);
  kept.set('c', 3, 10);
  kept.set('d', 4, 10);
  assert.deepEqual([kept.get('b'), kept.get('c'), kept.get('d')], [undefined, 3, 4]);
  kept.set('c', 5, 10);
  kept.set('e', 6, 10);
  assert.deepEqual([kept.get('d'), kept.get('c')], [undefined, 5], 'what is set again is not the oldest');
});
