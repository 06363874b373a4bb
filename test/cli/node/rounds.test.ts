// What an agent does each time: when it sets its node up, when it leaves it alone, and what it makes of what was found.
import assert from 'node:assert/strict';
import { mkdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Agent } from '../../../src/cli/node/agent-loop.ts';
import { encodeHostTask, type HostTask } from '../../../src/cli/node/host.ts';
import { Rounds } from '../../../src/cli/node/rounds.ts';
import type { Ended } from '../../../src/node/programs.ts';
import { createWorkspace } from '../../end-to-end/workspace.ts';

const OK = { node: [{ level: 'ok', subject: 'containerd', message: 'decrypts tar+encrypted' }] };

function ended(status: number, output: object | undefined, complaint = ''): Ended {
  const text = output === undefined ? '' : JSON.stringify(output);
  return { status, output: new TextEncoder().encode(text), complaint };
}

async function start(t: TestContext) {
  const { directory: source } = await createWorkspace(t);
  await mkdir(join(source, 'policy'));
  await mkdir(join(source, 'secrets/keys/..2026'), { recursive: true });
  await writeFile(join(source, 'policy/config.yaml'), 'key: []\n');
  // As the kubelet mounts a Secret.
  await writeFile(join(source, 'secrets/keys/..2026/app.key'), 'secret');
  await symlink('..2026', join(source, 'secrets/keys/..data'));
  await symlink('..data/app.key', join(source, 'secrets/keys/app.key'));
  const world = { now: 0, install: ended(0, undefined), check: ended(0, OK), tasks: [] as HostTask[] };
  const rounds = new Rounds({
    ...{ owner: 'a/b', directory: '/opt/x', source, socketUser: undefined },
    now: () => world.now,
    run: async (task) => {
      world.tasks.push(task);
      return task.words[1] === 'install' ? world.install : world.check;
    },
  });
  const did = () => world.tasks.splice(0).map(({ words }) => words[1]);
  return { source, rounds, world, did };
}

test('a node is set up once, then only tried; news and failures set it up again', async (t) => {
  const { source, rounds, world, did } = await start(t);
  assert.equal((await rounds.run()).reason, 'Decrypts');
  assert.deepEqual(
    world.tasks[0]?.files?.map(({ path }) => path),
    ['policy/config.yaml', 'secrets/keys/app.key'],
  );
  assert.deepEqual(did(), ['install', 'check']);
  await rounds.run();
  assert.deepEqual([did(), rounds.hasNews()], [['check'], false]);
  await writeFile(join(source, 'policy/config.yaml'), 'key: [/k]\n');
  assert.ok(rounds.hasNews());
  await rounds.run();
  assert.deepEqual(did(), ['install', 'check']);
  world.check = ended(78, { node: [{ level: 'fail', subject: 's', message: 'm', hint: 'h' }] }, 'ocicrypt-kms: x');
  const state = await rounds.run();
  assert.deepEqual([state.reason, state.message, did()], ['CheckFailed', 's: m; h', ['check']]);
  world.check = ended(0, OK);
  assert.ok((await rounds.run()).isReady);
  assert.deepEqual(did(), ['install', 'check']);
});

test('what was tried is no news, also if it failed: the first policy, another one', async (t) => {
  const { source, rounds, world } = await start(t);
  assert.ok(rounds.hasNews());
  world.install = ended(78, undefined, 'ocicrypt-kms: configuration: x');
  await rounds.run();
  assert.ok(!rounds.hasNews());
  world.install = ended(0, undefined);
  await rounds.run();
  world.install = ended(78, undefined, 'ocicrypt-kms: configuration: x');
  await writeFile(join(source, 'policy/config.yaml'), 'key: [/k]\n');
  assert.ok(rounds.hasNews());
  await rounds.run();
  assert.ok(!rounds.hasNews());
});

test('a node of other agents is told apart, whichever task finds it', async (t) => {
  const { rounds, world } = await start(t);
  world.check = ended(77, undefined, 'ocicrypt-kms: refused: those of b/c');
  assert.equal((await rounds.run()).reason, 'OtherAgents');
  world.install = ended(77, undefined, 'ocicrypt-kms: refused: those of b/c');
  assert.equal((await rounds.run()).reason, 'OtherAgents');
});

test('an agent whose node is that of others says so once, and reports nothing of it', async () => {
  const stop = new AbortController();
  const complaints: string[] = [];
  let rounds = 0;
  const agent = new Agent({
    rounds: {
      run: async () => {
        if (++rounds === 3) stop.abort();
        return { isReady: false, reason: 'OtherAgents', message: 'those of b/c' };
      },
      hasNews: () => true,
    },
    node: {
      report: () => assert.fail('the label is that of others'),
      complain: async (reason) => void complaints.push(reason),
    },
    period: 1,
    log: () => undefined,
    stop: stop.signal,
  });
  await agent.run();
  assert.deepEqual([rounds, complaints, agent.isRefused(), agent.isReady()], [3, ['OtherAgents'], true, false]);
});

test('a runtime that did not come up is left alone for an hour, or until there is something new', async (t) => {
  const { source, rounds, world, did } = await start(t);
  world.install = ended(69, undefined, 'ocicrypt-kms: unavailable: systemctl restart failed');
  assert.deepEqual(await rounds.run(), {
    isReady: false,
    reason: 'NotSetUp',
    message: 'unavailable: systemctl restart failed',
  });
  world.now = 3_599_000;
  assert.equal((await rounds.run()).reason, 'NotSetUp');
  assert.deepEqual([did(), rounds.hasNews()], [['install'], false]);
  world.now = 3_600_000;
  await rounds.run();
  assert.deepEqual(did(), ['install']);
  await writeFile(join(source, 'policy/config.yaml'), 'key: [/k]\n');
  assert.ok(rounds.hasNews());
  world.install = ended(0, undefined);
  assert.ok((await rounds.run()).isReady);
});

test('what must be restarted, and a check that says nothing, are no node that decrypts', async (t) => {
  const { source, rounds, world } = await start(t);
  const stale = { level: 'warn', subject: 'containerd', message: 'was started before', reason: 'restart-needed' };
  world.check = ended(0, { node: [stale] });
  assert.equal((await rounds.run()).reason, 'RestartNeeded');
  world.check = ended(-1, undefined);
  assert.equal((await rounds.run()).reason, 'CheckFailed');
  // Nothing was tried: a runtime that cannot be asked, or podman alone.
  for (const node of [[{ level: 'warn', subject: 's', message: 'cannot be asked' }], []]) {
    world.check = ended(0, { node });
    assert.equal((await rounds.run()).reason, 'CheckFailed');
  }
  world.check = ended(0, { node: [...OK.node, { level: 'warn', subject: 's', message: 'may be intended' }] });
  assert.ok((await rounds.run()).isReady);
  await rm(join(source, 'policy/config.yaml'));
  const state = await rounds.run();
  assert.deepEqual([state.reason, /not-found/.test(state.message)], ['NotSetUp', true]);
  await rm(source, { recursive: true });
  assert.equal((await rounds.run()).reason, 'NotSetUp');
});

test('directories that the kubelet makes are followed, no other links to directories; what is too much is not read', async (t) => {
  const { source, rounds, world } = await start(t);
  await mkdir(join(source, 'secrets/keys/..2026/more'));
  await writeFile(join(source, 'secrets/keys/..2026/more/b.key'), 'b');
  await symlink('..data/more', join(source, 'secrets/keys/more'));
  assert.ok((await rounds.run()).isReady);
  assert.ok(world.tasks[0]?.files?.some(({ path }) => path === 'secrets/keys/more/b.key'));
  const isRefused = async (said: RegExp) => {
    const { reason, message } = await rounds.run();
    assert.ok(reason === 'NotSetUp' && said.test(message), message);
  };
  await symlink('.', join(source, 'volume'));
  await isRefused(/volume/);
  await rm(join(source, 'volume'));
  await writeFile(join(source, 'secrets/a key'), '');
  await isRefused(/secrets\/a key/);
  await rm(join(source, 'secrets/a key'));
  await writeFile(join(source, 'huge'), '');
  await truncate(join(source, 'huge'), 2 ** 40);
  await isRefused(/too large/);
  await rm(join(source, 'huge'));
  assert.ok((await rounds.run()).isReady);
});

test('a task is JSON that names no secret outside of its content', () => {
  const task = { owner: 'a', directory: '/d', words: ['w'], files: [{ path: 'p', content: Buffer.from('secret') }] };
  assert.deepEqual(JSON.parse(new TextDecoder().decode(encodeHostTask(task))), {
    ...task,
    files: [{ path: 'p', content: 'c2VjcmV0' }],
  });
});
