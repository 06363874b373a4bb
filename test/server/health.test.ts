// P25 P26: health that tells the truth and costs little, and metrics whose labels nobody outside can choose.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { callOnce } from '../../src/client/grpc-client.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { DEFAULT_LIMITS } from '../../src/provider/attempts.ts';
import { parseListenAddress } from '../../src/server/address.ts';
import { createReadiness, type Probe } from '../../src/server/health.ts';
import { callKeyProvider, checkHealth, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

const SERVICE = 'keyprovider.KeyProviderService';

/** A key whose calls are counted, and fail with `failure` where there is one. */
function countedProbe(
  failure: () => OcicryptError | undefined,
  unwrapOnly = false,
): Probe & { readonly calls: () => number } {
  let calls = 0;
  const answer = async <Value>(value: Value): Promise<Value> => {
    calls++;
    const error = failure();
    if (error !== undefined) throw error;
    return value;
  };
  const kek: Kek = {
    local: false,
    key: 'k',
    wrap: (plaintext) => answer({ key: 'k', algorithm: 'a', wrapped: plaintext }),
    unwrap: ({ wrapped }) => answer(wrapped),
  };
  return { open: async () => kek, wrap: !unwrapOnly, unwrap: true, limits: DEFAULT_LIMITS, calls: () => calls };
}

describe('P25 health', () => {
  test('over gRPC: the server is alive, the service ready, others unknown', async (t) => {
    const { target, server } = await startRunning(t);
    assert.equal(await checkHealth(target, ''), 1);
    assert.equal(await checkHealth(target, SERVICE), 1);
    assert.equal(await checkHealth(target, 'other'), 'not-found');
    await server.drain();
  });

  test('a service whose key does not work is alive and not ready', async (t) => {
    const { target } = await startRunning(t, {
      policy: { probes: [countedProbe(() => new OcicryptError('refused', 'no'))] },
    });
    assert.deepEqual([await checkHealth(target, ''), await checkHealth(target, SERVICE)], [1, 2]);
  });

  test('costs at most two calls of a key in 30 s, however often it is asked', async () => {
    let time = 0;
    const probe = countedProbe(() => undefined);
    const readiness = createReadiness([probe, countedProbe(() => undefined)], () => time);
    for (time = 0; time < 30_000; time += 100) assert.ok(await readiness.isReady());
    assert.equal(probe.calls(), 2);
  });

  test('is lost and found again with the key', async () => {
    let time = 0;
    let failure: OcicryptError | undefined;
    const readiness = createReadiness([countedProbe(() => failure)], () => time);
    assert.equal(await readiness.isReady(), true);
    failure = new OcicryptError('unavailable', 'down');
    assert.equal(await readiness.isReady(), true);
    time += 30_000;
    await readiness.isReady();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await readiness.isReady(), false);
    failure = undefined;
    time += 30_000;
    await readiness.isReady();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await readiness.isReady(), true);
  });

  test('of a key that may only decrypt: that it refuses what it never made is what it should do', async () => {
    for (const [code, ready] of [
      ['integrity', true],
      ['refused', false],
    ] as const) {
      const readiness = createReadiness([countedProbe(() => new OcicryptError(code, 'x'), true)]);
      assert.equal(await readiness.isReady(), ready);
    }
  });

  test('over HTTP, with texts from a fixed list', async (t) => {
    const path = join(await temporaryDirectory(t), 'status');
    const failing = countedProbe(() => new OcicryptError('refused', 'canary'));
    await startRunning(t, { server: { status: statusAt(`unix://${path}`) }, policy: { probes: [failing] } });
    assert.deepEqual(await get(path, '/livez'), [200, 'alive\n']);
    assert.deepEqual(await get(path, '/readyz'), [503, 'not ready\n']);
    assert.deepEqual(await get(path, '/other'), [404, 'not found\n']);
    assert.deepEqual(await get(path, '/metrics', 'POST'), [405, 'only GET\n']);
    assert.match((await get(path, '/metrics'))[1], /^ocicrypt_kms_connections \d+$/m);
  });

  test('over HTTP on the loopback, and elsewhere not in clear nor without a certificate', async (t) => {
    const { server } = await startRunning(t, { server: { status: statusAt('tcp://127.0.0.1:0') } });
    assert.match(server.status ?? '', /^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/);
    for (const address of ['tcp://0.0.0.0:0', 'tls://127.0.0.1:0']) {
      await assert.rejects(startRunning(t, { server: { status: statusAt(address) } }));
    }
    const insecure = { address: parseListenAddress('tcp://0.0.0.0:0'), insecure: true, tls: undefined };
    assert.match((await startRunning(t, { server: { status: insecure } })).server.status ?? '', /^tcp:\/\/0\.0\.0\.0:/);
  });
});

const statusAt = (address: string) => ({ address: parseListenAddress(address), insecure: false, tls: undefined });

describe('P26 metrics', () => {
  test('have as many lines after 1,000 different hostile requests as after 10', async (t) => {
    const { target, instruments } = await startRunning(t);
    const hostile = async (count: number) => {
      for (let index = 0; index < count; index++) {
        const name = `x${index}"\n`;
        const key = `gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k${index}`;
        const annotation = btoa(JSON.stringify({ key_url: key, wrapped_key: btoa(name), wrap_type: 'AES' }));
        const unwrap = { op: 'keyunwrap', keyunwrapparams: { dc: { Parameters: {} }, annotation } };
        const bodies = [
          { op: name },
          unwrap,
          { op: 'keywrap', keywrapparams: { ec: { Parameters: { [name]: [btoa(key)] } }, optsdata: btoa('x') } },
        ];
        const body = new TextEncoder().encode(JSON.stringify(bodies[index % 3]));
        await callKeyProvider(target, body).catch(() => {});
        await callOnce(target, undefined, {
          method: `/x/y${index}`,
          message: body,
          timeout: 1000,
          maximumReply: 100,
          signal: AbortSignal.timeout(2000),
        }).catch(() => {});
      }
      return instruments.render().split('\n').length;
    };
    await callKeyProvider(target, wrapRequest());
    const few = await hostile(10);
    assert.equal(await hostile(990), few);
    assert.doesNotMatch(instruments.render(), /cryptoKeys|x\d+"|\/x\/y/);
  });

  test('are text that Prometheus reads', async (t) => {
    const { target, instruments } = await startRunning(t);
    await callKeyProvider(target, wrapRequest());
    const sample = /^[a-z_]+(?:\{[a-z]+="[^"\\\n]*"(?:,[a-z]+="[^"\\\n]*")*\})? (?:\d+(?:\.\d+)?(?:e-\d+)?|\+Inf)$/;
    for (const line of instruments.render().trimEnd().split('\n')) {
      assert.ok(/^# (?:HELP|TYPE) [a-z_]+ /.test(line) || sample.test(line), line);
    }
    assert.match(instruments.render(), /call_seconds_bucket\{phase="handle",le="\+Inf"\} 1\n/);
  });
});

function get(socketPath: string, path: string, method = 'GET'): Promise<readonly [number, string]> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path, method }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on('end', () => resolve([response.statusCode ?? 0, body]));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}
