// What the executable says while it works and when it is done: on a real pseudo terminal of any size, and where there is none.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { executablePath, runExecutable } from '../fixtures/executable.ts';
import { writeImage } from '../fixtures/images.ts';
import { runOnPseudoTerminal } from '../fixtures/pseudo-terminal.ts';
import { createScreen } from '../fixtures/screen.ts';

const directory = mkdtempSync(join(tmpdir(), 'progress-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const LAYERS = 20;
let images = 0;
const encrypt = () => [
  'encrypt',
  `oci:${join(directory, 'plain')}`,
  `oci:${join(directory, `encrypted-${images++}`)}`,
  `--recipient=keyfile://${join(directory, 'key')}`,
];

before(async () => {
  await writeImage(join(directory, 'plain'), { layers: Array.from({ length: LAYERS }, () => ({})) });
  await runExecutable(['keygen', join(directory, 'key')]);
});

async function encryptOnTerminal(rows: number, columns: number, environment = {}, ...options: readonly string[]) {
  const command = [executablePath(), ...encrypt(), ...options].map((word) => `'${word}'`).join(' ');
  const { status, written } = await runOnPseudoTerminal(`${command} > '${join(directory, 'digest')}'`, {
    rows,
    columns,
    environment,
  });
  assert.equal(status, 0, written);
  return written;
}

for (const [rows, columns] of [
  [24, 80],
  [10, 40],
  [4, 72],
] as const) {
  test(`a terminal of ${rows} rows and ${columns} columns has a row a blob and one total`, async () => {
    const written = await encryptOnTerminal(rows, columns);
    const end = written.lastIndexOf('\x1b[?7h') + '\x1b[?7h'.length;
    const drawn = written.slice(0, end);
    const screen = createScreen(rows, columns);
    screen.write(drawn);
    const lines = screen.lines();
    assert.equal(lines.length, Math.min(17, rows - 1), drawn);
    for (const line of lines) assert.ok(line.length <= columns, line);
    assert.match(lines.at(-1) ?? '', /^total .*(?:of .*100 %|100 % of )/);
    // It is said below, and nothing is drawn over it.
    assert.match(written.slice(end), /^encrypted 20 layers on 1 platform\r\nsign /);
  });
}

test('nothing escapes to a terminal that obeys no control sequences, and colours are for none', async () => {
  for (const TERM of ['dumb', '']) {
    const written = await encryptOnTerminal(24, 80, { TERM });
    assert.ok(!written.includes('\x1b'), JSON.stringify(written));
    assert.match(written, /^encrypted 20 layers on 1 platform\r\n/);
  }
  const colourful = await encryptOnTerminal(24, 80, { FORCE_COLOR: '1' });
  // Colours are the sequences that end in m.
  assert.doesNotMatch(colourful.replaceAll('\x1b', '␛'), /␛\[[\d;]*m/);
});

test('--quiet leaves neither progress nor advice, but every error', async () => {
  assert.equal(await encryptOnTerminal(24, 80, {}, '--quiet'), '');
  const { status, stderr } = await runExecutable([...encrypt(), '--quiet', '--recipient=keyfile:///nowhere/key']);
  assert.equal(status, 66);
  assert.match(stderr, /^ocicrypt-kms: not-found: .*\n$/);
  const made = await runExecutable(['keygen', join(directory, 'other'), '--quiet']);
  assert.deepEqual([made.status, made.stderr], [0, '']);
  const printed = await runExecutable(['config', 'policy', '--quiet']);
  assert.deepEqual([printed.status, printed.stderr], [0, '']);
});

test('where there is no terminal a short run says what it did, and no progress', async () => {
  const { stderr } = await runExecutable(encrypt());
  assert.match(stderr, /^encrypted 20 layers on 1 platform\nsign sha256:[^\n]*\n$/);
});
