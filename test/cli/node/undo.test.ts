// What an agent does last: the node is undone, whatever the API server says meanwhile, or it is said why not.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { OcicryptError } from '../../../src/base/errors.ts';
import { asObject, parseJson } from '../../../src/base/json.ts';
import { TASK_MILLISECONDS } from '../../../src/cli/node/agent.ts';
import type { HostTask } from '../../../src/cli/node/host.ts';
import { isDismissed, type Undoing, undoNode } from '../../../src/cli/node/undo.ts';
import { failIfChanged } from '../../../src/cli/node/uninstall.ts';
import { createTestClock } from '../../fixtures/clock.ts';

const CARRIAGE = { owner: 'a/b', directory: '/opt/x' };
const AWAY = new OcicryptError('deadline-exceeded', 'the API server does not answer');

const clock = createTestClock();
const undo = (undoing: Undoing) => clock.settle(undoNode(CARRIAGE, undoing));

function start(statuses: Readonly<Record<string, number>> = {}) {
  const did: string[] = [];
  const said: string[] = [];
  const world = { tasks: [] as HostTask[], forget: async () => {}, complain: async () => {} };
  const undoing: Undoing = {
    clock,
    isRefused: false,
    run: async (task) => {
      const word = task.words[1] ?? 'remove';
      world.tasks.push(task);
      did.push(word);
      return { status: statuses[word] ?? 0, output: new Uint8Array(), complaint: `ocicrypt-kms: ${word} failed` };
    },
    log: (_, fields, message) => void said.push(`${message} ${JSON.stringify(fields)}`),
    node: {
      forget() {
        did.push('forget');
        return world.forget();
      },
      complain(reason, message) {
        did.push(`${reason}: ${message}`);
        return world.complain();
      },
    },
  };
  return { did, said, world, undoing };
}

test('the label goes, then what was written, then what was brought; nothing of a socket is made', async () => {
  const { did, undoing, world } = start();
  await clock.settle(undoNode({ ...CARRIAGE, ...{ socketUser: 65532 } }, undoing));
  assert.deepEqual(did, ['forget', 'uninstall', 'remove']);
  assert.ok(world.tasks.every((task) => task.socketUser === undefined));
});

test('what was brought goes also if no installation ever succeeded', async () => {
  const { did, said, undoing } = start({ uninstall: 66 });
  await undo(undoing);
  assert.deepEqual(
    [did, said],
    [['forget', 'uninstall', 'remove'], ['the node is as it was before these agents came {}']],
  );
});

test('if the node is not undone, or what was brought stays, it is logged, and an event says so', async () => {
  const { did, said, undoing } = start({ uninstall: 78 });
  await assert.rejects(undo(undoing), { code: 'configuration' });
  assert.deepEqual(did, ['forget', 'uninstall', 'UninstallFailed: uninstall failed']);
  assert.match(said.join(), /is not as it was before.*uninstall failed/);
  const second = start({ remove: 74 });
  second.world.complain = () => Promise.reject(AWAY);
  await assert.rejects(undo(second.undoing), /remove failed/);
  assert.match(second.said.join(), /remove failed.*API server was not told/);
});

test('an API server that does not answer is asked again, and stops nothing', async () => {
  const { did, said, world, undoing } = start();
  world.forget = () => Promise.reject(AWAY);
  await undo(undoing);
  assert.deepEqual(did, [...Array(5).fill('forget'), 'uninstall', 'remove']);
  assert.match(said.join(), /could not be removed.*deadline-exceeded/);
});

test('on a node of other agents only what these brought goes, without a word to the API server', async () => {
  const { did, undoing } = start({ uninstall: 77 });
  await undo({ ...undoing, isRefused: true });
  assert.deepEqual(did, ['uninstall', 'remove']);
});

test('agents are dismissed if their DaemonSet is deleted or gone; if nothing says so, that is logged', async () => {
  const object = (text: string) =>
    asObject(parseJson(new TextEncoder().encode(text), 'a DaemonSet')) ?? assert.fail('it is no object');
  const answers: (readonly [(() => ReturnType<typeof object>)[], boolean, RegExp])[] = [
    [[() => object('{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}')], true, /^$/],
    [[() => fail(AWAY), () => fail(new OcicryptError('not-found', 'none'))], true, /^$/],
    [[() => object('{"metadata":{}}')], false, /is not deleted/],
    [[() => fail(new OcicryptError('refused', 'no right'))], false, /no right.*/],
  ];
  for (const [asked, expected, words] of answers) {
    const { said, undoing } = start();
    const kubernetes = { ask: async () => (asked.length > 1 ? asked.shift() : asked[0])?.() ?? assert.fail('asked') };
    assert.equal(await clock.settle(isDismissed(kubernetes, ['a', 'b'], undoing)), expected);
    assert.match(said.join(), words);
  }
});

function fail(error: OcicryptError): never {
  throw error;
}

test('a node with a file that was changed since is not undone', () => {
  failIfChanged([]);
  assert.throws(() => failIfChanged(['/etc/a', '/etc/b']), { code: 'configuration', message: /\/etc\/a, \/etc\/b/ });
});

test('the pod is given the time that a task which has begun takes, and that of another one which undoes it', () => {
  for (const path of ['helm/ocicrypt-kms/templates/node/daemonset.yaml', 'kustomize/base/chart.yaml']) {
    const text = readFileSync(new URL(`../../../deploy/${path}`, import.meta.url), 'utf8');
    const [, seconds] = /terminationGracePeriodSeconds: (\d+)/.exec(text) ?? [];
    assert.ok(Number(seconds) * 1000 >= 2 * TASK_MILLISECONDS, path);
  }
});
