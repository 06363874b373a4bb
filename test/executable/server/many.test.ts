// P7 P9 P10 P11: many callers, and key services that are slow, wrong or silent.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Address } from '../../../src/base/address.ts';
import { asOcicryptError, OcicryptError } from '../../../src/base/errors.ts';
import { encodeBytesField } from '../../../src/base/grpc.ts';
import { callOnce } from '../../../src/client/grpc-client.ts';
import { DEFAULT_LIMITS } from '../../../src/provider/attempts.ts';
import { packetV1 } from '../../fixtures/packets.ts';
import { runs, seeded } from '../../fixtures/seed.ts';
import { unwrapRequest as unwrapPacket } from '../../fixtures/vectors/shape.ts';
import { unwrapUnderFaults } from '../../kms/gcpkms/faults.ts';
import { FIRST, RING, startWorld, type World } from '../../kms/gcpkms/world.ts';
import { callKeyProvider, callMany, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, startSubject } from './served.ts';

let world: World;
before(async () => {
  world = await startWorld();
});
after(() => world.close());

const keys = () => [`--allow=gcpkms://${FIRST}`, ...world.words];
const decryptions = () => world.kms.server.requests.filter((line) => line.endsWith(':decrypt')).length;
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => 'ok',
    (error) => asOcicryptError(error).code,
  );

/** An unwrap of a new layer key. */
async function newUnwrap(target: Address): Promise<Uint8Array> {
  return unwrapRequest(await callKeyProvider(target, wrapRequest(randomBytes(32).toString('base64'))));
}

/** Until `release`, every answer of the service is held back. */
function hold(): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  world.kms.server.setFault(() => ({ kind: 'held', until: promise }));
  return () => {
    world.kms.server.setFault(undefined);
    resolve();
  };
}

for (const { name, program } of PROGRAMS) {
  describe(`P7 many at once (${name})`, () => {
    test('1,000 concurrent unwraps all succeed', async (t) => {
      const { target, path } = await startSubject(t, program, { words: ['--timeout=50s'] });
      const replies = await callMany(path, new Array(1000).fill(await newUnwrap(target)));
      assert.deepEqual([...new Set(replies.map(({ status }) => status))], ['0']);
    });

    test('what does not fit in the queue is refused at once, and nothing is dropped', async (t) => {
      const words = ['--max-calls=2', '--max-queue=3', '--timeout=50s'];
      const { target, path, reaches } = await startSubject(t, program, { keys: keys(), words });
      const requests: Uint8Array[] = [];
      while (requests.length < 8) requests.push(await newUnwrap(target));
      const release = hold();
      const replies = callMany(path, requests);
      await reaches('ocicrypt_kms_active_calls', 2);
      await reaches('ocicrypt_kms_queued_calls', 3);
      await reaches('ocicrypt_kms_calls_total', 3, /RESOURCE_EXHAUSTED/);
      release();
      assert.deepEqual((await replies).map(({ status }) => status).sort(), [...'00000888']);
    });
  });

  describe(`P9 one key service, many callers (${name})`, () => {
    test('1,000 identical unwraps at once make one call, and each has its own audit line', async (t) => {
      const audit = join(world.directory, `audit-${randomBytes(4).toString('hex')}`);
      const words = ['--max-calls=1000', '--timeout=50s', `--audit-log=${audit}`];
      const { target, path, reaches } = await startSubject(t, program, { keys: keys(), words });
      const request = await newUnwrap(target);
      const called = decryptions();
      const release = hold();
      const calls = callMany(path, new Array(1000).fill(request));
      await reaches('ocicrypt_kms_key_limits_total', 999, /joined/);
      release();
      const replies = await calls;
      assert.equal(decryptions() - called, 1);
      assert.deepEqual([...new Set(replies.map(({ status }) => status))], ['0']);
      assert.equal(new Set(replies.map(({ frame }) => frame)).size, 1);
      const lines = readFileSync(audit, 'utf8').trimEnd().split('\n');
      assert.equal(new Set(lines.map((line) => JSON.parse(line).id)).size, 1001);
    });

    test(seeded('a manifest with thousands of bad annotations costs as many calls as the rate allows'), async (t) => {
      const annotations = runs(500);
      const words = ['--key-rate=10', '--timeout=3s', `--allow=gcpkms://${RING}/*`];
      const { path } = await startSubject(t, program, { keys: keys(), words });
      const called = decryptions();
      const started = performance.now();
      const statuses = new Set<string>();
      for (let sent = 0; sent < annotations; sent += 500) {
        // Every second one names a key of its own, below the prefix.
        const forged = Array.from({ length: 500 }, (_, index) => {
          const key = index % 2 === 0 ? FIRST : `${RING}/cryptoKeys/k${sent + index}`;
          return Buffer.from(unwrapPacket(packetV1(`gcpkms://${key}`, randomBytes(60))));
        });
        for (const { status } of await callMany(path, forged)) statuses.add(status);
      }
      const seconds = (performance.now() - started) / 1000;
      const calls = decryptions() - called;
      t.diagnostic(`figures: ${annotations} annotations, ${calls} calls in ${seconds.toFixed(1)} s`);
      assert.ok(calls <= 2 * (50 + 10 * (seconds + 1)), `${calls} calls in ${seconds} s`);
      // RESOURCE_EXHAUSTED if the service was not asked, DATA_LOSS or NOT_FOUND if it was, DEADLINE_EXCEEDED if a busy machine
      // answered late.
      assert.ok(statuses.delete('8'));
      assert.ok(
        statuses.size > 0 && [...statuses].every((status) => ['15', '5', '4'].includes(status)),
        [...statuses].join(),
      );
    });
  });

  // On Node, without a process between: test/kms/gcpkms/promises.test.ts.
  describe(`P10 faults of the key service end in the right key or an error (${name})`, {
    skip: name === 'Node',
  }, () => {
    for (const [plan, rate] of [
      ['unwraps', 0.97],
      ['all', 0],
    ] as const) {
      test(seeded(`faults of ${plan}`), async (t) => {
        const words = ['--provider=kmscrypt', '--key-rate=100000'];
        const { target } = await startSubject(t, program, {
          keys: [`--allow=gcpkms://${RING}/*`, ...world.words],
          words,
        });
        const unwraps = runs(plan === 'all' ? 60 : 300);
        const report = await unwrapUnderFaults(world, {
          ...{ unwraps, limits: DEFAULT_LIMITS, parallel: 60 },
          plan: plan === 'all' ? { kind: 'all' } : { kind: 'unwraps', rate: 0.2 },
          handle: (request) => callKeyProvider(target, request),
        });
        const { succeeded, wrongKeys, hangs, longest } = report;
        const share = ((succeeded / unwraps) * 100).toFixed(2);
        t.diagnostic(`figures: ${unwraps} unwraps, ${wrongKeys} wrong keys, ${hangs} hangs, ${share} % succeeded`);
        assert.deepEqual([wrongKeys, hangs], [0, 0], JSON.stringify(report));
        assert.ok(succeeded >= unwraps * rate, JSON.stringify(report));
        assert.ok(longest < DEFAULT_LIMITS.total + 2000, `${longest} ms`);
      });
    }
  });

  describe(`P11 every call ends (${name})`, () => {
    const silent = () => world.kms.server.setFault(() => ({ kind: 'silent' }));
    const call = (target: Address, request: Uint8Array, timeout: number, signal: AbortSignal) =>
      callOnce(target, undefined, {
        method: '/keyprovider.KeyProviderService/UnWrapKey',
        message: encodeBytesField(request),
        maximumReply: 1000,
        ...{ timeout, signal },
      });

    test('with the deadline of the server, where the client has none to speak of', async (t) => {
      const { target } = await startSubject(t, program, { keys: keys(), words: ['--timeout=2s'] });
      const request = await newUnwrap(target);
      silent();
      t.after(() => world.kms.server.setFault(undefined));
      const started = performance.now();
      const forever = new AbortController().signal;
      assert.equal(await codeOf(call(target, request, 3_600_000, forever)), 'deadline-exceeded');
      assert.ok(performance.now() - started < 20_000);
    });

    test('with the deadline of the client, where it is the shorter, and the work with it', async (t) => {
      const { target, reaches } = await startSubject(t, program, { keys: keys() });
      const request = await newUnwrap(target);
      silent();
      t.after(() => world.kms.server.setFault(undefined));
      assert.equal(await codeOf(call(target, request, 100, new AbortController().signal)), 'deadline-exceeded');
      await reaches('ocicrypt_kms_key_calls_total', 1, /code="deadline-exceeded"/);
    });

    test('when its caller leaves, and the work of the key service with it', async (t) => {
      const { target, reaches } = await startSubject(t, program, { keys: keys() });
      const request = await newUnwrap(target);
      silent();
      t.after(() => world.kms.server.setFault(undefined));
      const caller = new AbortController();
      const left = call(target, request, 10_000, caller.signal);
      await reaches('ocicrypt_kms_active_calls', 1);
      caller.abort(new OcicryptError('deadline-exceeded', 'left'));
      await assert.rejects(left);
      await reaches('ocicrypt_kms_active_calls', 0);
      await reaches('ocicrypt_kms_key_calls_total', 1, /code="deadline-exceeded"/);
    });
  });
}
