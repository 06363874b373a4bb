// What becomes of a log when a disk is full for a while, or a process ends in the middle of a line.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openAuditLog } from '../../../src/cli/logs/audit-log.ts';
import { openSharedAuditLog } from '../../../src/cli/logs/audit-log-shared.ts';
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

/** The soft limit of this process on the size of files. */
function limitFiles(bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', `${process.pid}`, `--fsize=${bytes}:`]);
}

function event(id: string): AuditEvent {
  return { id, operation: 'wrap', outcome: 'ok', keys: [], milliseconds: 1 };
}
