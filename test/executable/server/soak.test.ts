// P8, a sample: nothing of a few thousand calls stays open. `npm run soak` makes a million.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { soak } from './soak.ts';

test('P8 descriptors and sockets are the same after thousands of calls', { skip: !existsSync('/proc') }, async (t) => {
  const { failures, descriptors, sockets } = await soak(t, 2000);
  assert.equal(failures, 0);
  assert.equal(descriptors[0], descriptors[1]);
  assert.equal(sockets[0], sockets[1]);
});
