// P24: Debian's logrotate at the audit log of a server that serves, both ways that docs/audit.md shows: no line is lost.
import assert from 'node:assert/strict';
import { chmodSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { EXECUTABLE } from '../../fixtures/serve.ts';
import { runClient } from '../../real-clients/process.ts';
import { realClients, toolArgv } from '../../real-clients/tools.ts';
import { callKeyProvider, temporaryDirectory, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, pause, type Subject, startSubject } from './served.ts';

const DOCUMENT = readFileSync(new URL('../../../docs/audit.md', import.meta.url), 'utf8');
/** The two blocks of the document, in its order. */
const BLOCKS = [...DOCUMENT.matchAll(/^ {4}\/var\/log\/ocicrypt-kms\/audit\.jsonl \{\n(?: {4}.*\n)+? {4}\}\n/gm)].map(
  ([text]) => text.replaceAll(/^ {4}/gm, ''),
);

/** Every line of every file in `directory`, compressed or not. */
function idsIn(directory: string): readonly string[] {
  return readdirSync(directory).flatMap((name) => {
    const bytes = readFileSync(join(directory, name));
    const text = (name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line).id);
  });
}

const linesIn = (file: string) => readFileSync(file, 'utf8').split('\n').length - 1;

/** Calls without a pause until it is ended; resolves to the number of those that were answered. */
function callUntil({ target }: Subject, signal: AbortSignal): Promise<number> {
  const caller = async () => {
    let answered = 0;
    while (!signal.aborted) {
      await callKeyProvider(target, wrapRequest());
      answered++;
    }
    return answered;
  };
  return Promise.all(Array.from({ length: 4 }, caller)).then((counts) => counts.reduce((sum, count) => sum + count));
}

describe('P24 logrotate', () => {
  assert.equal(BLOCKS.length, 2);
  for (const block of BLOCKS) {
    test(`${block.includes('copytruncate') ? 'copies and truncates' : 'renames and signals'}`, async (t) => {
      if (!(await realClients(t, ['logrotate']))) return;
      const [logs, own] = [await temporaryDirectory(t), await temporaryDirectory(t)];
      const file = join(logs, 'audit.jsonl');
      const subject = await startSubject(t, EXECUTABLE, { words: [`--audit-log=${file}`] });
      const configuration = join(own, 'logrotate.conf');
      const signal = `kill -HUP ${subject.child.pid}`;
      const text = block.replace('/var/log/ocicrypt-kms/audit.jsonl', file).replace(/systemctl .*/, signal);
      writeFileSync(configuration, text, { mode: 0o600 });
      const until = new AbortController();
      const calls = callUntil(subject, until.signal);
      const rotate = async () => {
        const words = ['--force', '--state', join(own, 'state'), configuration];
        const { exitCode, stderr } = await runClient([...(await toolArgv('logrotate')), ...words]);
        assert.deepEqual([exitCode, stderr], [0, '']);
      };
      // Copying loses what is written between the copy and the cut, as its manual says: so nobody calls then.
      if (block.includes('copytruncate')) {
        await pause(200);
        until.abort();
        const before = await calls;
        await rotate();
        await callKeyProvider(subject.target, wrapRequest());
        assert.equal(new Set(idsIn(logs)).size, before + 1);
        assert.equal(idsIn(logs).length, before + 1);
        return;
      }
      for (let round = 0; round < 3; round++) {
        await pause(150);
        await rotate();
      }
      await pause(150);
      until.abort();
      const answered = await calls;
      assert.ok(readdirSync(logs).length >= 4, readdirSync(logs).join(' '));
      assert.equal(new Set(idsIn(logs)).size, answered);
    });
  }
});

for (const { name, program } of PROGRAMS) {
  test(`P24 a log that is gone is no log: SIGHUP makes it anew, and until then no key is released (${name})`, async (t) => {
    const logs = await temporaryDirectory(t);
    const file = join(logs, 'audit.jsonl');
    const subject = await startSubject(t, program, {
      words: [`--audit-log=${file}`, `--debugLog=${join(logs, 'debug')}`],
    });
    const code = (call: Promise<unknown>) =>
      call.then(
        () => 'ok',
        (error: unknown) => asOcicryptError(error).code,
      );
    const reload = async (text: string) => {
      const count = () => subject.log().split(text).length;
      const before = count();
      subject.child.kill('SIGHUP');
      while (count() === before) await pause(10);
    };
    assert.equal(await code(callKeyProvider(subject.target, wrapRequest())), 'ok');
    renameSync(file, join(logs, 'old'));
    await reload('logs reopened');
    assert.equal(await code(callKeyProvider(subject.target, wrapRequest())), 'ok');
    assert.deepEqual([linesIn(join(logs, 'old')), linesIn(file)], [1, 1]);
    rmSync(file);
    assert.equal(await code(callKeyProvider(subject.target, wrapRequest())), 'not-written');
    writeFileSync(file, '');
    chmodSync(file, 0o666);
    await reload('logs not reopened');
    assert.equal(await code(callKeyProvider(subject.target, wrapRequest())), 'not-written');
    rmSync(file);
    await reload('logs reopened');
    assert.equal(await code(callKeyProvider(subject.target, wrapRequest())), 'ok');
    assert.equal(linesIn(file), 1);
  });
}
