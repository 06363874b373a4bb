// An outage of two seconds, as the executable lives through it: clients of ocicrypt never ask twice.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { asOcicryptError } from '../../src/base/errors.ts';
import type { Fault } from '../fakes/wire.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { EXECUTABLE } from '../fixtures/serve.ts';
import { base64, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';
import { createRecord, readPacket, replyOf } from '../kms/gcpkms/faults.ts';
import { FIRST, refusal, startWorld } from '../kms/gcpkms/world.ts';
import { callKeyProvider, startRunning } from '../server/running.ts';
import { startSubject } from './server/served.ts';

const KEY = `gcpkms://${FIRST}`;
const OUTAGE = 2000;
const CALLERS = 20;
const FAULTS: readonly Fault[] = [
  { kind: 'answer', ...refusal(503, 'UNAVAILABLE', '') },
  { kind: 'reset-before-headers' },
];

/** A port of this machine at which nothing listens. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

test('commands and all callers of a server wait for a service that is down, and who has less time hears why', async (t) => {
  const world = await startWorld();
  t.after(() => world.close());
  const keyprovider = (input: string | Uint8Array, words: readonly string[] = []) =>
    runExecutable(['keyprovider', `--allow=${KEY}`, ...world.words, ...words], { input });
  const { target, sample } = await startSubject(t, EXECUTABLE, { keys: [`--allow=${KEY}`, ...world.words] });
  const records = Array.from({ length: CALLERS + 1 }, createRecord);
  const packets: Buffer[] = [];
  for (const record of records) {
    packets.push(readPacket(await callKeyProvider(target, Buffer.from(wrapRequest([KEY], record)))));
  }
  const [requests = [], replies = []] = [
    packets.map((packet) => Buffer.from(unwrapRequest(packet))),
    records.map((record) => base64(replyOf(record))),
  ];
  const [own = Buffer.alloc(0), ...others] = requests;

  let faults = 0;
  const begun = performance.now();
  world.kms.server.setFault(({ path }) => {
    const isDown = path.includes('/cryptoKeys/') && performance.now() - begun < OUTAGE;
    return isDown ? FAULTS[faults++ % FAULTS.length] : undefined;
  });
  const nowhere = [`--gcp-endpoint=https://127.0.0.1:${await closedPort()}`, '--timeout=50s'];
  const [wrapped, unwrapped, hasty, lost, served] = await Promise.all([
    keyprovider(wrapRequest([KEY])),
    keyprovider(own),
    keyprovider(own, ['--timeout=1s']),
    keyprovider(own, nowhere),
    Promise.all(others.map((request) => callKeyProvider(target, request).catch(asOcicryptError))),
  ]);

  assert.deepEqual([wrapped.status, wrapped.stderr], [0, '']);
  assert.deepEqual([unwrapped.status, base64(unwrapped.stdout)], [0, replies[0]]);
  assert.deepEqual(
    served.map((reply) => (reply instanceof Uint8Array ? base64(reply) : reply.message)),
    replies.slice(1),
  );
  assert.equal(hasty.status, 69);
  assert.match(
    hasty.stderr,
    /unavailable: .*(?:is unavailable for .* \(503\)|ECONNRESET|broke off).*, tried \d times in/,
  );
  assert.equal(lost.status, 69);
  assert.match(lost.stderr, /unavailable: .*cannot reach 127\.0\.0\.1:\d+ \(\w+\), tried \d times in [123]\.\d s/);
  assert.ok(lost.milliseconds < 8000, `${lost.milliseconds} ms until it is said that nothing is there`);
  // Each of its callers once, one of them at a time from then on.
  const asked = await sample('ocicrypt_kms_key_calls_total', /code="(?!ok)/);
  t.diagnostic(`figures: ${asked} calls of the server and ${faults - asked} of commands met the outage`);
  assert.ok(asked >= 5 && asked <= CALLERS + 15, `${asked} calls for ${CALLERS} callers`);
});

test('a command waits for a server that restarts, and not for one that is not there', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'outage-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const remote = (name: string, input: string) =>
    runExecutable(['keyprovider', `--remote=unix://${directory}/${name}`], { input });
  const [wrapped, lost] = await Promise.all([
    remote('late', wrapRequest([])),
    remote('never', wrapRequest([])),
    sleep(800).then(() => startRunning(t, { listen: [`unix://${directory}/late`] })),
  ]);
  assert.deepEqual([wrapped.status, wrapped.stderr], [0, '']);
  assert.equal(lost.status, 69);
  assert.match(lost.stderr, /unavailable: no answer from unix:.*never \(ENOENT\), tried \d times in [123]\.\d s/);
});
