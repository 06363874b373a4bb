// Which processes are runtimes of this machine: not what another user calls by the name of one.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as turn } from 'node:timers/promises';
import { findProcesses } from '../../src/node/processes.ts';
import { newRoot } from './root.ts';

/** A name that no other process has; the system keeps 15 characters. */
const newName = () => `p-${randomBytes(5).toString('hex')}`;
const us = process.geteuid?.() ?? 0;
const NOBODY = 65534;

/** Starts a shell that waits, from the file of this path, as a user who may be another one. */
async function start(t: TestContext, path: string, uid = us): Promise<number | undefined> {
  const child = spawn(path, ['-c', 'read word'], { argv0: 'sh', uid, stdio: ['pipe', 'ignore', 'ignore'] });
  t.after(() => child.kill('SIGKILL'));
  // Bun does not wait until the new program has taken the place of its own.
  while (readFileSync(`/proc/${child.pid}/comm`, 'utf8') !== `${basename(path)}\n`) await turn(5);
  return child.pid;
}

function newShell(t: TestContext, name: string): string {
  const directory = newRoot(t);
  chmodSync(directory, 0o755);
  copyFileSync('/bin/sh', join(directory, name));
  return join(directory, name);
}

const found = (...words: Parameters<typeof findProcesses>) =>
  findProcesses(...words).map(({ pid, program }) => [pid, program]);

test('a program counts as a runtime if root or this user has started it, and no one else', async (t) => {
  const name = newName();
  const path = newShell(t, name);
  const pid = await start(t, path);
  assert.deepEqual(found(name), [[pid, path]]);
  assert.deepEqual(found(name, new Set([us + 1])), []);
  // Only root can start something as somebody else, and only root would run it then.
  if (us !== 0) return;
  const strange = newName();
  await start(t, newShell(t, strange), NOBODY);
  assert.deepEqual(found(strange), []);
  assert.equal(found(strange, new Set([NOBODY])).length, 1);
});

test('a process has its program by the name, or by a link beside it as in k3s; what has taken the name is none', async (t) => {
  const whole = newShell(t, 'k3s');
  const name = newName();
  const beside = join(whole, '..', name);
  symlinkSync('k3s', beside);
  const pid = await start(t, beside);
  assert.deepEqual(found(name), [[pid, beside]]);
  const other = newName();
  const elsewhere = join(whole, '../elsewhere');
  mkdirSync(elsewhere);
  symlinkSync('../k3s', join(elsewhere, other));
  await start(t, join(elsewhere, other));
  assert.deepEqual(found(other), []);
});
