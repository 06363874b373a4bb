// Agents are dismissed: their DaemonSet is deleted, and waited for, whatever the API server says meanwhile.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OcicryptError } from '../../../src/base/errors.ts';
import { asObject, parseJson } from '../../../src/base/json.ts';
import { endAgents } from '../../../src/cli/node/dismiss.ts';

const WAITING = { say: () => undefined, signal: new AbortController().signal, glance: 1 };

function daemonSet(nodes: number) {
  const bytes = new TextEncoder().encode(JSON.stringify({ status: { currentNumberScheduled: nodes } }));
  return asObject(parseJson(bytes, 'a DaemonSet')) ?? assert.fail('it is no object');
}

test('how many there are is said once, and a call that is not answered in time is made again', async () => {
  const errors = ['deadline-exceeded', 'not-found'] as const;
  const answers = [3, errors[0], 1, errors[1]];
  const asked: string[] = [];
  const said: string[] = [];
  const ask = async ({ method }: { method: string }) => {
    asked.push(method);
    const answer = answers.shift();
    if (typeof answer === 'string') throw new OcicryptError(answer, 'as it is');
    return daemonSet(answer ?? assert.fail('asked once more'));
  };
  await endAgents({ ask }, ['a', 'b'], { ...WAITING, say: (line) => void said.push(line) });
  assert.deepEqual([asked, said], [['DELETE', 'GET', 'GET', 'GET'], ['waiting for the agents of 3 nodes']]);
});

test('what is gone already is done; without rights it fails', async () => {
  await endAgents({ ask: () => Promise.reject(new OcicryptError('not-found', 'none')) }, ['a', 'b'], WAITING);
  const refused = { ask: () => Promise.reject(new OcicryptError('refused', 'no right')) };
  await assert.rejects(endAgents(refused, ['a', 'b'], WAITING), { code: 'refused' });
});
