// What becomes of a log when a disk is full for a while, a process ends in the middle of a line, or it is rotated.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { openAuditLog } from '../../../src/cli/logs/audit-log.ts';
import { openSharedAuditLog } from '../../../src/cli/logs/audit-log-shared.ts';
import { openDebugLog } from '../../../src/cli/logs/debug-log.ts';
import { asciiJson } from '../../../src/cli/text.ts';
import type { AuditEvent } from '../../../src/provider/audit.ts';

for (const open of [openAuditLog, openSharedAuditLog]) {
  test(`a line that was cut off takes no other with it (${open.name})`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'append-'));
    t.after(() => rm(directory, { recursive: true }));
    const file = join(directory, 'log');
    // Without a listener the signal of the limit ends the process.
    const ignore = () => undefined;
    process.on('SIGXFSZ', ignore);
    t.after(() => process.off('SIGXFSZ', ignore));

    const sink = open(file);
    await sink.record(event('whole'));
    limitFiles(statSync(file).size + 20);
    try {
      await assert.rejects(sink.record(event('cut')), { code: 'not-written' });
      await assert.rejects(sink.record(event('lost')), { code: 'not-written' });
    } finally {
      limitFiles('unlimited');
    }
    await sink.record(event('after'));
    appendFileSync(file, '{"time":');
    await open(file).record(event('anew'));

    const lines = readFileSync(file, 'utf8').split('\n');
    assert.equal(lines.pop(), '');
    const kept = lines.filter((line) => line.endsWith('}')).map((line) => JSON.parse(line).id);
    assert.deepEqual(kept, ['whole', 'after', 'anew']);
    assert.equal(lines.length, 5);
  });
}

test('lines are put behind lines of a log and nothing else: a key file or configuration stays what it is', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'append-'));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, 'file');
  const link = join(directory, 'link');
  const openers = [openAuditLog, openSharedAuditLog, openDebugLog] as const;
  const others = [
    '\x01'.repeat(32),
    '-----BEGIN PRIVATE KEY-----\n',
    'AGE-SECRET-KEY-1',
    'allow: [x]\n',
    '{\n  "type": 1}',
    '{"auths":{}}',
    '\0'.repeat(32),
    `\0${'\xab'.repeat(31)}`,
    // Lines that an earlier version has put behind a key make it no log.
    ...['AGE-SECRET-KEY-1', '\x01'.repeat(32), '-----BEGIN PRIVATE KEY-----\nMA==', '{"kty":"oct","k":"AA"}'].map(
      (key) => `${key}\n${LINE}${LINE}`,
    ),
    `{\n  "kty": "oct"\n}\n${LINE}`,
    'tail"}\n',
    `${'x'.repeat(2 * 1024 * 1024)}\n${LINE}`,
    `${'\0'.repeat(2 * 1024 * 1024)}AGE-SECRET-KEY-1\n${LINE}`,
  ];
  for (const content of others) {
    writeFileSync(file, content, { mode: 0o600 });
    linkSync(file, link);
    for (const open of openers)
      for (const name of [file, link]) assert.throws(() => open(name), { code: 'not-written' });
    assert.equal(readFileSync(file, 'utf8'), content);
    rmSync(link);
  }
  // What is put in the place of an open log is no log either.
  rmSync(file);
  const log = openAuditLog(file);
  rmSync(file);
  writeFileSync(file, 'precious', { mode: 0o600 });
  await assert.rejects(log.record(event('lost')), { code: 'not-written' });
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('a log that was cut off, trimmed or spoiled by a power loss takes lines again and again', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'append-'));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, 'log');
  const cuts = Array.from({ length: 9 }, (_, length) => '{"level":'.slice(0, length));
  const lost = '\0'.repeat(4096);
  const contents = [
    ...['', '\n', '{"time":"x"}\n', '{"level":20}\n', '2024/01/02 15:04:05 started\n', ' {"time":'],
    ...cuts,
    ...cuts.map((cut) => `${cut}\n`),
    ...cuts.map((cut) => `${cut}\n${cut}\n${LINE}`),
    // Trimmed from the front, at bytes of every kind, and with a line before the next whole one that was cut off.
    ...Array.from({ length: LINE.length / 3 }, (_, third) => LINE.slice(third * 3 + 1) + LINE),
    `id":"a"}\n{"t\n${LINE}`,
    `${'x'.repeat(200_000)}"}\n${LINE}`,
    ...[lost, `${lost}\n`, lost + LINE, `\0\0\0${LINE}`, `${lost}"ok"}\n${LINE}`, `${lost}\n{"ti`],
    '\0'.repeat(3 * 1024 * 1024) + LINE.repeat(3),
    '\0'.repeat(3 * 1024 * 1024) + LINE.repeat(20_000),
  ];
  for (const content of contents) {
    writeFileSync(file, content, { mode: 0o600 });
    const shown = JSON.stringify(content.slice(0, 80));
    for (const id of ['1', '2']) await assert.doesNotReject(async () => openAuditLog(file).record(event(id)), shown);
    const text = readFileSync(file, 'latin1');
    assert.ok(text.startsWith(content), shown);
    const ids = text
      .split('\n')
      .slice(-3, -1)
      .map((line) => JSON.parse(line).id);
    assert.deepEqual(ids, ['1', '2'], shown);
    openDebugLog(file);
    openSharedAuditLog(file);
  }
});

describe('a log that is rotated loses no line', () => {
  for (const open of [openAuditLog, openSharedAuditLog]) {
    const start = async (t: TestContext) => {
      const directory = await mkdtemp(join(tmpdir(), 'rotate-'));
      t.after(() => rm(directory, { recursive: true }));
      const file = join(directory, 'log');
      const log = open(file);
      const write = (id: string) =>
        log.record(event(id)).then(
          () => 'ok',
          (error: unknown) => asOcicryptError(error).code,
        );
      return { file, old: join(directory, 'log.1'), log, write };
    };

    test(`renamed: the old file takes lines until another has the name (${open.name})`, async (t) => {
      const { file, old, log, write } = await start(t);
      assert.equal(await write('a'), 'ok');
      renameSync(file, old);
      assert.equal(await write('b'), 'ok');
      assert.ok(!existsSync(file));
      log.reopen();
      assert.equal(await write('c'), 'ok');
      assert.equal(statSync(file).mode & 0o777, 0o600);
      assert.deepEqual([idsOf(old), idsOf(file)], [['a', 'b'], ['c']]);
      // Without a signal, where the tool that rotates makes the new file.
      renameSync(file, old);
      writeFileSync(file, '', { mode: 0o640 });
      assert.equal(await write('d'), 'ok');
      assert.deepEqual([idsOf(old), idsOf(file)], [['c'], ['d']]);
      rmSync(old);
      assert.equal(await write('e'), 'ok');
      assert.deepEqual(idsOf(file), ['d', 'e']);
    });

    test(`copied and truncated: it goes on from the start (${open.name})`, async (t) => {
      const { file, old, write } = await start(t);
      assert.equal(await write('a'), 'ok');
      copyFileSync(file, old);
      truncateSync(file);
      assert.equal(await write('b'), 'ok');
      assert.deepEqual([idsOf(old), idsOf(file)], [['a'], ['b']]);
    });

    test(`removed, before or while a line is written: nothing is released until it is there again (${open.name})`, async (t) => {
      const { file, log, write } = await start(t);
      assert.equal(await write('a'), 'ok');
      rmSync(file);
      assert.deepEqual([await write('b'), existsSync(file)], ['not-written', false]);
      log.reopen();
      const pending = write('c');
      if (open === openSharedAuditLog) rmSync(file);
      assert.equal(await pending, open === openSharedAuditLog ? 'not-written' : 'ok');
      log.reopen();
      assert.equal(await write('d'), 'ok');
      assert.equal(idsOf(file).at(-1), 'd');
    });

    test(`a file that others could change takes no line, at the start and later (${open.name})`, async (t) => {
      const { file, old, log, write } = await start(t);
      const cases: readonly ((path: string) => void)[] = [
        (path) => chmodSync(path, 0o660),
        (path) => chmodSync(path, 0o602),
        ...(process.getuid?.() === 0 ? [(path: string) => chownSync(path, 65_534, 65_534)] : []),
      ];
      for (const spoil of cases) {
        renameSync(file, old);
        writeFileSync(file, '', { mode: 0o600 });
        spoil(file);
        assert.throws(() => open(file), { code: 'not-written' });
        assert.throws(() => log.reopen(), { code: 'not-written' });
        assert.equal(await write('a'), 'not-written');
        assert.equal(statSync(file).size, 0);
      }
    });
  }

  test('while many write: every line that was promised is in one of the files, once', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'rotate-'));
    t.after(() => rm(directory, { recursive: true }));
    const file = join(directory, 'log');
    const log = openSharedAuditLog(file);
    const written: string[] = [];
    for (let round = 0; round < 20; round++) {
      const lines = Array.from({ length: 20 }, (_, index) => `${round}-${index}`);
      const work = lines.map((id) => log.record(event(id)).then(() => written.push(id)));
      renameSync(file, join(directory, `log.${round}`));
      // By a signal, and in every other round by what was made at the name.
      if (round % 2 === 0) log.reopen();
      else writeFileSync(file, '', { mode: 0o600 });
      await Promise.all(work);
    }
    const found = readdirSync(directory).flatMap((name) => idsOf(join(directory, name)));
    assert.equal(written.length, 400);
    assert.deepEqual(found.toSorted(), written.toSorted());
  });
});

test('nothing but printable ASCII stands in a line, whatever a caller is called', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'lines-'));
  t.after(() => rm(directory, { recursive: true }));
  const units = Array.from({ length: 0x10000 }, (_, unit) => String.fromCharCode(unit)).join('');
  const caller = `${units}\u{1F600}`;
  for (const open of [openAuditLog, openSharedAuditLog]) {
    const file = join(directory, open.name);
    await open(file).record({ ...event('a'), caller });
    const text = readFileSync(file, 'latin1');
    assert.match(text, /^[ -~]+\n$/);
    assert.equal(JSON.parse(text).caller, caller);
  }
  const file = join(directory, 'debug');
  openDebugLog(file).warn({ caller }, caller);
  const text = readFileSync(file, 'latin1');
  assert.match(text, /^[ -~]+\n$/);
  assert.deepEqual([JSON.parse(text).caller, JSON.parse(text).msg], [caller, caller]);
  const pretty = asciiJson({ caller }, 2);
  assert.match(pretty, /^[ -~\n]+$/);
  assert.equal(JSON.parse(pretty).caller, caller);
});

test('no file of the command writes JSON for others in its own way', () => {
  const root = fileURLToPath(new URL('../../../src/cli/', import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const writing = files.filter((name) => readFileSync(join(root, name), 'utf8').includes('JSON.stringify('));
  // What config prints, with the members of options/given.ts and node/service.ts, is for a file of its own, a task of
  // node/host.ts is for this program on the host.
  const allowed = ['config.ts', 'node/host.ts', 'node/service.ts', 'options/given.ts', 'text.ts'];
  assert.deepEqual(writing.toSorted(), allowed);
});

function idsOf(file: string): readonly string[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line).id);
}

/** A line of an earlier run. */
const LINE = `${JSON.stringify({ time: '2026-01-02T03:04:05.678Z', ...event('old'), keys: [{ uri: 'a' }] })}\n`;

/** The soft limit of this process on the size of files. */
function limitFiles(bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', `${process.pid}`, `--fsize=${bytes}:`]);
}

function event(id: string): AuditEvent {
  return { id, operation: 'wrap', outcome: 'ok', keys: [], milliseconds: 1 };
}
