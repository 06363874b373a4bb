// P16: a server that is told to stop finishes what it has begun, and begins nothing new.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { createKeyfile, openKeyfile } from '../../src/kms/keyfile.ts';
import { createProvider, type Provider } from '../../src/provider/handle.ts';
import { callKeyProvider, callManyTimes, callOn, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

/** A provider whose answers wait for `released`. */
function waitingProvider(
  path: string,
  released: Promise<void>,
): { readonly provider: Provider; readonly begun: () => number } {
  createKeyfile(path);
  const kek = openKeyfile(path);
  let begun = 0;
  const provider = createProvider({
    openKek: async () => {
      begun++;
      await released;
      return kek;
    },
    rules: [{ kind: 'key', uri: { scheme: 'keyfile', path } }],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'grpc-keyprovider' },
  });
  return { provider, begun: () => begun };
}

const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

describe('P16 drain', () => {
  test('1,000 calls in flight are all answered, 256 of them at a time, and the socket is gone', async (t) => {
    const directory = await temporaryDirectory(t);
    const released = Promise.withResolvers<void>();
    const { provider } = waitingProvider(join(directory, 'k'), released.promise);
    const path = join(directory, 's');
    const { server, instruments } = await startRunning(t, {
      listen: [`unix://${path}`],
      server: { service: { provider, clients: [] } },
    });
    const calls = callManyTimes(path, wrapRequest(), 1000);
    const inFlight = () =>
      [...instruments.render().matchAll(/^ocicrypt_kms_(?:active|queued)_calls (\d+)$/gm)]
        .map(([, number]) => Number(number))
        .reduce((sum, number) => sum + number, 0);
    while (inFlight() < 1000) await pause(10);
    const drained = server.drain();
    released.resolve();
    const statuses = (await calls).map(({ status }) => status);
    assert.deepEqual([...new Set(statuses)], ['0']);
    await drained;
    assert.ok(!existsSync(path));
  });

  test('a new call on a connection that is still busy is refused with UNAVAILABLE, a new connection altogether', async (t) => {
    const directory = await temporaryDirectory(t);
    const released = Promise.withResolvers<void>();
    const { provider, begun } = waitingProvider(join(directory, 'k'), released.promise);
    const path = join(directory, 's');
    const { server, target } = await startRunning(t, {
      listen: [`unix://${path}`],
      server: { service: { provider, clients: [] } },
    });
    const session = connectHttp2('http://localhost', { createConnection: () => connect(path) });
    t.after(() => session.destroy());
    const first = callOn(session, wrapRequest());
    while (begun() < 1) await pause(5);
    const drained = server.drain();
    assert.equal((await callOn(session, wrapRequest())).status, '14');
    await assert.rejects(
      callKeyProvider(target, wrapRequest()),
      (error) => asOcicryptError(error).code === 'unavailable',
    );
    released.resolve();
    assert.equal((await first).status, '0');
    await drained;
  });

  test('idle connections do not hold it up', async (t) => {
    const { server, directory } = await startRunning(t);
    const path = join(directory, 's');
    const sessions = Array.from({ length: 10 }, () =>
      connectHttp2('http://localhost', { createConnection: () => connect(path) }),
    );
    for (const session of sessions) session.on('error', () => {});
    await Promise.all(sessions.slice(0, 5).map((session) => callOn(session, wrapRequest())));
    const started = performance.now();
    await server.drain();
    assert.ok(performance.now() - started < 3000);
    for (const session of sessions) session.destroy();
  });

  test('a call that does not end is given up after its deadline', async (t) => {
    const directory = await temporaryDirectory(t);
    const { provider, begun } = waitingProvider(join(directory, 'k'), new Promise(() => {}));
    const path = join(directory, 's');
    const { server, target } = await startRunning(t, {
      listen: [`unix://${path}`],
      limits: { call: 300 },
      server: { service: { provider, clients: [] } },
    });
    const call = callKeyProvider(target, wrapRequest()).catch((error) => asOcicryptError(error).code);
    while (begun() < 1) await pause(5);
    const started = performance.now();
    await server.drain();
    assert.ok(performance.now() - started < 1300);
    assert.equal(await call, 'deadline-exceeded');
  });
});
