// P19: sockets that only their owner can connect to, whatever the umask, and those that systemd hands over.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { createKeyfile } from '../../../src/kms/keyfile/key.ts';
import { serve } from '../../fixtures/serve.ts';
import { ACTIVATE, hasSystemd } from '../../fixtures/systemd.ts';
import { callKeyProvider, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, pause } from './served.ts';

function prepare(t: TestContext): { readonly directory: string; readonly key: string } {
  const directory = mkdtempSync(join(tmpdir(), 'sockets-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const key = join(directory, 'key');
  createKeyfile(key);
  return { directory, key: `--key=${key}` };
}

for (const { name, program } of PROGRAMS) {
  describe(`P19 who can connect (${name})`, () => {
    for (const umask of ['000', '022', '077']) {
      test(`with umask ${umask}: the owner alone, in a directory of its own`, async (t) => {
        const { directory, key } = prepare(t);
        const path = join(directory, 'made', 's');
        const shell = `umask ${umask}; exec "$@"`;
        await serve(t, [`--listen=unix://${path}`, `--status=unix://${path}-status`, key], { program, shell });
        for (const socket of [path, `${path}-status`]) assert.equal(statSync(socket).mode & 0o777, 0o600);
        assert.equal(statSync(join(directory, 'made')).mode & 0o777, 0o700);
        await callKeyProvider({ kind: 'unix', path }, wrapRequest());
      });
    }

    test('nothing is made above its directory, where a user without rights may not write', async (t) => {
      const { directory, key } = prepare(t);
      mkdirSync(join(directory, 'own'));
      const made: unknown[] = [];
      const watcher = watch(directory, (_, file) => made.push(file));
      t.after(() => watcher.close());
      await serve(t, [`--listen=unix://${directory}/own/s`, key], { program });
      writeFileSync(join(directory, 'last'), '');
      for (let tries = 0; !made.includes('last') && tries < 100; tries += 1) await pause(20);
      assert.deepEqual(
        [...new Set(made)].filter((file) => file !== 'own'),
        ['last'],
      );
    });

    test('its group too, where that is said', async (t) => {
      const { directory, key } = prepare(t);
      const path = join(directory, 's');
      const words = [`--listen=unix://${path}`, '--socket-mode=0660', `--socket-group=${process.getgid?.()}`, key];
      await serve(t, words, { program });
      assert.equal(statSync(path).mode & 0o777, 0o660);
      assert.equal(statSync(path).gid, process.getgid?.());
    });
  });

  describe(`P18 sockets that systemd listens on (${name})`, () => {
    test('are served, and stay when the server ends', async (t) => {
      if (!hasSystemd(t, ACTIVATE)) return;
      const { directory, key } = prepare(t);
      const paths = [join(directory, 'one'), join(directory, 'two')];
      const listen = paths.flatMap((path) => ['--listen', path]);
      const child = spawn(ACTIVATE, [...listen, ...program(), 'serve', key], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { PATH: process.env.PATH, HOME: '/nonexistent' },
      });
      let said = '';
      child.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
      t.after(() => child.kill('SIGKILL'));
      for (const path of paths) {
        // A socket has its name before it listens.
        while (!said.includes(`Listening on ${path} `)) await pause(20);
        await callKeyProvider({ kind: 'unix', path }, wrapRequest());
      }
      child.kill('SIGTERM');
      assert.deepEqual(await once(child, 'exit'), [0, null]);
      for (const path of paths) assert.ok(existsSync(path));
    });
  });
}
