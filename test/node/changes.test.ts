// Files of a node are changed all together or not at all, and come back as they were.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { applyChanges, isInstalled, pendingChanges, restoreAll } from '../../src/node/changes.ts';
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
  assert.ok(isInstalled(root));
  const { restored, changedSince } = restoreAll(root, never);
  assert.deepEqual([restored.length, changedSince], [3, []]);
  assert.deepEqual(filesOf(root), before);
  assert.equal(statSync(join(root, 'etc/c.toml')).mode & 0o777, 0o640);
  assert.ok(!isInstalled(root));
});

test('installed twice, what was there before the first time comes back', (t) => {
  const root = newRoot(t, { '/etc/c': 'first' });
  applyChanges(root, [file('/etc/c', 'second')]);
  applyChanges(root, [file('/etc/c', 'third'), file('/etc/d', 'new')]);
  restoreAll(root, never);
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

test('a link to a whole path leads out of the image that is being built, and is refused', (t) => {
  const outside = newRoot(t, { '/x': 'theirs' });
  const root = newRoot(t);
  symlinkSync(outside, join(root, 'etc'));
  for (const path of ['/etc/x', '/etc/new']) {
    assert.equal(asOcicryptError(caught(() => applyChanges(root, [file(path, 'ours')]))).code, 'not-written');
  }
  assert.deepEqual(filesOf(outside), { '/x': 'theirs' });
});

test('a link within stays a link, and what it leads to is changed', (t) => {
  const root = newRoot(t, { '/usr/c': 'old' });
  symlinkSync('usr/c', join(root, 'c'));
  applyChanges(root, [file('/c', 'new')]);
  assert.equal(readFileSync(join(root, 'usr/c'), 'utf8'), 'new');
  restoreAll(root, never);
  assert.equal(readFileSync(join(root, 'usr/c'), 'utf8'), 'old');
});
