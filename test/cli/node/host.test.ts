// What happens on a machine before a program runs there: whose node it is, what is brought, and what is left at the end.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type HostTask, prepareTask } from '../../../src/cli/node/host.ts';
import { unitsIn } from '../../../src/cli/node/service.ts';
import { applyChanges, forgetInstalled } from '../../../src/node/changes.ts';
import { refuseByHand } from '../../../src/node/owner.ts';
import { newRoot } from '../../node/root.ts';

/** A machine in a directory that no other user may write, unlike the temporary one. */
function start(t: TestContext) {
  const root = mkdtempSync(join(homedir(), '.host-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const program = join(root, 'program');
  writeFileSync(program, 'program', { mode: 0o755 });
  const machine = { root, program, lock: () => true };
  const task = (owner: string, word: 'install' | 'uninstall' | 'remove'): HostTask => ({
    owner: `system/${owner}`,
    directory: join(root, 'opt', owner),
    words: word === 'remove' ? [] : ['node', word],
    ...(word === 'install' ? { files: [{ path: 'secrets/a/key', content: new TextEncoder().encode('secret') }] } : {}),
  });
  const install = () => applyChanges(root, [{ path: '/etc/x', content: 'ours', mode: 0o644 }]);
  return { root, machine, task, install };
}

test('agents of another DaemonSet, with another directory too, are refused until the first have gone', (t) => {
  const { root, machine, task, install } = start(t);
  assert.deepEqual(prepareTask(task('first', 'install'), machine), [
    join(root, 'opt/first/bin/ocicrypt-kms'),
    ...['node', 'install'],
  ]);
  install();
  for (const word of ['install', 'uninstall'] as const)
    assert.throws(() => prepareTask(task('second', word), machine), { code: 'refused' });
  // What they once brought is theirs to remove, and nothing else.
  prepareTask(task('second', 'remove'), machine);
  prepareTask({ ...task('second', 'remove'), directory: join(root, 'opt/first') }, machine);
  assert.deepEqual(readdirSync(join(root, 'opt/first')).sort(), ['bin', 'carried.json', 'secrets']);
  forgetInstalled(root);
  assert.equal(prepareTask(task('first', 'remove'), machine), undefined);
  assert.ok(!existsSync(join(root, 'opt')));
  prepareTask(task('second', 'install'), machine);
});

test('an installation by hand is not that of agents: it is refused, and not undone', (t) => {
  const { root, machine, task, install } = start(t);
  install();
  assert.throws(() => prepareTask(task('first', 'install'), machine), { code: 'configuration' });
  assert.throws(() => prepareTask(task('first', 'uninstall'), machine), { code: 'not-found' });
  assert.equal(prepareTask(task('first', 'remove'), machine), undefined);
  assert.ok(existsSync(join(root, 'etc/x')) && !existsSync(join(root, 'opt')));
});

test('an installation by hand does not replace that of agents, whose own program does', (t) => {
  const { root, machine, task } = start(t);
  const carried = join(root, 'opt/first/bin/ocicrypt-kms');
  refuseByHand(root, machine.program);
  prepareTask(task('first', 'install'), machine);
  refuseByHand(root, carried);
  for (const program of [machine.program, join(root, 'opt/second/bin/ocicrypt-kms')])
    assert.throws(() => refuseByHand(root, program), { code: 'refused', message: /those of system\/first/ });
  prepareTask(task('first', 'remove'), machine);
  refuseByHand(root, machine.program);
});

test('an installation whose agents brought their files before there were owners is theirs', (t) => {
  const { root, machine, task, install } = start(t);
  prepareTask(task('first', 'install'), machine);
  install();
  rmSync(join(root, 'var/lib/ocicrypt-kms/node/owner'));
  assert.ok(prepareTask(task('first', 'install'), machine));
  assert.throws(() => prepareTask(task('second', 'install'), machine), { code: 'refused' });
});

test('without a program there is nothing to undo, and Secrets go; unless something is installed', (t) => {
  const { root, machine, task, install } = start(t);
  // As a first task leaves it that was killed before it had copied the program.
  prepareTask(task('first', 'install'), machine);
  rmSync(join(root, 'opt/first/bin/ocicrypt-kms'));
  assert.ok(existsSync(join(root, 'opt/first/secrets/a/key')));
  assert.throws(() => prepareTask(task('first', 'uninstall'), machine), { code: 'not-found' });
  prepareTask(task('first', 'remove'), machine);
  assert.deepEqual(
    ['opt', 'var/lib/ocicrypt-kms/node'].filter((path) => existsSync(join(root, path))),
    [],
  );
  prepareTask(task('first', 'install'), machine);
  install();
  rmSync(join(root, 'opt/first/bin/ocicrypt-kms'));
  assert.throws(() => prepareTask(task('first', 'uninstall'), machine), { code: 'configuration' });
  // A program that these agents did not bring is not run.
  const other = join(root, 'opt/other');
  mkdirSync(join(other, 'bin'), { recursive: true });
  writeFileSync(join(other, 'bin/ocicrypt-kms'), '', { mode: 0o755 });
  const elsewhere = { ...task('first', 'uninstall'), directory: other };
  assert.throws(() => prepareTask(elsewhere, machine), { code: 'configuration' });
});

test('the directory of a socket goes at the end if it is empty', (t) => {
  const { root, machine, task } = start(t);
  const socketUser = process.getuid?.() ?? 0;
  mkdirSync(join(root, 'run'));
  prepareTask({ ...task('first', 'install'), socketUser }, machine);
  writeFileSync(join(root, 'run/ocicrypt-kms/socket'), '');
  prepareTask(task('first', 'remove'), machine);
  assert.ok(existsSync(join(root, 'run/ocicrypt-kms/socket')));
  rmSync(join(root, 'run/ocicrypt-kms/socket'));
  prepareTask({ ...task('second', 'install'), socketUser }, machine);
  prepareTask(task('first', 'remove'), machine);
  assert.deepEqual(readdirSync(join(root, 'run')), ['ocicrypt-kms']);
  // As `node uninstall` leaves it.
  forgetInstalled(root);
  prepareTask(task('second', 'remove'), machine);
  assert.deepEqual(readdirSync(join(root, 'run')), []);
});

test('only units whose files are there are ended: an uninstallation that was killed has ended the others', (t) => {
  const units = '/etc/systemd/system';
  assert.deepEqual(unitsIn(newRoot(t)), []);
  assert.deepEqual(unitsIn(newRoot(t, { [`${units}/ocicrypt-kms.service`]: 'x' })), ['ocicrypt-kms.service']);
});
