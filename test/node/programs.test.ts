// Programs of a node that hang or write without end: they are given up, with whatever they have started.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runProgram } from '../../src/node/programs.ts';

test('a program is given up with its time, even if another one holds its pipes', async () => {
  const started = performance.now();
  const { status } = await runProgram(['sh', '-c', 'sleep 20 & wait'], { milliseconds: 200 });
  assert.equal(status, -1);
  assert.ok(performance.now() - started < 10_000);
});

test('a program is given up if it, or another one that it started, writes without end', async () => {
  const { status, output } = await runProgram(['sh', '-c', 'yes & wait']);
  assert.equal(status, -1);
  assert.ok(output.length < 17 * 1024 * 1024);
});
