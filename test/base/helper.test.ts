// Programs that are run for credentials: what they write is read, and nothing of them is left when nobody waits any more.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { withAttempt } from '../../src/base/deadline.ts';
import { type Helper, NOT_FOUND, runHelper } from '../../src/base/helper.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'helper-'));
});
after(() => rm(directory, { recursive: true, force: true }));

const unending = () => new AbortController().signal;
const run = (command: Helper['command'], more: Partial<Helper> = {}, signal = unending()) =>
  runHelper({ name: 'the helper', command, ...more }, signal);
const text = ({ output }: { readonly output: Uint8Array }) => Buffer.from(output).toString();

/** Writes its own process id and that of a child, and hangs. */
const hanging = (file: string) => `sleep 600 & echo $! $$ > '${file}'; wait`;

async function readPids(file: string): Promise<readonly number[]> {
  for (let tries = 0; tries < 100; tries++) {
    const content = await readFile(file, 'utf8').catch(() => '');
    if (content.endsWith('\n')) return content.trim().split(' ').map(Number);
    await sleep(50);
  }
  return assert.fail('it never started');
}

async function haveEnded(pids: readonly number[]): Promise<boolean> {
  for (let tries = 0; tries < 60; tries++) {
    const states = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')));
    if (states.every((state) => state === '' || /\) Z/.test(state))) return true;
    await sleep(50);
  }
  return false;
}

test('its output and status are read, a program is given its words, a line goes to the shell', async () => {
  const direct = await run(['printf', '%s|', 'a b', '$HOME']);
  assert.deepEqual([direct.status, text(direct)], [0, 'a b|$HOME|']);
  const shell = await run('echo "$MORE"; echo never shown >&2; exit 3', { variables: { MORE: 'more' } });
  assert.deepEqual([shell.status, text(shell)], [3, 'more\n']);
  for (const [command, isStarted] of [
    [['/nowhere/at-all'], false],
    ['/nowhere/at-all', true],
    [['sh', '-c', 'nowhere-at-all'], true],
  ] as const) {
    const ended = await run(command);
    assert.deepEqual([ended.status, ended.isStarted], [NOT_FOUND, isStarted]);
  }
  assert.equal((await run('kill -9 $$')).status, 137);
});

test('it has no terminal and no input', async () => {
  assert.equal(text(await run('cat; (: < /dev/tty) 2>/dev/null || echo none')), 'none\n');
});

test('it reads what it is given, and may leave it', async () => {
  assert.equal(text(await run(['cat'], { input: 'a host\n' })), 'a host\n');
  assert.equal((await run(['true'], { input: 'x'.repeat(1_000_000) })).status, 0);
});

test('more output than credentials have is refused', async () => {
  await assert.rejects(run('head -c 1000000 /dev/zero'), { code: 'unauthenticated' });
});

test('it ends, with what it started, at its own limit and with its call', async () => {
  const [one, two] = [join(directory, 'limit'), join(directory, 'call')];
  const limited = run(hanging(one), { limit: 700 });
  await assert.rejects(limited, { code: 'deadline-exceeded', message: 'the helper did not end within 700 ms' });
  assert.ok(await haveEnded(await readPids(one)));
  const controller = new AbortController();
  const called = run(hanging(two), {}, controller.signal);
  const pids = await readPids(two);
  controller.abort();
  await assert.rejects(called, { code: 'deadline-exceeded' });
  assert.ok(await haveEnded(pids));
});

test('an attempt’s clock stands still for it', async () => {
  const result = await withAttempt(200, unending(), 'key', (signal) => run('sleep 0.5; echo done', {}, signal));
  assert.equal(text(result), 'done\n');
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`it ends with a process that ${signal} ends`, async () => {
    const file = join(directory, signal);
    const program = `
      const { runHelper } = await import(${JSON.stringify(new URL('../../src/base/helper.ts', import.meta.url).href)});
      await runHelper({ name: 'h', command: ${JSON.stringify(hanging(file))} }, new AbortController().signal);`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: 'ignore' });
    const pids = await readPids(file);
    const ended = new Promise((resolve) => child.on('exit', (_, by) => resolve(by)));
    child.kill(signal);
    assert.equal(await ended, signal);
    assert.ok(await haveEnded(pids));
  });
}
