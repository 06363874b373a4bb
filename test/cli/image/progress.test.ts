// Progress as it stands on a terminal after all redrawing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startProgress } from '../../../src/cli/image/progress.ts';

const digest = (number: number) => `sha256:${String(number).padStart(64, '0')}`;

test('there is one line a blob and the total, whatever was drawn before', () => {
  const screen = createScreen();
  const progress = startProgress(screen.terminal);
  assert.ok(progress);
  for (const bytes of [0, 500, 1000]) progress.update({ operation: 'encrypt', digest: digest(1), size: 1000, bytes });
  progress.update({ operation: 'copy', digest: digest(2), size: 0, bytes: 0 });
  progress.end();
  progress.end();
  const words = screen.lines().map((line) => line.split(/ +/));
  assert.deepEqual(
    words.map(([name, ...rest]) => [name, ...rest.slice(0, name === 'total' ? 2 : 4)].join(' ')),
    ['encrypt sha256:000000000000 1000 B 100', 'copy sha256:000000000000 0 B 100', 'total 1000 B'],
  );
});

test('of many blobs those are shown that are under way, and the last that are done', () => {
  const screen = createScreen();
  const progress = startProgress(screen.terminal);
  assert.ok(progress);
  const update = (number: number, bytes: number) =>
    progress.update({ operation: `op${number}`, digest: digest(number), size: 10, bytes });
  update(0, 1);
  for (let number = 1; number < 50; number++) update(number, 10);
  progress.end();
  const names = screen.lines().map((line) => line.split(' ')[0]);
  assert.deepEqual(names, ['op0', ...Array.from({ length: 15 }, (_, index) => `op${index + 35}`), 'total']);
});

test('where nobody looks nothing is drawn', () => {
  assert.equal(startProgress({ ...createScreen().terminal, draw: undefined }), undefined);
});

function noStreams(): Promise<never> {
  throw new Error('progress reads and writes no stream');
}

/** A terminal that knows the control sequences that are drawn with, and no others. */
function createScreen() {
  const lines: string[] = [''];
  let row = 0;
  const draw = (text: string) => {
    const parts = text.replaceAll('\x1b', '^').matchAll(/\^\[(\d+)A|\^\[(2K|\?7[lh])|([^^\n]+|\n)/g);
    for (const [, up, other, plain] of parts) {
      if (up !== undefined) row -= Number(up);
      else if (other === '2K') lines[row] = '';
      else if (plain === '\n') row++;
      else if (plain !== undefined) lines[row] = plain;
    }
    assert.ok(row >= 0);
  };
  const terminal = { read: async () => new Uint8Array(), write: () => {}, streams: noStreams, say: () => {}, draw };
  return { terminal, lines: () => lines.filter((line) => line !== '') };
}
