// What the threads of the cipher take for a message of ours.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStageJob, isStageReply, isWorkerStart } from '../../../src/image/cipher/stage-job.ts';

test('a message has all of its members, and is an object', () => {
  for (const [isMessage, names] of [
    [isWorkerStart, ['ring', 'secrets']],
    [isStageJob, ['stage', 'party']],
    [isStageReply, ['sums']],
  ] as const) {
    const whole = Object.fromEntries(names.map((name) => [name, undefined]));
    assert.ok(isMessage(whole));
    for (const name of names) {
      const { [name]: _, ...rest } = whole;
      assert.ok(!isMessage(rest), `${isMessage.name} without ${name}`);
    }
    for (const other of [null, undefined, 'ring secrets stage party sums', 7, () => {}]) assert.ok(!isMessage(other));
  }
});
