// P18 P19: sockets that are closed to others from the start, taken over when stale, and left alone when not ours.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { formatAddress } from '../../src/base/address.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import { parseGrpcPort, parseListenAddress } from '../../src/server/address.ts';
import { listenOnUnixSocket } from '../../src/server/unix-socket.ts';
import { callKeyProvider, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

const refused = (work: Promise<unknown>) =>
  work.then(
    () => assert.fail('it was not refused'),
    (error) => asOcicryptError(error).code,
  );

async function listensOn(t: TestContext, path: string): Promise<boolean> {
  const { target } = await startRunning(t, { listen: [`unix://${path}`] });
  await callKeyProvider(target, wrapRequest());
  return true;
}

describe('P19 only we can connect', () => {
  test('nobody ever sees it unfinished: the first look at its name finds its mode', async (t) => {
    const path = join(await temporaryDirectory(t), 's');
    const looking = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
      const { statSync } = require('node:fs');
      parentPort.postMessage('looking');
      for (let found; ; ) if ((found = statSync(workerData, { throwIfNoEntry: false }))) {
        parentPort.postMessage(found.mode & 0o777);
        break;
      }`,
      { eval: true, workerData: path },
    );
    t.after(() => looking.terminate());
    await once(looking, 'message');
    const access = { mode: 0o660, group: String(process.getgid?.()) };
    const listener = { access, tls: undefined, insecurePlaintext: false };
    const seen = once(looking, 'message');
    await startRunning(t, { listen: [`unix://${path}`], server: { listener } });
    assert.deepEqual(await seen, [0o660]);
  });

  test('its group may, where that is said', async (t) => {
    const path = join(await temporaryDirectory(t), 's');
    const access = { mode: 0o660, group: String(process.getgid?.()) };
    await startRunning(t, {
      listen: [`unix://${path}`],
      server: { listener: { access, tls: undefined, insecurePlaintext: false } },
    });
    assert.equal(statSync(path).mode & 0o777, 0o660);
    assert.equal(statSync(path).gid, process.getgid?.());
  });

  test('a directory in which others can replace the socket is refused, a sticky one is not', async (t) => {
    const directory = join(await temporaryDirectory(t), 'open');
    mkdirSync(directory);
    chmodSync(directory, 0o777);
    assert.equal(await refused(listensOn(t, join(directory, 's'))), 'configuration');
    mkdirSync(join(directory, 'below'), { mode: 0o700 });
    assert.equal(await refused(listensOn(t, join(directory, 'below', 's'))), 'configuration');
    chmodSync(directory, 0o1777);
    assert.ok(await listensOn(t, join(directory, 's')));
  });

  test('an unknown group is refused before anything listens', async (t) => {
    const path = join(await temporaryDirectory(t), 's');
    const access = { mode: 0o660, group: 'no-such-group' };
    const options = {
      listen: [`unix://${path}`],
      server: { listener: { access, tls: undefined, insecurePlaintext: false } },
    };
    assert.equal(await refused(startRunning(t, options)), 'configuration');
    assert.ok(!existsSync(path));
  });
});

describe('P18 what is at the path already', () => {
  test('a socket that a killed server left is taken over', async (t) => {
    const path = join(await temporaryDirectory(t), 's');
    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.ok(existsSync(path));
    assert.ok(await listensOn(t, path));
  });

  test('a live server is left alone', async (t) => {
    const path = join(await temporaryDirectory(t), 's');
    const other = createServer((socket) => socket.destroy());
    t.after(() => other.close());
    other.listen(path);
    await once(other, 'listening');
    assert.equal(await refused(listensOn(t, path)), 'configuration');
    assert.ok(existsSync(path));
  });

  test('a file, a directory and a link are left alone', async (t) => {
    const directory = await temporaryDirectory(t);
    const [file, below, link] = ['file', 'directory', 'link'].map((name) => join(directory, name));
    assert.ok(file !== undefined && below !== undefined && link !== undefined);
    writeFileSync(file, 'kept');
    mkdirSync(below);
    symlinkSync(file, link);
    for (const path of [file, below, link]) {
      assert.equal(await refused(listensOn(t, path)), 'configuration');
      assert.ok(existsSync(path));
    }
  });

  test('a server that ends takes its socket with it, and no other that stands there by then', async (t) => {
    const { server, directory } = await startRunning(t);
    const path = join(directory, 's');
    assert.ok(existsSync(path));
    await server.drain();
    assert.deepEqual(readdirSync(directory), ['key']);
    const first = await startRunning(t, { listen: [`unix://${path}`] });
    renameSync(path, join(directory, 'away'));
    await startRunning(t, { listen: [`unix://${path}`] });
    const { ino } = statSync(path);
    await first.server.drain();
    first.server.close();
    assert.equal(statSync(path).ino, ino);
    await callKeyProvider({ kind: 'unix', path }, wrapRequest());
  });

  test('of many that start over one stale socket exactly one serves, and nothing else is left', async (t) => {
    const directory = await temporaryDirectory(t);
    const path = join(directory, 's');
    for (let round = 0; round < 10; round++) {
      await leaveSocket(path);
      const servers = Array.from({ length: 8 }, () => createServer((socket) => socket.destroy()));
      const started = await Promise.allSettled(
        servers.map((server) => listenOnUnixSocket(server, path, { mode: 0o600, group: undefined })),
      );
      const serving = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      assert.equal(serving.length, 1);
      for (const one of started) {
        if (one.status === 'rejected') assert.equal(asOcicryptError(one.reason).code, 'configuration');
      }
      assert.equal(servers.filter(({ listening }) => listening).length, 1);
      assert.ok(await answers(path));
      assert.deepEqual(readdirSync(directory), ['s']);
      serving[0]?.close();
      assert.deepEqual(readdirSync(directory), []);
    }
  });

  test('a claim that a killed start left keeps nobody out', async (t) => {
    const directory = await temporaryDirectory(t);
    const path = join(directory, 's');
    await leaveSocket(path);
    linkSync(path, join(directory, '.s.claim'));
    const [server, started] = [createServer(), Date.now()];
    const socket = await listenOnUnixSocket(server, path, { mode: 0o600, group: undefined });
    assert.ok(Date.now() - started > 500);
    socket.close();
    assert.deepEqual(readdirSync(directory), []);
  });
});

/** What a killed server leaves. */
async function leaveSocket(path: string): Promise<void> {
  const server = createServer();
  server.listen(`${path}.other`);
  await once(server, 'listening');
  linkSync(`${path}.other`, path);
  await new Promise((resolve) => server.close(resolve));
}

async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  const answered = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error')]).catch(
    () => false,
  );
  socket.destroy();
  return answered === true;
}

describe('addresses', () => {
  test('come back as they were given', () => {
    for (const text of [
      'unix:///a/b',
      'tls://0.0.0.0:1',
      'tls://[::1]:2',
      'tcp://localhost:65535',
      'tls://a.b-c.example:0',
    ]) {
      assert.equal(formatAddress(parseListenAddress(text)), text);
    }
  });

  test('that are none are refused', () => {
    const texts = ['', '/a', 'unix://a', 'unix:@a', 'unix://@a', 'unix:', `unix:///${'a'.repeat(107)}`, 'tcp://:1'];
    for (const text of [
      ...texts,
      'tls://a',
      'tls://a:65536',
      'tls://[a]:1',
      'http://a:1',
      'tls://u@a:1',
      'tls://a:1/x',
    ]) {
      assert.throws(
        () => parseListenAddress(text),
        (error) => asOcicryptError(error).code === 'configuration',
        text,
      );
    }
  });

  test("the reference server's port is one of the loopback", () => {
    assert.deepEqual(parseGrpcPort(':50051'), { kind: 'tcp', host: '127.0.0.1', port: 50_051 });
    assert.deepEqual(parseGrpcPort('50051'), { kind: 'tcp', host: '127.0.0.1', port: 50_051 });
    assert.throws(() => parseGrpcPort('port'));
  });

  test('a place that is named twice is refused', async (t) => {
    const listen = ['tcp://127.0.0.1:50999', 'tcp://127.0.0.1:50999'];
    assert.equal(await refused(startRunning(t, { listen })), 'configuration');
  });

  test('where one cannot be had, none is left listening', async (t) => {
    const directory = await temporaryDirectory(t);
    writeFileSync(join(directory, 'file'), '');
    const listen = [`unix://${directory}/s`, `unix://${directory}/file`];
    assert.equal(await refused(startRunning(t, { listen })), 'configuration');
    assert.ok(!existsSync(join(directory, 's')));
  });

  test('clear text stays on the loopback, and has to be said', async (t) => {
    const server = (insecurePlaintext: boolean) => ({
      listener: { access: { mode: 0o600, group: undefined }, tls: undefined, insecurePlaintext },
    });
    const start = (listen: string, insecure: boolean) =>
      startRunning(t, { listen: [listen], server: server(insecure) });
    assert.equal(await refused(start('tcp://0.0.0.0:0', true)), 'configuration');
    assert.equal(await refused(start('tcp://127.0.0.1:0', false)), 'configuration');
    assert.equal(await refused(start('tls://127.0.0.1:0', true)), 'configuration');
    const { target } = await start('tcp://127.0.0.1:0', true);
    await callKeyProvider(target, wrapRequest());
  });

  test('several are served at the same time', async (t) => {
    const directory = await temporaryDirectory(t);
    const { targets } = await startRunning(t, {
      listen: [`unix://${directory}/a`, `unix://${directory}/b`, 'tcp://127.0.0.1:0'],
    });
    for (const target of targets) await callKeyProvider(target, wrapRequest());
    assert.equal(targets.length, 3);
  });
});
