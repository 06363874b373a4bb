// What agents bring to a machine: whole files for root alone, nothing of others, and nothing left of it afterwards.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bringFiles, isBelow, makeSocketDirectory, prepareDirectory, removeCarried } from '../../src/node/carried.ts';

const file = (path: string, text: string) => ({ path, content: new TextEncoder().encode(text) });

/** A directory that no other user may write, unlike the temporary one. */
function start(t: TestContext) {
  const root = mkdtempSync(join(homedir(), '.carried-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const program = join(root, 'program');
  writeFileSync(program, 'program', { mode: 0o755 });
  return { root, program, carriage: { owner: 'system/agents', directory: join(root, 'opt/a/node') } };
}

test('files are for their owner alone, what is no longer carried goes, and the same again changes nothing', (t) => {
  const { root, program, carriage } = start(t);
  const { directory } = carriage;
  mkdirSync(join(root, 'opt'));
  prepareDirectory(carriage);
  const files = [file('policy/config.yaml', 'a'), file('secrets/k/a.key', 'b')];
  assert.ok(bringFiles(carriage, files, program));
  assert.equal(statSync(join(directory, 'secrets/k/a.key')).mode & 0o777, 0o600);
  assert.equal(statSync(join(directory, 'bin/ocicrypt-kms')).mode & 0o777, 0o755);
  assert.equal(bringFiles(carriage, files, program), false);
  chmodSync(join(directory, 'secrets/k/a.key'), 0o644);
  assert.ok(bringFiles(carriage, files, program));
  assert.ok(bringFiles(carriage, files.slice(0, 1), program));
  assert.deepEqual(readdirSync(directory).sort(), ['bin', 'carried.json', 'policy']);
  writeFileSync(program, 'program 2');
  assert.ok(bringFiles(carriage, files.slice(0, 1), program));
  assert.equal(readFileSync(join(directory, 'bin/ocicrypt-kms'), 'utf8'), 'program 2');
  removeCarried(carriage);
  assert.deepEqual(readdirSync(join(root, 'opt')), []);
});

test('a link in the place of a file is replaced, and what it leads to stays', (t) => {
  const { root, program, carriage } = start(t);
  prepareDirectory(carriage);
  const other = join(root, 'other');
  writeFileSync(other, 'theirs');
  mkdirSync(join(carriage.directory, 'policy'));
  symlinkSync(other, join(carriage.directory, 'policy/config.yaml'));
  bringFiles(carriage, [file('policy/config.yaml', 'theirs')], program);
  assert.equal(readFileSync(other, 'utf8'), 'theirs');
  assert.ok(statSync(join(carriage.directory, 'policy/config.yaml')).mode & 0o400);
});

test('a directory of others, or that others may write, is refused; what is not ours stays when all is removed', (t) => {
  const { root, program, carriage } = start(t);
  prepareDirectory(carriage);
  bringFiles(carriage, [file('policy/config.yaml', 'a')], program);
  assert.throws(() => prepareDirectory({ ...carriage, owner: 'other/agents' }), { code: 'refused' });
  chmodSync(join(root, 'opt'), 0o777);
  assert.throws(() => prepareDirectory(carriage), { code: 'configuration' });
  chmodSync(join(root, 'opt'), 0o755);
  writeFileSync(join(carriage.directory, 'policy/mine'), '');
  removeCarried(carriage);
  assert.ok(existsSync(join(carriage.directory, 'policy/mine')));
});

test('a directory that holds something else is refused, and nothing in it is touched; one that is empty is not', (t) => {
  const { carriage } = start(t);
  const { directory } = carriage;
  mkdirSync(join(directory, 'bin'), { recursive: true });
  writeFileSync(join(directory, 'bin/ocicrypt-kms'), 'theirs');
  assert.throws(() => prepareDirectory(carriage), { code: 'configuration' });
  assert.deepEqual(readdirSync(directory), ['bin']);
  rmSync(join(directory, 'bin'), { recursive: true });
  // What a run leaves that was killed while it removed everything.
  writeFileSync(join(directory, 'lock'), '');
  prepareDirectory(carriage);
});

test('no path leads out of the directory', () => {
  for (const path of ['../a', 'a/../../b', '/a', 'a//b', '', '.', 'a\nb', 'a/..']) assert.ok(!isBelow(path), path);
  assert.ok(isBelow('secrets/image-keys/app.key'));
});

test('a directory for a socket is made for its user, and one that is in use is not taken', (t) => {
  const { root } = start(t);
  const path = join(root, 'run');
  const us = process.getuid?.() ?? 0;
  makeSocketDirectory(us, path);
  assert.deepEqual([statSync(path).uid, statSync(path).mode & 0o777], [us, 0o700]);
  writeFileSync(join(path, 'socket'), '');
  assert.throws(() => makeSocketDirectory(us + 1, path), { code: 'configuration' });
});
