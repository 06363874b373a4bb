// Files of a node are changed all together or not at all, and come back as they were.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { asOcicryptError } from '../../src/base/errors.ts';
import { lockFile } from '../../src/image/transports/layout-lock.ts';
import {
  applyChanges,
  forgetInstalled,
  installedPaths,
  KEPT_DIRECTORY,
  lockNode,
  pendingChanges,
  refuseEdited,
  restoreAll,
} from '../../src/node/changes.ts';
import { ownerOf } from '../../src/node/owner.ts';
import { notWritten } from '../../src/node/whole-file.ts';
import { proving } from '../fixtures/seed.ts';
import { caught, newRoot } from './root.ts';

const file = (path: string, content: string, mode = 0o644) => ({ path, content, mode });

/** Every file below a root, by its path. */
function filesOf(root: string): Readonly<Record<string, string>> {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => join(entry.parentPath, entry.name)).toSorted();
  return Object.fromEntries(paths.map((path) => [path.slice(root.length), readFileSync(path, 'utf8')]));
}

const never = () => undefined;

test('what is installed comes back as it was, with its mode; directories of ours go', (t) => {
  const root = newRoot(t, { '/etc/c.toml': 'old' });
  chmodSync(join(root, 'etc/c.toml'), 0o640);
  const before = filesOf(root);
  const changes = [file('/etc/c.toml', 'new'), file('/etc/conf.d/x', 'x'), file('/opt/a/b/program', 'p', 0o755)];
  assert.deepEqual(pendingChanges(root, changes), changes);
  applyChanges(root, changes);
  assert.deepEqual(pendingChanges(root, changes), []);
  assert.equal(statSync(join(root, 'etc/c.toml')).mode & 0o777, 0o640);
  assert.equal(statSync(join(root, 'opt/a/b/program')).mode & 0o777, 0o755);
  assert.deepEqual(
    installedPaths(root),
    changes.map(({ path }) => path),
  );
  const { restored, changedSince } = restoreAll(root, never);
  assert.deepEqual([restored.length, changedSince], [3, []]);
  forgetInstalled(root);
  assert.deepEqual(filesOf(root), before);
  assert.equal(statSync(join(root, 'etc/c.toml')).mode & 0o777, 0o640);
  assert.deepEqual(installedPaths(root), []);
});

test('installed twice, what was there before the first time comes back', (t) => {
  const root = newRoot(t, { '/etc/c': 'first' });
  applyChanges(root, [file('/etc/c', 'second')]);
  applyChanges(root, [file('/etc/c', 'third'), file('/etc/d', 'new')]);
  restoreAll(root, never);
  forgetInstalled(root);
  assert.deepEqual(filesOf(root), { '/etc/c': 'first' });
});

test('if one file cannot be written, none is, whichever it is', (t) => {
  const all = [file('/etc/a', 'A'), file('/etc/new/b', 'B'), file('/var/c', 'C')];
  for (const { path } of all) {
    const root = newRoot(t, { '/etc/a': 'a', '/var/other': 'o', '/etc/keep': 'k' });
    // A directory with something in it stands where the file should.
    rmSync(join(root, path), { force: true });
    mkdirSync(join(root, path, 'full'), { recursive: true });
    const before = filesOf(root);
    const error = asOcicryptError(caught(() => applyChanges(root, all)));
    assert.equal(error.code, 'not-written', error.message);
    assert.deepEqual(filesOf(root), before);
    assert.ok(!existsSync(join(root, 'etc/new')) || path === '/etc/new/b');
  }
});

test('an undo brings back the state before the last call, not before the first', (t) => {
  const root = newRoot(t);
  applyChanges(root, [file('/etc/c', 'one')]);
  const between = filesOf(root);
  const undo = applyChanges(root, [file('/etc/c', 'two'), file('/etc/d', 'd')]);
  undo();
  assert.deepEqual(filesOf(root), between);
});

test('a file that was changed since stays, or loses what is ours alone', (t) => {
  const root = newRoot(t, { '/a.toml': 'old', '/b': 'old' });
  applyChanges(root, [file('/a.toml', 'old ours'), file('/b', 'ours'), file('/c', 'ours')]);
  writeFileSync(join(root, 'a.toml'), 'old ours and more');
  writeFileSync(join(root, 'c'), 'of the operator');
  const { changedSince } = restoreAll(root, (path, text) =>
    path === '/a.toml' ? text.replace(' ours', '') : undefined,
  );
  assert.deepEqual(changedSince, ['/c']);
  const { '/a.toml': a, '/b': b, '/c': c } = filesOf(root);
  assert.deepEqual([a, b, c], ['old and more', 'old', 'of the operator']);
});

test('a file that was removed since comes back with its mode and owner', (t) => {
  const root = newRoot(t, { '/etc/c': 'old' });
  chmodSync(join(root, 'etc/c'), 0o640);
  applyChanges(root, [file('/etc/c', 'ours')]);
  applyChanges(root, [file('/etc/c', 'ours again')]);
  rmSync(join(root, 'etc/c'));
  assert.deepEqual(restoreAll(root, never).restored, ['/etc/c']);
  assert.equal(statSync(join(root, 'etc/c')).mode & 0o777, 0o640);
});

test('what has lost what is ours stays as it is when that is done again, and is not named', (t) => {
  const root = newRoot(t, { '/c': 'theirs' });
  applyChanges(root, [file('/c', 'theirs ours')]);
  writeFileSync(join(root, 'c'), 'theirs ours and more');
  const adapt = (_: string, text: string) => text.replace(' ours', '');
  assert.deepEqual(restoreAll(root, adapt), { restored: ['/c'], changedSince: [] });
  assert.deepEqual(restoreAll(root, adapt), { restored: [], changedSince: [] });
  assert.equal(readFileSync(join(root, 'c'), 'utf8'), 'theirs and more');
});

test('what an operator has written into a file of ours is not overwritten, and what is only added to is', (t) => {
  const root = newRoot(t, { '/etc/c.toml': 'old' });
  const changes = [file('/etc/c.toml', 'old, ours'), file('/etc/conf.d/x', 'x')];
  applyChanges(root, changes);
  const newer = [{ ...file('/etc/c.toml', 'mine, ours'), isAddition: true }, file('/etc/conf.d/x', 'another x')];
  refuseEdited(root, newer);
  writeFileSync(join(root, 'etc/c.toml'), 'mine');
  refuseEdited(root, newer);
  writeFileSync(join(root, 'etc/conf.d/x'), 'x and mine');
  const refused = asOcicryptError(caught(() => refuseEdited(root, newer)));
  assert.equal(refused.code, 'configuration');
  assert.match(refused.message, /conf\.d\/x was changed since/);
  rmSync(join(root, 'etc/conf.d/x'));
  refuseEdited(root, newer);
  // An uninstallation that was killed has put it back.
  writeFileSync(join(root, 'etc/c.toml'), 'old');
  refuseEdited(root, changes);
});

test('without its copy a file of the operator is not removed, and with a broken list nothing is', (t) => {
  const root = newRoot(t, { '/etc/c.toml': 'old' });
  applyChanges(root, [file('/etc/c.toml', 'new'), file('/etc/conf.d/x', 'x')]);
  const kept = join(root, KEPT_DIRECTORY);
  const [copy = ''] = readdirSync(kept).filter((name) => name !== 'installed.json');
  rmSync(join(kept, copy));
  const before = filesOf(root);
  assert.equal(asOcicryptError(caught(() => restoreAll(root, never))).code, 'configuration');
  assert.deepEqual(filesOf(root), before);
  writeFileSync(join(root, 'etc/c.toml'), 'as the operator wants it');
  assert.deepEqual(restoreAll(root, (_, text) => text).changedSince, []);
  for (const broken of ['', '{', '[]']) {
    writeFileSync(join(kept, 'installed.json'), broken);
    const { code, hint } = asOcicryptError(caught(() => restoreAll(root, never)));
    assert.deepEqual([code, /put it back by hand/.test(hint ?? '')], ['configuration', true], broken);
  }
});

test('a link to a file that is not there stays, and is named', (t) => {
  const root = newRoot(t, { '/etc/x': 'x' });
  symlinkSync('none', join(root, 'etc/c.toml'));
  const { code, message } = asOcicryptError(caught(() => applyChanges(root, [file('/etc/c.toml', 'new')])));
  assert.deepEqual([code, /is a link to a file that is not there/.test(message)], ['not-written', true]);
  assert.equal(readlinkSync(join(root, 'etc/c.toml')), 'none');
});

test('what helps is said by what the file system says', () => {
  const hint = (code: string) => notWritten('write', '/etc/x', Object.assign(new Error(), { code })).hint ?? '';
  assert.match(hint('ENOSPC'), /make room/);
  assert.match(hint('EROFS'), /image of this host/);
  assert.match(hint('EIO'), /journalctl/);
});

test('a link to a whole path leads out of the image that is being built, and is refused', async (t) => {
  const outside = newRoot(t, { '/x': 'theirs' });
  const root = newRoot(t);
  symlinkSync(outside, join(root, 'etc'));
  for (const path of ['/etc/x', '/etc/new']) {
    assert.equal(asOcicryptError(caught(() => applyChanges(root, [file(path, 'ours')]))).code, 'not-written');
  }
  assert.equal(asOcicryptError(caught(() => applyChanges(root, [file('/etc/more/new', 'ours')]))).code, 'not-written');
  symlinkSync(outside, join(root, 'var'));
  await assert.rejects(lockNode(root, []), { code: 'not-written' });
  assert.deepEqual(filesOf(outside), { '/x': 'theirs' });
  assert.deepEqual(readdirSync(outside), ['x']);
});

test('what an image says was installed leads nowhere out of it: nothing there is read, written or removed', (t) => {
  const outside = newRoot(t, { '/theirs': 'old', '/secret': 's' });
  const digests = [createHash('sha256').update('old').digest('hex')];
  const copy = join('/var/lib/ocicrypt-kms/node', createHash('sha256').update('/new').digest('hex').slice(0, 16));
  const cases: readonly (readonly [path: string, before: string | null])[] = [
    [`/../${basename(outside)}/theirs`, null],
    ['/link/theirs', null],
    ['/whole', null],
    ['/new', `/../${basename(outside)}/secret`],
    ['/new', '/whole'],
    ['/new', copy],
  ];
  for (const [path, before] of cases) {
    const root = newRoot(t, { [LIST]: JSON.stringify({ files: [{ path, before, status: null, digests }] }) });
    symlinkSync(outside, join(root, 'link'));
    symlinkSync(join(outside, 'theirs'), join(root, 'whole'));
    symlinkSync(join(outside, 'secret'), join(root, copy));
    assert.equal(asOcicryptError(caught(() => restoreAll(root, never))).code, 'not-written', path);
    assert.deepEqual([existsSync(join(root, 'new')), filesOf(outside)], [false, { '/secret': 's', '/theirs': 'old' }]);
  }
  const root = newRoot(t, { '/etc/none': 'n' });
  symlinkSync(join(outside, 'secret'), join(root, 'etc/c'));
  assert.equal(asOcicryptError(caught(() => pendingChanges(root, [file('/etc/c', 'ours')]))).code, 'not-written');
  mkdirSync(join(root, 'var/lib/ocicrypt-kms/node'), { recursive: true });
  symlinkSync(join(outside, 'secret'), join(root, 'var/lib/ocicrypt-kms/node/owner'));
  assert.equal(asOcicryptError(caught(() => ownerOf(root))).code, 'not-written');
});

const LIST = '/var/lib/ocicrypt-kms/node/installed.json';

test('a link within stays a link, and what it leads to is changed', (t) => {
  const root = newRoot(t, { '/usr/c': 'old' });
  symlinkSync('usr/c', join(root, 'c'));
  applyChanges(root, [file('/c', 'new')]);
  assert.equal(readFileSync(join(root, 'usr/c'), 'utf8'), 'new');
  restoreAll(root, never);
  assert.equal(readFileSync(join(root, 'usr/c'), 'utf8'), 'old');
});

/** A run of its own that is killed before its step of this number, or reaches its end. */
function runKilled(step: number, root: string, work: string): boolean {
  const imports = `import { applyChanges, lockNode, pendingChanges, restoreAll } from '${CHANGES}';`;
  const script = `${imports} const root = ${JSON.stringify(root)}; const all = ${JSON.stringify(ALL)};
await lockNode(root, all.map(({ path }) => path)); ${work}`;
  const { signal, stderr } = spawnSync(NODE, ['--import', HOOK, '--input-type=module', '-e', script], {
    env: { ...process.env, KILLED_AT_STEP: String(step) },
    encoding: 'utf8',
  });
  assert.ok(signal === 'SIGKILL' || stderr.endsWith('steps\n'), stderr);
  return signal === 'SIGKILL';
}

const CHANGES = new URL('../../src/node/changes.ts', import.meta.url).href;
/** Also in a test on Bun, which does not let the hook replace what modules have imported. */
const NODE = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url));
const HOOK = new URL('../fixtures/killed-at-step.mjs', import.meta.url).href;
const ALL = [file('/etc/c.toml', 'new'), file('/etc/conf.d/x', 'x'), file('/opt/p', 'p', 0o755)];

test('killed at any step of an installation or of its end, every file is old or new, and both can be done again', async (t) => {
  const old = { '/etc/c.toml': 'old', '/etc/conf.d/other': 'o' };
  const wanted = { ...old, '/etc/c.toml': 'new', '/etc/conf.d/x': 'x', '/opt/p': 'p' };
  const known = ({ path, content }: (typeof ALL)[number], root: string) => {
    const now = filesOf(root)[path];
    assert.ok(now === content || now === Reflect.get(old, path), `${path}: ${now}`);
  };
  const withoutKept = (root: string) =>
    Object.fromEntries(Object.entries(filesOf(root)).filter(([path]) => !path.startsWith('/var/lib/ocicrypt-kms/')));
  const paths = ALL.map(({ path }) => path);
  let steps = 0;
  for (let step = 1, isKilled = true; isKilled; step += proving ? 1 : 11) {
    const root = newRoot(t, old);
    isKilled = runKilled(step, root, 'applyChanges(root, pendingChanges(root, all));');
    for (const one of ALL) known(one, root);
    // Whatever reads a directory as a whole meets no half of a file there.
    assert.ok(readdirSync(join(root, 'etc/conf.d')).every((name) => ['x', 'other'].includes(name)));
    const unlock = await lockNode(root, paths);
    if (step % 2 === 0) {
      applyChanges(root, pendingChanges(root, ALL));
      assert.deepEqual(withoutKept(root), wanted, `step ${step}`);
    }
    assert.deepEqual(restoreAll(root, never).changedSince, [], `step ${step}`);
    assert.deepEqual(withoutKept(root), old, `step ${step}`);
    await unlock();
    steps = step;
  }
  for (let step = 1, isKilled = true; isKilled; step += proving ? 1 : 11) {
    const root = newRoot(t, old);
    applyChanges(root, ALL);
    isKilled = runKilled(step, root, 'restoreAll(root, () => undefined);');
    for (const one of ALL) known(one, root);
    await (await lockNode(root, paths))();
    assert.deepEqual(restoreAll(root, never).changedSince, [], `step ${step}`);
    assert.deepEqual(withoutKept(root), old, `step ${step}`);
  }
  assert.ok(steps > 20, `${steps}`);
});

test('two runs do not change a node at the same time', async (t) => {
  const root = newRoot(t);
  const unlock = await lockNode(root, []);
  let isSecond = false;
  const second = lockNode(root, []).then((end) => {
    isSecond = true;
    return end();
  });
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(isSecond, false);
  await assert.rejects(lockFile(join(root, 'var/lib/ocicrypt-kms/node.lock'), { patience: 0 }), {
    code: 'not-written',
  });
  await unlock();
  await second;
});
