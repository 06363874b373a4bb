// P24: the audit log of the command. No key is released without its line, whatever happens to the file.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { FIRST_KEY, PACKET, REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-audit-'));
after(() => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
});

const unwrap = (words: readonly string[], shell?: string, input: string = unwrapRequest(PACKET)) =>
  runExecutable(['keyprovider', `--key=${keys.file('first')}`, ...words], {
    input,
    ...(shell === undefined ? {} : { shell }),
  });

function linesOf(file: string): readonly (Record<string, unknown> & { readonly error?: { readonly code: string } })[] {
  return readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

describe('P24 the audit log', () => {
  test('is made for its owner alone, and has one line for each decision', async () => {
    const file = join(directory, 'audit.jsonl');
    await unwrap([`--audit-log=${file}`], 'umask 000; exec "$@"');
    await unwrap([`--audit-log=${file}`], undefined, wrapRequest([FIRST_KEY]));
    await unwrap([`--audit-log=${file}`], undefined, '');
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const lines = linesOf(file);
    assert.deepEqual(
      lines.map(({ operation, outcome }) => [operation, outcome]),
      [
        ['unwrap', 'ok'],
        ['wrap', 'ok'],
        ['unknown', 'bad-input'],
      ],
    );
    for (const line of lines) assert.match(String(line.time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.match(String(lines[0]?.caller), /^uid:\d+ ppid:\d+$/);
  });

  test('keeps whole lines when many write at once', async () => {
    const file = join(directory, 'many.jsonl');
    await Promise.all(Array.from({ length: 20 }, () => unwrap([`--audit-log=${file}`])));
    assert.equal(new Set(linesOf(file).map(({ id }) => id)).size, 20);
  });

  for (const [name, path] of [
    ['a device that is full', () => '/dev/full'],
    ['a directory', () => directory],
    ['a directory that is not there', () => '/proc/nonexistent/audit'],
    ['a FIFO that nobody reads', fifo],
    ['a link, which could lead into another file', link],
    ['a name that is too long', () => join(directory, 'x'.repeat(300))],
  ] as const) {
    test(`on ${name}: no key, no wrapped key, one line, and no hang`, async () => {
      const file = path();
      for (const input of [unwrapRequest(PACKET), wrapRequest([FIRST_KEY]), '{}']) {
        const result = await unwrap([`--audit-log=${file}`], undefined, input);
        assert.equal(result.status, ERROR_STATUS['not-written'].exit, result.stderr);
        assert.equal(result.stdout.length, 0);
        assert.match(result.stderr, /^ocicrypt-kms: not-written: [^\n]+\n$/);
        assert.ok(result.milliseconds < 5000);
      }
    });
  }

  test('on a disk that becomes full: whatever was released has its line', async () => {
    const file = join(directory, 'limited.jsonl');
    let released = 0;
    let withheld = 0;
    for (let count = 0; count < 12; count++) {
      // Blocks of 512 bytes: there is room for a few lines.
      const { status, stdout } = await unwrap([`--audit-log=${file}`], 'ulimit -f 4; exec "$@"');
      if (status === 0 && stdout.toString() === REPLY) released++;
      else {
        assert.equal(stdout.length, 0);
        withheld++;
      }
    }
    const whole = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line.endsWith('}')).length;
    assert.ok(
      released <= whole && released > 0 && withheld > 0,
      `${released} released, ${whole} lines, ${withheld} withheld`,
    );
  });

  test('on a FIFO whose reader has stopped reading: withheld once it is full, and no hang', async () => {
    const file = fifo();
    const descriptor = openSync(file, constants.O_RDWR | constants.O_NONBLOCK);
    let withheld = 0;
    try {
      const filler = spawn('/bin/sh', ['-c', `exec head -c 1000000 /dev/zero > ${file}`], { stdio: 'ignore' });
      await new Promise((resolve) => setTimeout(resolve, 300));
      for (let count = 0; count < 3; count++) {
        const { status, stdout } = await unwrap([`--audit-log=${file}`]);
        if (status === 74 && stdout.length === 0) withheld++;
      }
      filler.kill('SIGKILL');
    } finally {
      closeSync(descriptor);
    }
    assert.equal(withheld, 3);
  });

  test('on a FIFO that is read: released', async () => {
    const file = fifo();
    const reader = spawn('cat', [file], { stdio: ['ignore', 'pipe', 'ignore'] });
    const text: Buffer[] = [];
    const ended = new Promise((resolve) => reader.on('close', resolve));
    reader.stdout.on('data', (chunk: Buffer) => text.push(chunk));
    let result = await unwrap([`--audit-log=${file}`]);
    // The reader may not have opened it yet.
    for (let tries = 0; result.status !== 0 && tries < 50; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      result = await unwrap([`--audit-log=${file}`]);
    }
    assert.equal(result.stdout.toString(), REPLY);
    await ended;
    assert.match(Buffer.concat(text).toString(), /"outcome":"ok"/);
  });
});

describe('the debug log', () => {
  test('is made for its owner alone, and tells of the request without any secret', async () => {
    const file = join(directory, 'debug.log');
    assert.equal((await unwrap([`--debugLog=${file}`], 'umask 000; exec "$@"')).status, 0);
    await unwrap([`--debugLog=${file}`], undefined, unwrapRequest('{}'));
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.deepEqual(
      linesOf(file).map(({ msg, outcome, error }) => [msg, outcome, error?.code]),
      [
        ['request', 'ok', undefined],
        ['request', 'bad-input', 'bad-input'],
        ['failed', undefined, 'bad-input'],
      ],
    );
  });

  test('that becomes full keeps no image from being opened, and no audit line from being written', async () => {
    const audit = join(directory, 'beside-full.jsonl');
    const { status, stdout, stderr } = await unwrap(['--debugLog=/dev/full', `--audit-log=${audit}`]);
    assert.deepEqual([status, stdout.toString(), stderr], [0, REPLY, '']);
    assert.equal(linesOf(audit).length, 1);
  });

  test('that cannot be opened is an error at once', async () => {
    const result = await unwrap([`--debugLog=${fifo()}`]);
    assert.deepEqual([result.status, result.stdout.length], [74, 0]);
  });
});

let made = 0;
function fifo(): string {
  const file = join(directory, `fifo-${made++}`);
  execFileSync('mkfifo', [file]);
  return file;
}

function link(): string {
  const [target, file] = [join(directory, `target-${made}`), join(directory, `link-${made++}`)];
  writeFileSync(target, '');
  symlinkSync(target, file);
  assert.ok(existsSync(file));
  return file;
}
