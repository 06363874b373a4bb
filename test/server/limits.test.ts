// P9 P11: what callers share, and callers that leave. What many of them do to a whole server: test/executable/server/many.test.ts.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { markCall } from '../../src/base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { encodeBytesField, encodeFrame } from '../../src/base/grpc.ts';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { callOnce } from '../../src/client/grpc-client.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { createKekSharing } from '../../src/kms/sharing.ts';
import type { ProviderOptions } from '../../src/provider/handle.ts';
import { CallGate, type Holder, PAGE_BYTES, PageBudget } from '../../src/server/limits.ts';
import { MessageReceiver } from '../../src/server/message.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import {
  callKeyProvider,
  type RunningOptions,
  startRunning,
  temporaryDirectory,
  unwrapRequest,
  wrapRequest,
} from './running.ts';

const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k';

/** A key service's key that counts its calls and answers as `answer` says; wrapping is by exclusive or. */
function remoteKek(answer: (signal: AbortSignal) => Promise<void>): Kek & { readonly calls: () => number } {
  let calls = 0;
  const flip = (bytes: Uint8Array) => bytes.map((byte) => byte ^ 0x5a);
  return {
    local: false,
    key: KEY,
    calls: () => calls,
    wrap: async (plaintext) => ({ key: KEY, version: '1', algorithm: 'XOR', wrapped: flip(plaintext) }),
    unwrap: async ({ wrapped }, _context, signal) => {
      calls++;
      await answer(signal);
      return flip(wrapped);
    },
  };
}

const SHARING = { rate: { perSecond: 10, burst: 10 }, waiting: 100 };

const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** The server's set-up with a key of a service, shared as `serve` shares it. */
function sharing(kek: Kek, rate: number, more: Partial<ProviderOptions> = {}): RunningOptions {
  const share = createKekSharing({ rate: { perSecond: rate, burst: rate }, waiting: 100 });
  return {
    kek,
    provider: { openKek: async () => share(kek), rules: [{ kind: 'key', uri: parseKeyUri(KEY) }], ...more },
  };
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'ok',
    (error) => asOcicryptError(error).code,
  );

describe('P9 one key service, many callers', () => {
  test('the call goes on while one caller waits, and ends with the last', async () => {
    let ended = false;
    const kek = remoteKek(
      (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            ended = true;
            reject(signal.reason);
          });
        }),
    );
    const shared = createKekSharing(SHARING)(kek);
    const wrapped = { key: KEY, algorithm: 'XOR', wrapped: new Uint8Array(32) };
    const [first, second] = [new AbortController(), new AbortController()];
    const reason = new OcicryptError('deadline-exceeded', 'left');
    const calls = [first, second].map(({ signal }) => codeOf(shared.unwrap(wrapped, {}, signal)));
    first.abort(reason);
    assert.equal(await calls[0], 'deadline-exceeded');
    assert.equal(ended, false);
    second.abort(reason);
    assert.equal(await calls[1], 'deadline-exceeded');
    assert.equal(ended, true);
    assert.equal(kek.calls(), 1);
  });

  test('callers get copies, which they may wipe', async () => {
    const shared = createKekSharing(SHARING)(remoteKek(() => pause(20)));
    const wrapped = { key: KEY, algorithm: 'XOR', wrapped: new Uint8Array(32) };
    const signal = new AbortController().signal;
    const [one, other] = await Promise.all([shared.unwrap(wrapped, {}, signal), shared.unwrap(wrapped, {}, signal)]);
    one?.fill(0);
    assert.ok(other?.every((byte) => byte === 0x5a));
  });

  test('a caller that comes when the last has left begins a call of its own', async () => {
    const kek = remoteKek((signal) =>
      Promise.race([
        pause(20),
        new Promise<never>((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        }),
      ]),
    );
    const events: string[] = [];
    const shared = createKekSharing(SHARING, (event) => events.push(event))(kek);
    const wrapped = { key: KEY, algorithm: 'XOR', wrapped: new Uint8Array(32) };
    const leaver = new AbortController();
    const left = codeOf(shared.unwrap(wrapped, {}, leaver.signal));
    leaver.abort(new OcicryptError('deadline-exceeded', 'left'));
    const calls = [1, 2].map(() => codeOf(shared.unwrap(wrapped, {}, new AbortController().signal)));
    assert.deepEqual(await Promise.all([left, ...calls]), ['deadline-exceeded', 'ok', 'ok']);
    assert.deepEqual(events, ['joined']);
  });

  test('nothing of the result is kept once callers are answered, nor once they have left', async () => {
    const results: Uint8Array[] = [];
    const kek: Kek = {
      ...remoteKek(async () => {}),
      unwrap: async () => {
        await pause(20);
        const result = new Uint8Array(32).fill(7);
        results.push(result);
        return result;
      },
    };
    const shared = createKekSharing(SHARING)(kek);
    const wrapped = { key: KEY, algorithm: 'XOR', wrapped: new Uint8Array(32) };
    const leaver = new AbortController();
    const calls = [new AbortController(), leaver].map(({ signal }) => shared.unwrap(wrapped, {}, signal));
    leaver.abort(new OcicryptError('deadline-exceeded', 'left'));
    const [one, left] = await Promise.allSettled(calls);
    await pause(0);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(results, [new Uint8Array(32)]);
    assert.ok(one?.status === 'fulfilled' && one.value.every((byte) => byte === 7));
    assert.equal(left?.status, 'rejected');
    // A second call is made anew, and its result comes when its caller has left.
    const late = new AbortController();
    const ended = codeOf(shared.unwrap(wrapped, {}, late.signal));
    late.abort(new OcicryptError('deadline-exceeded', 'left'));
    assert.equal(await ended, 'deadline-exceeded');
    await pause(40);
    assert.deepEqual(results, [new Uint8Array(32), new Uint8Array(32)]);
  });

  test('another context or another packet is another call', async () => {
    const kek = remoteKek(() => pause(20));
    const shared = createKekSharing(SHARING)(kek);
    const signal = new AbortController().signal;
    const wrapped = { key: KEY, algorithm: 'XOR', wrapped: new Uint8Array(32) };
    await Promise.all([
      shared.unwrap(wrapped, {}, signal),
      shared.unwrap({ ...wrapped, version: undefined }, {}, signal),
      shared.unwrap({ ...wrapped, key: `${KEY}2` }, {}, signal),
      shared.unwrap({ ...wrapped, algorithm: 'XOR2' }, {}, signal),
      shared.unwrap(wrapped, { env: 'prod' }, signal),
      shared.unwrap({ ...wrapped, version: '2' }, {}, signal),
      shared.unwrap({ ...wrapped, wrapped: new Uint8Array(33) }, {}, signal),
    ]);
    assert.equal(kek.calls(), 6);
  });
});

describe('P11 every call ends', () => {
  const silent = () => remoteKek(() => new Promise(() => {}));

  test('with the deadline of the server, where the client has none', async (t) => {
    const options = sharing(silent(), 100);
    const { target } = await startRunning(t, { ...options, limits: { call: 200 } });
    const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
    const started = performance.now();
    assert.equal(await codeOf(callKeyProvider(target, request)), 'deadline-exceeded');
    assert.ok(performance.now() - started < 2000);
  });

  test('with the deadline of the client, where it is the shorter', async (t) => {
    const { target } = await startRunning(t, sharing(silent(), 100));
    const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
    const ended = callOnce(target, undefined, {
      method: '/keyprovider.KeyProviderService/UnWrapKey',
      message: encodeBytesField(request),
      timeout: 100,
      maximumReply: 1000,
      signal: new AbortController().signal,
    });
    assert.equal(await codeOf(ended), 'deadline-exceeded');
  });

  test('with what the service says, where the client would else only hear that its time is over', async (t) => {
    let calls = 0;
    const kek = remoteKek(() => {
      calls++;
      return Promise.reject(new OcicryptError('unavailable', 'it is down', { retryable: true }));
    });
    const { target } = await startRunning(t, sharing(kek, 100));
    const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
    const ended = callOnce(target, undefined, {
      method: '/keyprovider.KeyProviderService/UnWrapKey',
      message: encodeBytesField(request),
      timeout: 600,
      maximumReply: 1000,
      signal: new AbortController().signal,
    });
    const error = await ended.then(() => assert.fail('it succeeded'), asOcicryptError);
    assert.equal(error.code, 'unavailable');
    assert.match(error.message, /it is down, tried \d times in 0\.[45] s/);
    assert.ok(calls > 1, `${calls} calls`);
  });

  test('a caller that leaves ends the work of the key service', async (t) => {
    const left = Promise.withResolvers<number>();
    const kek = remoteKek(
      (signal) => new Promise(() => signal.addEventListener('abort', () => left.resolve(performance.now()))),
    );
    const { target } = await startRunning(t, sharing(kek, 100));
    const request = unwrapRequest(await callKeyProvider(target, wrapRequest()));
    const controller = new AbortController();
    const call = callOnce(target, undefined, {
      method: '/keyprovider.KeyProviderService/UnWrapKey',
      message: encodeBytesField(request),
      timeout: 10_000,
      maximumReply: 1000,
      signal: controller.signal,
    });
    while (kek.calls() === 0) await pause(5);
    controller.abort(new OcicryptError('deadline-exceeded', 'left'));
    await assert.rejects(call);
    await left.promise;
  });
});

describe('the counters that connections share', () => {
  test('the oldest unfinished request gives way', () => {
    const evicted: string[] = [];
    const budget = new PageBudget(3 * PAGE_BYTES);
    const holder = (name: string): Holder => ({ pages: [], evict: () => void evicted.push(name) });
    const [one, two, three] = [holder('one'), holder('two'), holder('three')];
    for (const [index, who] of [one, two, two, three].entries()) budget.take(who)?.fill(index + 1);
    assert.deepEqual(evicted, ['one']);
    assert.equal(budget.total, 3 * PAGE_BYTES);
    budget.release(two);
    budget.release(two);
    assert.equal(budget.total, PAGE_BYTES);
    // What others have sent is in no page that is used again.
    for (let taken = 0; taken < 2; taken++) assert.deepEqual(budget.take(three), new Uint8Array(PAGE_BYTES));
    assert.equal(budget.take(three), undefined);
  });

  test('a request that is whole gives way to none, and is counted until its work has ended', () => {
    const budget = new PageBudget(2 * PAGE_BYTES);
    const receive = (length: number) => {
      const receiver = new MessageReceiver(budget, length, () => assert.fail('it was evicted'));
      return { receiver, failure: receiver.push(encodeFrame(new Uint8Array(length))) };
    };
    const first = receive(PAGE_BYTES).receiver;
    assert.ok(first.finish() instanceof Uint8Array);
    assert.equal(receive(2 * PAGE_BYTES).failure?.status, 8);
    first.release();
  });

  test('a message is the same whatever pieces it comes in, and leaves its pages', () => {
    const budget = new PageBudget(64 * PAGE_BYTES);
    const message = randomBytes(3 * PAGE_BYTES + 1);
    for (const piece of [1, 7, PAGE_BYTES - 5, PAGE_BYTES, PAGE_BYTES + 1, 4 * PAGE_BYTES]) {
      for (const length of [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, message.length]) {
        const framed = encodeFrame(message.subarray(0, length));
        const receiver = new MessageReceiver(budget, message.length, () => assert.fail());
        for (let start = 0; start < framed.length; start += piece)
          assert.equal(receiver.push(framed.subarray(start, start + piece)), undefined);
        assert.deepEqual(receiver.finish(), message.subarray(0, length));
        assert.equal(budget.total, Math.ceil(length / PAGE_BYTES) * PAGE_BYTES);
        receiver.release();
        assert.equal(budget.total, 0);
      }
    }
  });

  test('a client that fills the queue makes room in it for others, and takes turns with them', async () => {
    const gate = new CallGate(1, 4);
    const order: string[] = [];
    const enter = (client: string) => {
      const { signal } = new AbortController();
      markCall(signal, 60_000, client);
      return gate.enter(signal).then(
        () => order.push(client),
        (error) => order.push(`${client} ${asOcicryptError(error).code}`),
      );
    };
    await enter('flood');
    const calls = ['flood', 'flood', 'flood', 'flood', 'flood', 'good', 'good', 'good'].map(enter);
    for (let left = 0; left < 5; left++) {
      await new Promise((resolve) => setImmediate(resolve));
      gate.leave();
    }
    await Promise.all(calls);
    const refused = order.filter((one) => one.endsWith('throttled'));
    assert.deepEqual(refused.sort(), ['flood throttled', 'flood throttled', 'flood throttled', 'good throttled']);
    assert.deepEqual(
      order.filter((one) => !one.endsWith('throttled')),
      ['flood', 'flood', 'good', 'flood', 'good'],
    );
  });

  test('a caller that leaves the queue makes room in it', async () => {
    const gate = new CallGate(1, 1);
    await gate.enter(new AbortController().signal);
    const controller = new AbortController();
    const waiting = codeOf(gate.enter(controller.signal));
    assert.equal(await codeOf(gate.enter(new AbortController().signal)), 'throttled');
    controller.abort(new OcicryptError('deadline-exceeded', 'left'));
    assert.equal(await waiting, 'deadline-exceeded');
    const next = codeOf(gate.enter(new AbortController().signal));
    gate.leave();
    assert.equal(await next, 'ok');
    gate.leave();
    assert.deepEqual([gate.entered, gate.waiting], [0, 0]);
  });
});

test('a key is only open to the operation that the list names', async (t) => {
  const kek = remoteKek(async () => {});
  const rules = (operation: 'wrap' | 'unwrap') => [{ kind: 'key', uri: parseKeyUri(KEY), operation } as const];
  const wrapOnly = await startRunning(t, sharing(kek, 100, { rules: rules('wrap') }));
  const wrapped = await callKeyProvider(wrapOnly.target, wrapRequest());
  assert.equal(await codeOf(callKeyProvider(wrapOnly.target, unwrapRequest(wrapped))), 'not-allowed');
  const unwrapOnly = await startRunning(t, sharing(kek, 100, { rules: rules('unwrap') }));
  assert.equal(await codeOf(callKeyProvider(unwrapOnly.target, unwrapRequest(wrapped))), 'ok');
  assert.notEqual(await codeOf(callKeyProvider(unwrapOnly.target, wrapRequest())), 'ok');
});

test('a client certificate never holds all connections, whatever it does with them', async (t) => {
  const release = Promise.withResolvers<void>();
  const kek = remoteKek(() => release.promise);
  const authority = await createCertificateAuthority(await temporaryDirectory(t));
  const tls = {
    ...(await authority.issue('server')),
    clientAuthority: authority.certificate,
    minVersion: 'TLSv1.3',
  } as const;
  const access = { mode: 0o600, group: undefined };
  const { target } = await startRunning(t, {
    kek,
    provider: { rules: [{ kind: 'key', uri: parseKeyUri(KEY) }] },
    clients: ['greedy.example', 'other.example'],
    listen: ['tls://127.0.0.1:0'],
    limits: { connections: 16 },
    server: { listener: { access, tls, insecurePlaintext: false } },
  });
  const client = async (name: string) => {
    const issued = await authority.issue(name, { names: [`${name}.example`], usage: 'client' });
    return { authority: authority.certificate, ...issued };
  };
  const [greedy, other] = [await client('greedy'), await client('other')];
  const packet = unwrapRequest(await callKeyProvider(target, wrapRequest(), greedy));
  let refused = 0;
  const calls = Array.from({ length: 16 }, async () => {
    const code = await codeOf(callKeyProvider(target, packet, greedy));
    if (code !== 'ok') refused++;
    return code;
  });
  while (kek.calls() + refused < 16) await pause(5);
  assert.equal(kek.calls(), 14);
  assert.equal(await codeOf(callKeyProvider(target, wrapRequest(), other)), 'ok');
  release.resolve();
  assert.equal((await Promise.all(calls)).filter((code) => code === 'ok').length, 14);
});
