// Deadlines name what was waited for, and credentials have no part in the time of a key service.
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eitherSignal, waitFor, withAttempt, withDeadline } from '../../src/base/deadline.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { createHttpClient } from '../../src/base/http/client.ts';
import { share } from '../../src/base/share.ts';
import { withAttempts } from '../../src/provider/attempts.ts';
import { startWireServer } from '../fakes/wire.ts';
import { failureOf } from '../fixtures/codes.ts';

const never = () => new Promise<never>(() => {});
const unending = () => new AbortController().signal;

test('a missed deadline names what was waited for last, with its hint, through every signal that is derived', async () => {
  const helper = { name: 'the helper /opt/token', hint: 'ask it' };
  const error = await failureOf(
    withDeadline(60, undefined, 'key k', (outer) =>
      withAttempt(10_000, eitherSignal(outer, unending()), 'key k', async (signal) => {
        await waitFor(signal, { name: 'kms.test' }, 'on', async () => {});
        return waitFor(signal, { name: 'kms.test' }, 'on', () => waitFor(signal, helper, 'still', never));
      }),
    ),
  );
  assert.deepEqual(
    [error.code, error.retryable, error.message, error.hint],
    ['deadline-exceeded', false, 'key k: no answer within 60 ms, waiting for the helper /opt/token', 'ask it'],
  );
});

test('a deadline of the caller names it too', async () => {
  const error = await failureOf(
    withDeadline(60_000, AbortSignal.timeout(20), 'key k', (signal) =>
      waitFor(signal, { name: 'kms.test' }, 'on', never),
    ),
  );
  assert.match(error.message, /^key k: no answer in time, waiting for kms\.test$/);
});

test('a caller that leaves between two attempts is told what the last one said', async () => {
  const limits = { total: 10_000, attempt: 50, attempts: 3, stagger: 10 };
  const error = await failureOf(
    withDeadline(limits.total, AbortSignal.timeout(60), 'wrap', (signal) =>
      withAttempts(limits, signal, 'key k', () =>
        Promise.reject(new OcicryptError('throttled', 'k is throttled', { retryable: true, retryAfter: 5000 })),
      ),
    ),
  );
  assert.match(error.message, /waiting for another attempt after throttled: k is throttled$/);
});

test('an attempt’s clock starts anew with each wait that has one of its own, and stands still for others', async () => {
  const limit = 150;
  const work = (clock: 'anew' | 'on' | 'still', each: number) =>
    withAttempt(limit, unending(), 'x', async (signal) => {
      await sleep(each);
      await waitFor(signal, { name: 'credentials' }, clock, () => sleep(each));
      await sleep(each);
      return 'done';
    });
  assert.equal(await work('anew', 100), 'done');
  assert.match((await failureOf(work('on', 100))).message, /no answer within 150 ms/);
  const long = (clock: 'anew' | 'still') =>
    withAttempt(limit, unending(), 'x', (signal) =>
      waitFor(signal, { name: 'credentials' }, clock, async () => {
        await sleep(3 * limit);
        return 'done';
      }),
    );
  assert.equal(await long('still'), 'done');
  assert.match((await failureOf(long('anew'))).message, /no answer within 150 ms, waiting for credentials/);
});

test('an attempt that has ended starts no clock again', async () => {
  await withAttempt(20, unending(), 'x', async (signal) => {
    void waitFor(signal, { name: 'late' }, 'anew', () => sleep(10));
  });
  // A clock that ran would reject with nobody to take it, which ends the process.
  await sleep(60);
});

test('shared work runs once, under a clock of its own, and every caller is told what it waits for', async () => {
  let runs = 0;
  const shared = share(async (signal) => {
    runs++;
    await waitFor(signal, { name: 'the helper' }, 'still', () => sleep(200));
    return waitFor(signal, { name: 'the token service sts.test' }, 'anew', never);
  });
  const call = () => withAttempt(100, unending(), 'key k', shared);
  const early = failureOf(withDeadline(120, undefined, 'wrap', (signal) => withAttempt(100, signal, 'key k', shared)));
  const errors = await Promise.all([failureOf(call()), failureOf(call()), failureOf(call())]);
  assert.equal(runs, 1);
  assert.match((await early).message, /^wrap: no answer within 120 ms, waiting for the helper$/);
  for (const { message } of errors) {
    assert.match(message, /no answer within 100 ms, waiting for the token service sts\.test$/);
  }
});

test('whoever asks right after the last caller has left starts anew', async () => {
  let runs = 0;
  const shared = share(() => (++runs === 1 ? never() : Promise.resolve('done')));
  const first = withDeadline(30, undefined, 'x', shared).catch(() => withDeadline(5000, undefined, 'x', shared));
  assert.equal(await first, 'done');
});

test('shared work ends with its last caller', async () => {
  let ended: unknown;
  const shared = share((signal) => {
    signal.addEventListener('abort', () => {
      ended = signal.reason;
    });
    return never();
  });
  const [one, two] = [new AbortController(), new AbortController()];
  const calls = [one, two].map(({ signal }) => failureOf(withAttempt(10_000, signal, 'k', shared)));
  one.abort();
  await sleep(5);
  assert.equal(ended, undefined);
  two.abort();
  await Promise.all(calls);
  assert.ok(ended !== undefined);
});

test('an HTTP client names the host, its role, or the proxy that opens no tunnel', async (t) => {
  const sockets: Socket[] = [];
  const silent = await startWireServer(() => ({ status: 200, body: '' }));
  silent.setFault(() => ({ kind: 'silent' }));
  const proxy = createServer((socket) => sockets.push(socket.on('error', () => {})));
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
    await silent.close();
  });
  const address = proxy.address();
  assert.ok(typeof address === 'object' && address !== null);
  const HTTPS_PROXY = `http://127.0.0.1:${address.port}`;
  const ask = (url: string, role?: 'metadata server' | 'token service') =>
    failureOf(
      withAttempt(300, unending(), 'key k', (signal) =>
        createHttpClient({ environment: { HTTPS_PROXY } }).request({ method: 'GET', url, role, signal }),
      ),
    ).then(({ message }) => message.replace(/^.*waiting for /, ''));
  const host = `127.0.0.1:${silent.port}`;
  assert.equal(await ask(silent.url), host);
  assert.equal(await ask(silent.url, 'token service'), `the token service ${host}`);
  assert.equal(await ask(silent.url, 'metadata server'), `the metadata server ${host}`);
  assert.equal(await ask('https://kms.test'), `the proxy 127.0.0.1:${address.port} on the way to kms.test`);
});
