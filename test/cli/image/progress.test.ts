// Progress as it stands on a terminal of any size after all redrawing, and as lines where there is no terminal.

import assert from 'node:assert/strict';
import { after, before, mock, test } from 'node:test';
import { startProgress } from '../../../src/cli/image/progress.ts';
import { progressRows } from '../../../src/cli/image/progress-rows.ts';
import type { Terminal, TerminalScreen } from '../../../src/cli/terminal.ts';
import { createScreen } from '../../fixtures/screen.ts';

const digest = (number: number) => `sha256:${String(number).padStart(64, '0')}`;

let now = 0;
before(() => void mock.method(performance, 'now', () => now));
after(() => mock.restoreAll());
/** Long enough for another drawing. */
function pass(milliseconds = 150): void {
  now += milliseconds;
}

/** A terminal for what progress does with one. */
function terminalOf(screen?: TerminalScreen) {
  const said: string[] = [];
  const terminal: Terminal = {
    read: async () => new Uint8Array(),
    write: () => assert.fail('progress writes nothing to standard output'),
    streams: () => assert.fail('progress reads and writes no stream'),
    say: (line, weight) => void said.push(`${weight}: ${line}`),
    screen,
  };
  return { terminal, said };
}

test('there is one row a blob and the total, whatever was drawn before', () => {
  const screen = createScreen();
  const progress = startProgress(terminalOf(screen).terminal);
  progress.expect(4000);
  for (const bytes of [0, 500, 1000]) {
    progress.update({ operation: 'encrypt', digest: digest(1), size: 1000, bytes });
    pass();
  }
  progress.update({ operation: 'copy', digest: digest(2), size: 0, bytes: 0 });
  progress.end();
  progress.end();
  const words = screen.lines().map((line) => line.split(/ +/));
  assert.deepEqual(
    words.map(([name, ...rest]) => [name, ...rest.slice(0, name === 'total' ? 7 : 4)].join(' ')),
    ['encrypt sha256:000000000000 1000 B 100', 'copy sha256:000000000000 0 B 100', 'total 1000 B of 3.9 KiB 25 %'],
  );
  assert.match(screen.lines().at(-1) ?? '', / {2}\d+:\d\d left$/);
});

test('of many blobs those are shown that are under way, and the last that are done', () => {
  const screen = createScreen();
  const progress = startProgress(terminalOf(screen).terminal);
  const update = (number: number, bytes: number) =>
    progress.update({ operation: `op${number}`, digest: digest(number), size: 10, bytes });
  update(0, 1);
  for (let number = 1; number < 50; number++) update(number, 10);
  progress.end();
  const names = screen.lines().map((line) => line.split(' ')[0]);
  assert.deepEqual(names, ['op0', ...Array.from({ length: 15 }, (_, index) => `op${index + 35}`), 'total']);
});

test('a layer that one image encrypts and another copies has a row for each', () => {
  const screen = createScreen();
  const progress = startProgress(terminalOf(screen).terminal);
  for (const operation of ['encrypt', 'copy']) progress.update({ operation, digest: digest(1), size: 10, bytes: 10 });
  progress.end();
  assert.deepEqual(
    screen.lines().map((line) => line.split(' ')[0]),
    ['encrypt', 'copy', 'total'],
  );
});

for (const rows of [2, 3, 5, 10, 24, 100]) {
  for (const columns of [20, 40, 60, 72, 80, 200]) {
    test(`on ${rows} rows of ${columns} columns nothing breaks or scrolls away`, () => {
      const screen = createScreen(rows, columns);
      const progress = startProgress(terminalOf(screen).terminal);
      progress.expect(30 * 2 ** 30);
      for (let number = 0; number < 30; number++) {
        pass();
        progress.update({ operation: 'encrypt', digest: digest(number), size: 2 ** 30, bytes: 2 ** 29 + number });
      }
      const lines = screen.lines();
      assert.equal(lines.length, Math.min(17, rows - 1), lines.join('\n'));
      assert.equal(lines.filter((line) => line.startsWith('total')).length, 1);
      for (const line of lines) assert.ok(line.length <= columns, line);
    });
  }
}

test('40 columns have room for what a user waits for', () => {
  const blob = { operation: 'encrypt', digest: digest(1), size: 2 ** 40, bytes: 2 ** 39, started: 0, seen: 3_600_000 };
  const state = { blobs: [blob], expected: 1023.9 * 2 ** 30, seconds: 36_000 };
  assert.deepEqual(progressRows(state, { rows: 24, columns: 40 }), [
    'encrypt 000000000000  50 % 145.6 MiB/s',
    'total 50 % of 1023.9 GiB, 9:59:53 left',
  ]);
  assert.deepEqual(progressRows(state, { rows: 24, columns: 80 }), [
    'encrypt  sha256:000000000000    1.0 TiB  50 %  145.6 MiB/s',
    'total    512.0 GiB of 1023.9 GiB  50 %  14.6 MiB/s  9:59:53 left',
  ]);
});

test('what is said when it has ended is not drawn over', () => {
  const screen = createScreen();
  const progress = startProgress(terminalOf(screen).terminal);
  progress.update({ operation: 'copy', digest: digest(1), size: 10, bytes: 10 });
  progress.end();
  screen.write('said\n');
  pass();
  progress.update({ operation: 'copy', digest: digest(2), size: 10, bytes: 10 });
  progress.end();
  assert.deepEqual(
    screen.lines().map((line) => line.split(' ')[0]),
    ['copy', 'total', 'said'],
  );
});

test('a terminal that becomes lower while it is drawn on keeps one total on its screen', () => {
  let size = { rows: 24, columns: 80 };
  const low = createScreen(6, 80);
  const progress = startProgress(terminalOf({ write: low.write, size: () => size }).terminal);
  for (let number = 0; number < 4; number++)
    progress.update({ operation: 'copy', digest: digest(number), size: 10, bytes: 1 });
  size = { rows: 4, columns: 80 };
  for (let round = 0; round < 3; round++) {
    pass();
    progress.update({ operation: 'copy', digest: digest(1), size: 10, bytes: 2 });
  }
  progress.end();
  const lines = low.lines();
  assert.deepEqual(
    lines.slice(-3).map((line) => line.split(' ')[0]),
    ['copy', 'copy', 'total'],
  );
});

test('without a terminal there is one plain line every ten seconds of a long transfer, and none afterwards', () => {
  mock.timers.enable({ apis: ['setInterval'] });
  const wait = (milliseconds: number) => {
    pass(milliseconds);
    mock.timers.tick(milliseconds);
  };
  try {
    const { terminal, said } = terminalOf();
    const progress = startProgress(terminal);
    wait(15_000);
    assert.deepEqual(said, [], 'nothing is under way');
    progress.expect(100 * 2 ** 20);
    for (let second = 0; second < 4; second++) {
      progress.update({ operation: 'encrypt', digest: digest(1), size: 90 * 2 ** 20, bytes: (second + 1) * 2 ** 20 });
      progress.update({ operation: 'copy', digest: digest(2), size: 10 * 2 ** 20, bytes: 2 ** 20 });
      wait(1000);
    }
    wait(1000);
    assert.deepEqual(said, ['advice: encrypt: 5.0 MiB of 100.0 MiB, 5 %, 256.0 KiB/s, 6:20 left']);
    wait(10_000);
    assert.equal(said.length, 2);
    progress.end();
    wait(60_000);
    assert.equal(said.length, 2);
  } finally {
    mock.timers.reset();
  }
});

test('short work says nothing without a terminal', () => {
  const { terminal, said } = terminalOf();
  const progress = startProgress(terminal);
  progress.expect(1);
  progress.update({ operation: 'copy', digest: digest(1), size: 1, bytes: 1 });
  progress.end();
  assert.deepEqual(said, []);
});
