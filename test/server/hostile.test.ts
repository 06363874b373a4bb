// P5 P6: connections that only do harm are closed, memory stays bounded, and good callers are served meanwhile.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  CALL_HEADERS,
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  headerBlock,
  messageStart,
  openRaw,
  type RawConnection,
} from './raw-http2.ts';
import { callKeyProvider, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

const HEADERS = headerBlock(CALL_HEADERS);

/** What an attacker does with a connection. */
type Attack = (connection: RawConnection) => void;

const many = (one: Buffer) => Buffer.concat(new Array<Buffer>(200).fill(one));

/** Streams have odd numbers that only grow. */
function streams(make: (stream: number) => readonly Buffer[]): () => Buffer {
  let next = 1;
  return () => {
    const first = next;
    next += 200;
    return Buffer.concat(Array.from({ length: 100 }, (_, index) => Buffer.concat(make(first + 2 * index))));
  };
}

const FLOODS: Readonly<Record<string, Attack>> = {
  'rapid reset': ({ flood }) =>
    flood(
      streams((stream) => [
        frame(FRAME.headers, END_HEADERS, stream, HEADERS),
        frame(FRAME.reset, 0, stream, Buffer.from([0, 0, 0, 8])),
      ]),
    ),
  'PING frames': ({ flood }) => flood(() => many(frame(FRAME.ping, 0, 0, Buffer.alloc(8)))),
  'SETTINGS frames': ({ flood }) => flood(() => many(frame(FRAME.settings, 0, 0))),
  'PRIORITY frames': ({ flood }) => flood(() => many(frame(FRAME.priority, 0, 3, Buffer.from([0, 0, 0, 0, 15])))),
  'CONTINUATION frames': ({ flood, send }) => {
    send(frame(FRAME.headers, 0, 1, HEADERS));
    flood(() => frame(FRAME.continuation, 0, 1, headerBlock({ 'x-more': 'y'.repeat(4000) })));
  },
  'calls without a body': ({ flood }) =>
    flood(streams((stream) => [frame(FRAME.headers, END_HEADERS | END_STREAM, stream, HEADERS)])),
  garbage: ({ flood }) => flood(() => Buffer.alloc(4096, 0x5a)),
  'nothing at all': () => {},
  'headers byte by byte': ({ socket }) => {
    const bytes = frame(FRAME.headers, END_HEADERS, 1, HEADERS);
    let sent = 0;
    const timer = setInterval(() => socket.write(bytes.subarray(sent, ++sent)), 100);
    socket.once('close', () => clearInterval(timer));
  },
  'half a message': ({ send }) => {
    for (let stream = 1; stream < 32; stream += 2) {
      send(
        frame(FRAME.headers, END_HEADERS, stream, HEADERS),
        frame(FRAME.data, 0, stream, messageStart(200_000, 1000)),
      );
    }
  },
};

describe('P6 a connection that only does harm is closed, and the others go on', () => {
  for (const [name, attack] of Object.entries(FLOODS)) {
    test(name, async (t) => {
      const { target, directory } = await startRunning(t);
      const hostile = openRaw(join(directory, 's'));
      attack(hostile);
      // Callers that come meanwhile are served.
      for (let calls = 0; calls < 3; calls++) await callKeyProvider(target, wrapRequest());
      // The time to the first request is 2 s, and the clock is looked at four times a second.
      assert.ok((await hostile.closed) < 4000);
      await callKeyProvider(target, wrapRequest());
    });
  }

  test('a rapid reset is cut before 2,500 streams', async (t) => {
    const { directory, instruments } = await startRunning(t);
    const hostile = openRaw(join(directory, 's'));
    let opened = 0;
    hostile.flood(
      streams((stream) => {
        opened = Math.max(opened, (stream + 1) / 2);
        return [
          frame(FRAME.headers, END_HEADERS, stream, HEADERS),
          frame(FRAME.reset, 0, stream, Buffer.from([0, 0, 0, 8])),
        ];
      }),
    );
    await hostile.closed;
    const calls = /ocicrypt_kms_calls_total\{[^}]*\} (\d+)/.exec(instruments.render())?.[1] ?? '0';
    assert.ok(Number(calls) < 2500, `${calls} of ${opened} streams were looked at`);
  });

  test('replies that nobody reads end the connection', async (t) => {
    const { directory, target } = await startRunning(t);
    const socket = connect(join(directory, 's'));
    socket.on('error', () => {});
    socket.pause();
    const hostile = openRaw(join(directory, 's'));
    hostile.socket.pause();
    hostile.flood(streams((stream) => [frame(FRAME.headers, END_HEADERS | END_STREAM, stream, HEADERS)]));
    hostile.socket.resume();
    await hostile.closed;
    socket.destroy();
    await callKeyProvider(target, wrapRequest());
  });
});

describe('P5 memory stays under 200 MiB with 300 hostile connections', () => {
  for (const name of ['rapid reset', 'half a message', 'PING frames', 'CONTINUATION frames']) {
    const attack = FLOODS[name] ?? (() => {});
    test(name, async (t) => {
      const { path, residentMiB } = await startChild(t);
      const hostile = Array.from({ length: 300 }, () => openRaw(path));
      t.after(() => {
        for (const { socket } of hostile) socket.destroy();
      });
      for (const connection of hostile) attack(connection);
      const until = performance.now() + 2500;
      let highest = 0;
      while (performance.now() < until) {
        await callKeyProvider({ kind: 'unix', path }, wrapRequest());
        highest = Math.max(highest, await residentMiB());
        await new Promise((resolve) => setTimeout(resolve, 25));
      }
      t.diagnostic(`${Math.round(highest)} MiB`);
      // What is shipped runs on Bun. Node begins at 100 MiB where it strips types, and was seen at 260.
      assert.ok(highest <= ('bun' in process.versions ? 200 : 350), `${Math.round(highest)} MiB`);
    });
  }
});

/** The server in a process of its own, on the runtime of the test. */
async function startChild(t: TestContext) {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 's');
  const script = fileURLToPath(new URL('hostile-child.ts', import.meta.url));
  const child: ChildProcess = spawn(process.execPath, [script, directory], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const { stdin, stdout } = child;
  assert.ok(stdin !== null && stdout !== null);
  await once(stdout, 'data');
  const residentMiB = async () => {
    stdin.write('?');
    const [answer] = await once(stdout, 'data');
    return Number(String(answer)) / 1024 / 1024;
  };
  return { path, residentMiB };
}
