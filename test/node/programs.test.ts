// Programs of a node that hang or write without end: they are given up, with whatever they have started.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { lastComplaint, runProgram } from '../../src/node/programs.ts';

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

test('nothing stays open of a program that was given up while it was given its input', async () => {
  const bytes = new Uint8Array(1024 * 1024);
  const open = () => readdirSync('/proc/self/fd').length;
  await runProgram(['true']);
  const before = open();
  const words = ['sh', '-c', 'exec 4<&0; sleep 20 <&4 & wait'] as const;
  const { status } = await runProgram([...words], { input: bytes, payload: bytes, milliseconds: 200 });
  assert.equal(status, -1);
  const until = performance.now() + 5_000;
  while (open() > before && performance.now() < until) await sleep(10);
  assert.ok(open() <= before);
});

test('the last line is what a program says last, with what it says of it on further lines', () => {
  const said = (complaint: string) => lastComplaint({ status: 1, output: new Uint8Array(), complaint });
  assert.equal(
    said('time=1 level=info\nctr: failed: bad file descriptor\n: unknown'),
    'ctr: failed: bad file descriptor: unknown',
  );
  assert.equal(said('one\ntwo'), 'two');
});
