// What systemd and an operator do with a server: it says when it serves, reads its policy again, and says why calls fail.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { createKeyfile } from '../../../src/kms/keyfile/key.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { runExecutable } from '../../fixtures/executable.ts';
import { type Served, serve } from '../../fixtures/serve.ts';
import { ACTIVATE, hasSystemd } from '../../fixtures/systemd.ts';
import { unwrapRequest as unwrapPacket } from '../../fixtures/vectors/shape.ts';
import { callKeyProvider, callMany, checkHealth, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, pause, startSubject } from './served.ts';

function workspace(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'service-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const path = (name: string) => join(directory, name);
  const key = (name: string) => {
    createKeyfile(path(name));
    return path(name);
  };
  const configure = (...keys: readonly string[]) => writeFileSync(path('config'), JSON.stringify({ key: keys }));
  return { path, key, configure };
}

/** Waits until a text that grows has all of these. */
async function says(text: () => string, ...wanted: readonly string[]): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (wanted.every((one) => text().includes(one))) return;
    await pause(10);
  }
  assert.fail(`${wanted.join(' ')} is not in ${text()}`);
}

const count = (text: string, part: string) => text.split(part).length - 1;

for (const { name, program } of PROGRAMS) {
  describe(`a service manager (${name})`, () => {
    test('is told of each state, by a path and by an abstract name', async (t) => {
      if (!hasSystemd(t, ACTIVATE)) return;
      for (const socket of [join(tmpdir(), `notify-${process.pid}`), `@ocicrypt-kms-notify-${process.pid}`]) {
        const { path, key } = workspace(t);
        // Each datagram as it comes.
        const listener = spawn(ACTIVATE, ['--datagram', '--listen', socket, 'sh', '-c', 'exec cat <&3'], {
          stdio: ['ignore', 'pipe', 'pipe'],
        });
        t.after(() => listener.kill('SIGKILL'));
        t.after(() => rmSync(socket, { force: true }));
        let told = '';
        let heard = '';
        listener.stdout.on('data', (chunk: Buffer) => {
          told += chunk.toString();
        });
        listener.stderr.on('data', (chunk: Buffer) => {
          heard += chunk.toString();
        });
        await says(() => heard, 'Listening on');
        const { child, log } = await serve(t, [`--listen=unix://${path('s')}`, `--key=${key('one')}`], {
          program,
          environment: { NOTIFY_SOCKET: socket },
        });
        await says(() => told, 'READY=1');
        child.kill('SIGHUP');
        await says(() => told, 'RELOADING=1\nMONOTONIC_USEC=');
        while (count(told, 'READY=1') < 2) await pause(10);
        child.kill('SIGTERM');
        await says(() => told, 'STOPPING=1');
        assert.match(told.replaceAll('\n', ' '), /^READY=1RELOADING=1 MONOTONIC_USEC=\d{6,}READY=1STOPPING=1$/);
        assert.ok(!log().includes('was not told'), log());
      }
    });

    test('that does not answer stops nothing', async (t) => {
      const { path, key } = workspace(t);
      const words = [`--listen=unix://${path('s')}`, `--key=${key('one')}`];
      const { log } = await serve(t, words, { program, environment: { NOTIFY_SOCKET: path('nobody') } });
      await says(log, 'the service manager was not told');
      await callKeyProvider({ kind: 'unix', path: path('s') }, wrapRequest());
    });

    test('whose calls start a server that cannot serve has them told why, and not kept', async (t) => {
      const { path } = workspace(t);
      writeFileSync(path('config'), 'alow: []');
      const socket = path('s');
      const child = spawn(ACTIVATE, ['--listen', socket, ...program(), 'serve', `--config=${path('config')}`], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { PATH: process.env.PATH, HOME: '/nonexistent' },
      });
      t.after(() => child.kill('SIGKILL'));
      let heard = '';
      child.stderr.on('data', (chunk: Buffer) => {
        heard += chunk.toString();
      });
      await says(() => heard, 'Listening on');
      const refused = await callKeyProvider({ kind: 'unix', path: socket }, wrapRequest()).catch(asOcicryptError);
      assert.ok(refused instanceof Error && refused.code === 'configuration', heard);
      assert.match(refused.message, /unknown member .{1,2}alow/);
      assert.equal(await checkHealth({ kind: 'unix', path: socket }, ''), 2);
      assert.deepEqual(await once(child, 'exit'), [78, null]);
    });
  });

  describe(`a policy that is read again (${name})`, () => {
    const policySubject = async (t: TestContext, more: readonly string[] = []) => {
      const space = workspace(t);
      const keys = [space.key('one'), space.key('two')] as const;
      space.configure(keys[0]);
      const subject = await startSubject(t, program, { keys: [`--config=${space.path('config')}`], words: more });
      const named = (file: string) => {
        const text = new TextDecoder().decode(wrapRequest());
        return new TextEncoder().encode(text.replace(btoa('Enabled'), btoa(`keyfile://${file}`)));
      };
      return { ...subject, keys, named, file: space.path, configure: space.configure };
    };

    test('counts for the next call, and no call is lost meanwhile', async (t) => {
      const { child, configure, keys, log, named, path: socket, target, ...subject } = await policySubject(t);
      const packet = unwrapRequest(await callKeyProvider(target, named(keys[0])));
      const refused = await callKeyProvider(target, named(keys[1])).catch(asOcicryptError);
      assert.ok(refused instanceof Error && refused.code === 'not-allowed');
      let isOver = false;
      const statuses = new Set<string>();
      let calls = 0;
      const load = (async () => {
        while (!isOver) {
          const replies = await callMany(socket, new Array(50).fill(packet));
          calls += replies.length;
          for (const { status } of replies) statuses.add(status);
        }
      })();
      for (let round = 1; round <= 3; round++) {
        configure(keys[0], ...(round % 2 === 1 ? [keys[1]] : []));
        child.kill('SIGHUP');
        await subject.reaches('ocicrypt_kms_policy_reloads_total', round, /"ok"/);
      }
      isOver = true;
      await load;
      assert.deepEqual([...statuses], ['0']);
      assert.ok(calls >= 50);
      await callKeyProvider(target, named(keys[1]));
      assert.equal(count(log(), 'configuration read again'), 3);
    });

    test('stays as it was where the file is broken, which is said and counted', async (t) => {
      const { child, file, keys, log, named, target, ...subject } = await policySubject(t);
      for (const [index, text] of ['key: [', 'alow: []', '{}', 'allow: ["nonsense"]'].entries()) {
        writeFileSync(file('config'), text);
        child.kill('SIGHUP');
        await subject.reaches('ocicrypt_kms_policy_reloads_total', index + 1, /"failed"/);
        await callKeyProvider(target, named(keys[0]));
      }
      rmSync(file('config'));
      child.kill('SIGHUP');
      await subject.reaches('ocicrypt_kms_policy_reloads_total', 5, /"failed"/);
      assert.equal(count(log(), 'configuration not read again: the old one stays'), 5);
      assert.match(log(), /unknown member .{1,2}alow/);
    });

    test('says which options count after a restart only', async (t) => {
      const { child, file, keys, log } = await policySubject(t);
      writeFileSync(file('config'), JSON.stringify({ key: keys, 'max-calls': 7 }));
      child.kill('SIGHUP');
      await says(log, 'count after a restart only');
      assert.match(log(), /"options":\["max-calls"\]/);
    });

    test('is judged with the options of the start where they count after a restart only', async (t) => {
      const { child, file, keys, log, named, target, ...subject } = await policySubject(t);
      const clients = { 'tls-client-ca': file('ca.pem'), 'allow-client': ['a.test'] };
      writeFileSync(file('config'), JSON.stringify({ key: keys, ...clients }));
      child.kill('SIGHUP');
      await subject.reaches('ocicrypt_kms_policy_reloads_total', 1, /"failed"/);
      assert.match(log(), /"options":\["tls-client-ca"\].*\n?.*clients are named but not asked for a certificate/);
      await callKeyProvider(target, named(keys[0]));
    });
  });

  test(`a call that fails leaves a line with the reason, and many of them no more than some (${name})`, async (t) => {
    const { log, path } = await startSubject(t, program);
    const canary = 'bm90LWEtc2VjcmV0LWJ1dC1zdGlsbA==';
    await callMany(path, new Array(60).fill(Buffer.from(unwrapPacket(canary))));
    await says(log, '"a call failed"');
    const lines = log()
      .split('\n')
      .filter((line) => line.includes('"a call failed"'));
    assert.equal(lines.length, 20);
    const { level, method, status, caller, problem } = JSON.parse(lines[0] ?? '');
    assert.deepEqual([level, method, status], [40, '/keyprovider.KeyProviderService/UnWrapKey', 'INVALID_ARGUMENT']);
    assert.match(problem, /^bad-input: /);
    assert.equal(caller, `unix://${path}`);
    assert.ok(!log().includes(canary) && !log().includes(atob(canary)));
  });
}

describe('ocicrypt-kms', () => {
  const health = async (...words: readonly string[]) => {
    const { status, stdout, stderr } = await runExecutable(['health', ...words]);
    return [status, `${stdout}${stderr}`] as const;
  };

  test('health asks on a unix socket and over TCP whether a server is ready, and whether it is alive', async (t) => {
    const { path, key } = workspace(t);
    const words = [`--listen=unix://${path('s')}`, '--listen=tcp://127.0.0.1:0', '--insecure-plaintext'];
    const good: Served = await serve(t, [...words, `--key=${key('one')}`]);
    for (const address of good.addresses) {
      assert.deepEqual(await health(`--remote=${address}`), [0, 'ready\n']);
      assert.deepEqual(await health(`--remote=${address}`, '--live'), [0, 'alive\n']);
    }
    writeFileSync(path('broken'), 'no key', { mode: 0o600 });
    const bad = await serve(t, [`--listen=unix://${path('t')}`, `--key=${path('broken')}`]);
    const [status, said] = await health(`--remote=${bad.addresses[0]}`);
    assert.equal(status, 69);
    assert.match(said, /^ocicrypt-kms: unavailable: the server at unix:\S+ is not ready; /);
    assert.deepEqual(await health(`--remote=${bad.addresses[0]}`, '--live'), [0, 'alive\n']);
    assert.equal((await health(`--remote=unix://${path('nobody')}`))[0], 69);
    assert.equal((await health('--remote=nonsense'))[0], 78);
  });

  test('serve --check says whether a server could start, and listens on nothing', async (t) => {
    const { path, key, configure } = workspace(t);
    configure(key('one'));
    const check = (...words: readonly string[]) =>
      runExecutable(['serve', '--check', `--listen=unix://${path('s')}`, `--config=${path('config')}`, ...words]);
    const good = await check();
    assert.deepEqual([good.status, good.stdout.toString()], [0, 'the configuration can be served\n']);
    assert.ok(!existsSync(path('s')));
    for (const words of [
      ['--allow=nonsense'],
      ['--tls-cert=/nowhere', '--tls-key=/nowhere', '--tls-client-ca=/nowhere'],
    ])
      assert.equal((await check(...words)).status, 78, words.join(' '));
    writeFileSync(path('config'), 'alow: []');
    const bad = await check();
    assert.equal(bad.status, 78);
    assert.match(bad.stderr.toString(), /^ocicrypt-kms: configuration: .*unknown member .{1,2}alow/);
  });

  test('over TLS, health shows a certificate, and the status page wants to see one if nothing else is said', async (t) => {
    const { path, key } = workspace(t);
    const authority = await createCertificateAuthority(path('pki'));
    const own = await authority.issue('server');
    const client = await authority.issue('client', { names: ['probe.example'], usage: 'client' });
    const words = [`--tls-cert=${own.certificate}`, `--tls-key=${own.privateKey}`, `--key=${key('one')}`];
    const statusOf = (log: string) => /"status":"(tls:[^"]+)"/.exec(log)?.[1] ?? '';
    const read = (address: string, options: { readonly cert?: Buffer; readonly key?: Buffer } = {}) => {
      const { port } = new URL(address.replace('tls:', 'https:'));
      const ca = readFileSync(authority.certificate);
      const { promise, resolve } = Promise.withResolvers<string>();
      get({ host: '127.0.0.1', port, path: '/livez', ca, agent: false, ...options }, (response) => {
        response.once('data', (body: Buffer) => resolve(body.toString()));
      }).once('error', () => resolve('refused'));
      return promise;
    };
    const shown = { cert: readFileSync(client.certificate), key: readFileSync(client.privateKey) };

    const closed = await serve(t, [
      ...['--listen=tls://127.0.0.1:0', '--status=tls://127.0.0.1:0', `--tls-client-ca=${authority.certificate}`],
      ...['--allow-client=other.example', ...words],
    ]);
    const trusted = [`--remote=${closed.addresses[0]}`, `--tls-ca=${authority.certificate}`];
    const named = [`--tls-cert=${client.certificate}`, `--tls-key=${client.privateKey}`];
    assert.deepEqual(await health(...trusted, ...named), [0, 'ready\n']);
    assert.deepEqual(await health(...trusted, ...named, '--live'), [0, 'alive\n']);
    const [status, said] = await health(...trusted);
    assert.deepEqual([status, said.startsWith('ocicrypt-kms: unavailable: ')], [69, true], said);
    const page = statusOf(closed.log());
    assert.deepEqual([await read(page, shown), await read(page)], ['alive\n', 'refused']);
    const next = await authority.issue('next');
    copyFileSync(next.privateKey, own.privateKey);
    copyFileSync(next.certificate, own.certificate);
    closed.child.kill('SIGHUP');
    while (closed.log().split('certificates reloaded').length < 3) await pause(20);
    assert.equal(await read(page, shown), 'alive\n');

    const local = [`--listen=unix://${path('s')}`, '--status=tls://127.0.0.1:0', ...words];
    const refused = await runExecutable(['serve', ...local]);
    assert.deepEqual([refused.status, /--insecure-status/.test(refused.stderr.toString())], [78, true]);
    const open = await serve(t, [...local, '--insecure-status']);
    assert.equal(await read(statusOf(open.log())), 'alive\n');
    // A handshake that does not begin keeps nobody out.
    const { port } = new URL(statusOf(open.log()).replace('tls:', 'https:'));
    const idle = Array.from({ length: 40 }, () => connect(Number(port), '127.0.0.1').on('error', () => {}));
    t.after(() => idle.forEach((socket) => void socket.destroy()));
    await Promise.all(idle.map((socket) => once(socket, 'connect')));
    for (let count = 0; count < 3; count++) assert.equal(await read(statusOf(open.log())), 'alive\n');
  });

  test('serve answers for its state elsewhere than on the loopback only where that is said', async (t) => {
    const { path, key } = workspace(t);
    const words = [`--listen=unix://${path('s')}`, `--key=${key('one')}`, '--status=tcp://0.0.0.0:0'];
    const refused = await runExecutable(['serve', ...words]);
    assert.equal(refused.status, 78);
    assert.match(refused.stderr.toString(), /--insecure-status/);
    await serve(t, [...words, '--insecure-status']);
  });
});
