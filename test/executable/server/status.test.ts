// P24 P25 P26: no key without its audit line, health that tells the truth, and metrics whose labels nobody outside can choose.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { callOnce } from '../../../src/client/grpc-client.ts';
import { packetV1 } from '../../fixtures/packets.ts';
import { runs } from '../../fixtures/seed.ts';
import { unwrapRequest as unwrapPacket } from '../../fixtures/vectors/shape.ts';
import { FIRST, refusal, startWorld, type World } from '../../kms/gcpkms/world.ts';
import { callKeyProvider, callMany, checkHealth, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, readStatus, startSubject } from './served.ts';

const SERVICE = 'keyprovider.KeyProviderService';
const [OK, UNAVAILABLE] = ['0', '14'];
let world: World;
let directory = '';
before(async () => {
  world = await startWorld();
  directory = await mkdtemp(join(tmpdir(), 'status-'));
});
after(async () => {
  await world.close();
  await rm(directory, { recursive: true, force: true });
});

for (const { name, program } of PROGRAMS) {
  const file = (what: string) => join(directory, `${what}-${name.replace(' ', '-')}`);

  test(`who drips keeps nobody from the status page (${name})`, async (t) => {
    const { status } = await startSubject(t, program);
    const drip = (text: string) => {
      const socket = connect(status);
      const started = performance.now();
      socket.on('error', () => {});
      let sent = 0;
      const timer = setInterval(() => socket.write(text.charAt(sent++ % text.length)), 50);
      t.after(() => socket.destroy());
      return new Promise<number>((resolve) =>
        socket.once('close', () => {
          clearInterval(timer);
          resolve(performance.now() - started);
        }),
      );
    };
    const ended = Array.from({ length: 60 }, (_, index) => drip(index % 2 === 0 ? 'GET /metrics' : ' '));
    // Each is answered, although there are more who drip than places.
    for (let count = 0; count < 20; count++) assert.equal((await readStatus(status, '/livez')).status, 200);
    const longest = Math.max(...(await Promise.all(ended)));
    assert.ok(longest < 10_000, `${longest} ms`);
    assert.equal((await readStatus(status, '/metrics')).status, 200);
  });

  describe(`P24 no key leaves without its line in the audit log (${name})`, () => {
    test('on a disk that becomes full', async (t) => {
      const audit = file('limited');
      const calls = runs(300);
      const { target, path } = await startSubject(t, program, {
        words: [`--audit-log=${audit}`],
        // Blocks of 512 bytes: there is room for some of the lines.
        shell: 'ulimit -f 64; exec "$@"',
      });
      const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
      let released = 0;
      for (let sent = 0; sent < calls; sent += 300) {
        const replies = await callMany(path, new Array(300).fill(request));
        released += replies.filter(({ status }) => status === OK).length;
        for (const { status, frame } of replies)
          if (status !== OK) assert.deepEqual([status, frame], [UNAVAILABLE, '']);
      }
      const lines = readFileSync(audit, 'utf8')
        .split('\n')
        .filter((line) => line.endsWith('}'));
      const unwraps = lines.map((line) => JSON.parse(line)).filter(({ operation }) => operation === 'unwrap');
      t.diagnostic(`figures: ${calls} unwraps, ${released} released, ${unwraps.length} lines`);
      assert.ok(released > 0 && released <= unwraps.length && released < calls);
    });

    test('in a pipe that is closed, and in one that nobody empties', async (t) => {
      for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
        const pipe = file(signal);
        execFileSync('mkfifo', [pipe]);
        const reader = spawn('cat', [pipe], { stdio: ['ignore', 'ignore', 'ignore'] });
        t.after(() => reader.kill('SIGKILL'));
        // The reader must be there before the server.
        const shell = `sleep 0.5; exec "$@"`;
        const { target, path } = await startSubject(t, program, { words: [`--audit-log=${pipe}`], shell });
        const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
        reader.kill(signal);
        if (signal === 'SIGKILL') await once(reader, 'exit');
        const replies = await callMany(path, new Array(300).fill(request));
        const withheld = replies.filter(({ status, frame }) => status === UNAVAILABLE && frame === '').length;
        // A pipe holds 64 KiB until it is full.
        assert.ok(signal === 'SIGKILL' ? withheld === 300 : withheld > 0, `${withheld}`);
        assert.ok(replies.every(({ status }) => status === OK || status === UNAVAILABLE));
      }
    });
  });

  describe(`P25 health (${name})`, () => {
    test('a server is alive and ready, until its key does not work: then it is alive', async (t) => {
      const { target, status } = await startSubject(t, program, {
        keys: [`--allow=gcpkms://${FIRST}`, ...world.words],
      });
      assert.deepEqual([await checkHealth(target, ''), await checkHealth(target, SERVICE)], [1, 1]);
      assert.equal(await checkHealth(target, 'other'), 'not-found');
      for (const [page, body] of [
        ['/livez', 'alive\n'],
        ['/readyz', 'ready\n'],
      ] as const) {
        assert.deepEqual(await readStatus(status, page), { status: 200, body });
      }

      world.kms.server.setFault(() => ({ kind: 'answer', ...refusal(403, 'PERMISSION_DENIED', 'canary') }));
      t.after(() => world.kms.server.setFault(undefined));
      const other = await startSubject(t, program, { keys: [`--allow=gcpkms://${FIRST}`, ...world.words] });
      assert.deepEqual([await checkHealth(other.target, ''), await checkHealth(other.target, SERVICE)], [1, 2]);
      assert.deepEqual(await readStatus(other.status, '/readyz'), { status: 503, body: 'not ready\n' });
      assert.deepEqual(await readStatus(other.status, '/livez'), { status: 200, body: 'alive\n' });
    });

    test('users who ask for what they may not have, or too often, do not change it', async (t) => {
      const { target, path } = await startSubject(t, program, {
        keys: [`--allow=gcpkms://${FIRST}`, ...world.words, '--key-rate=1'],
      });
      assert.equal(await checkHealth(target, SERVICE), 1);
      const forged = Buffer.from(unwrapPacket(packetV1(`gcpkms://${FIRST}`, Buffer.alloc(60))));
      await callMany(path, new Array(100).fill(forged));
      assert.deepEqual([await checkHealth(target, ''), await checkHealth(target, SERVICE)], [1, 1]);
    });

    test('costs at most two calls of the key service in 30 s', async (t) => {
      const { target, status } = await startSubject(t, program, {
        keys: [`--allow=gcpkms://${FIRST}`, ...world.words],
      });
      const asked = world.kms.server.requests.length;
      for (let count = 0; count < 50; count++) {
        await checkHealth(target, SERVICE);
        await readStatus(status, '/readyz');
      }
      assert.equal(world.kms.server.requests.length - asked, 2);
    });
  });

  describe(`P26 metrics (${name})`, () => {
    test('have as many lines after many different hostile requests as after few', async (t) => {
      const { target, path, metrics } = await startSubject(t, program);
      const hostile = async (from: number, count: number) => {
        const bodies = Array.from({ length: count }, (_, offset) => {
          const index = from + offset;
          const key = `gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k${index}`;
          const wrap = { ec: { Parameters: { [`x${index}"\n`]: [btoa(key)] } }, optsdata: btoa('x') };
          return [
            JSON.stringify({ op: `x${index}"\n` }),
            unwrapPacket(packetV1(key, Buffer.from([index & 255]))),
            JSON.stringify({ op: 'keywrap', keywrapparams: wrap }),
          ][index % 3];
        });
        for (let sent = 0; sent < count; sent += 1000) {
          await callMany(
            path,
            bodies.slice(sent, sent + 1000).map((body) => Buffer.from(body ?? '')),
          );
        }
        for (let index = 0; index < 10; index++) {
          await callOnce(target, undefined, {
            method: `/x/y${from + index}`,
            message: new Uint8Array(),
            timeout: 1000,
            maximumReply: 100,
            signal: AbortSignal.timeout(2000),
          }).catch(() => {});
        }
        return (await metrics()).split('\n').map((line) => line.replace(/ [^ ]+$/, ''));
      };
      await callKeyProvider(target, wrapRequest());
      const few = await hostile(0, 12);
      const many = await hostile(12, runs(1000));
      assert.deepEqual(
        many.filter((series) => !few.includes(series)),
        [],
      );
      assert.doesNotMatch(await metrics(), /cryptoKeys|x\d+"|\/x\/y/);
    });
  });
}
