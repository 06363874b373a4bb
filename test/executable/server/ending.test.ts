// P16 P18 P23: signals, drain, and what a server leaves to the next.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { serve } from '../../fixtures/serve.ts';
import { FIRST, startWorld, type World } from '../../kms/gcpkms/world.ts';
import { callKeyProvider, callMany, callOn, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, startSubject } from './served.ts';

let world: World;
before(async () => {
  world = await startWorld();
});
after(() => world.close());

const keys = () => [`--allow=gcpkms://${FIRST}`, ...world.words];

function dial(path: string) {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(path) });
  session.on('error', () => {});
  return session;
}

async function ends(child: ChildProcess): Promise<{ readonly status: unknown; readonly milliseconds: number }> {
  const started = performance.now();
  const [status] = await once(child, 'exit');
  return { status, milliseconds: performance.now() - started };
}

for (const { name, program } of PROGRAMS) {
  describe(`P16 a server that is told to stop (${name})`, () => {
    test('answers 1,000 calls in flight, 256 of them at a time, and takes its socket with it', async (t) => {
      const { target, path, child, reaches } = await startSubject(t, program, {
        ...{ keys: keys(), words: ['--timeout=50s'] },
      });
      const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
      const { promise, resolve: release } = Promise.withResolvers<void>();
      world.kms.server.setFault(() => ({ kind: 'held', until: promise }));
      t.after(() => world.kms.server.setFault(undefined));
      const calls = callMany(path, new Array(1000).fill(request));
      await reaches('ocicrypt_kms_(?:active|queued)_calls', 1000);
      child.kill('SIGTERM');
      const ended = ends(child);
      while (existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 5));
      world.kms.server.setFault(undefined);
      release();
      assert.deepEqual([...new Set((await calls).map(({ status }) => status))], ['0']);
      assert.equal((await ended).status, 0);
      assert.ok(!existsSync(path));
    });

    test('refuses new calls on busy connections with UNAVAILABLE, and new connections altogether', async (t) => {
      const { target, path, child, reaches } = await startSubject(t, program, { keys: keys() });
      const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
      const { promise, resolve: release } = Promise.withResolvers<void>();
      world.kms.server.setFault(() => ({ kind: 'held', until: promise }));
      t.after(() => world.kms.server.setFault(undefined));
      const session = dial(path);
      t.after(() => session.destroy());
      const first = callOn(session, request);
      await reaches('ocicrypt_kms_active_calls', 1);
      child.kill('SIGTERM');
      while (existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 5));
      assert.equal((await callOn(session, request)).status, '14');
      await assert.rejects(callKeyProvider(target, request), (error) => asOcicryptError(error).code === 'unavailable');
      release();
      assert.equal((await first).status, '0');
    });

    test('is not held up by idle connections', async (t) => {
      const { path, child } = await startSubject(t, program);
      const sessions = Array.from({ length: 10 }, () => dial(path));
      t.after(() => {
        for (const session of sessions) session.destroy();
      });
      await Promise.all(sessions.slice(0, 5).map((session) => callOn(session, wrapRequest())));
      child.kill('SIGTERM');
      const { status, milliseconds } = await ends(child);
      assert.equal(status, 0);
      assert.ok(milliseconds < 5000, `${milliseconds} ms`);
    });

    for (const [what, signals] of [
      ['gives up a call that does not end, after its deadline', ['SIGTERM']],
      ['ends at once when it is told again', ['SIGTERM', 'SIGTERM']],
      ['ends at once when a terminal tells it twice', ['SIGINT', 'SIGINT']],
    ] as const) {
      test(what, async (t) => {
        const again = signals.length === 2;
        const { target, path, child, reaches, log } = await startSubject(t, program, {
          ...{ keys: keys(), words: [again ? '--timeout=50s' : '--timeout=1s'] },
        });
        const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
        world.kms.server.setFault(() => ({ kind: 'silent' }));
        t.after(() => world.kms.server.setFault(undefined));
        const session = dial(path);
        t.after(() => session.destroy());
        const call = callOn(session, request);
        await reaches('ocicrypt_kms_active_calls', 1);
        child.kill(signals[0]);
        while (!log().includes('draining')) await new Promise((resolve) => setTimeout(resolve, 5));
        if (signals[1] !== undefined) child.kill(signals[1]);
        const { status, milliseconds } = await ends(child);
        assert.equal(status, 0);
        assert.ok(milliseconds < 5000, `${milliseconds} ms`);
        // DEADLINE_EXCEEDED, or nothing at all.
        assert.equal((await call).status, again ? 'none' : '4');
        assert.ok(!existsSync(path));
      });
    }
  });

  describe(`P18 a server that was killed (${name})`, () => {
    test('leaves nothing that keeps the next from starting', async (t) => {
      const { target, path, child, directory } = await startSubject(t, program);
      await callKeyProvider(target, wrapRequest());
      child.kill('SIGKILL');
      await once(child, 'exit');
      assert.ok(existsSync(path));
      const started = performance.now();
      await serve(t, [`--listen=unix://${path}`, `--key=${directory}/key`], { program });
      assert.ok(performance.now() - started < 5000);
      await callKeyProvider(target, wrapRequest());
    });
  });

  describe(`P23 signals open nothing (${name})`, () => {
    test('SIGUSR1 opens no debugger and SIGHUP ends nothing', async (t) => {
      const { target, child, log } = await startSubject(t, program);
      const listening = () =>
        execFileSync('ls', [`/proc/${child.pid}/fd`])
          .toString()
          .split('\n').length;
      const before = listening();
      child.kill('SIGUSR1');
      child.kill('SIGHUP');
      await callKeyProvider(target, wrapRequest());
      assert.ok(listening() <= before + 1);
      assert.doesNotMatch(log(), /9229|[Dd]ebugger|inspector/);
    });
  });
}
