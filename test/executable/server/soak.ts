// P8: many unwraps through the executable, and whether anything of them stays behind.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { encodeBytesField } from '../../../src/base/grpc.ts';
import { Connection, callBytes, dialCallClose } from '../../../tools/grpc-load.ts';
import { EXECUTABLE } from '../../fixtures/serve.ts';
import { callKeyProvider, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { pause, readStatus, type Subject, startSubject } from './served.ts';

export type SoakReport = {
  readonly calls: number;
  readonly failures: number;
  readonly callsPerSecond: number;
  /** Growth of resident memory after the first third, in MiB for 100,000 calls: the slope of a line of least squares. */
  readonly slope: number;
  readonly peakMiB: number;
  /** The least and the most open descriptors, with no call open, and how many of them are sockets. */
  readonly descriptors: readonly [least: number, most: number];
  readonly sockets: readonly [least: number, most: number];
  /** What a request that needs no work waits while calls are answered, in milliseconds: how late the server's loop is. */
  readonly lagP99: number;
};

/** Connections that stay; every tenth call dials one of its own, as ocicrypt's clients do. */
const CONNECTIONS = 4;
const IN_FLIGHT = 16;
const SAMPLES = 30;
const METHOD = '/keyprovider.KeyProviderService/UnWrapKey';

/** Makes `calls` unwraps with a local key; `t` ends the server. */
export async function soak(
  t: Parameters<typeof startSubject>[0],
  calls: number,
  progress: (calls: number) => void = () => {},
): Promise<SoakReport> {
  const subject = await startSubject(t, EXECUTABLE);
  const wrapped = await callKeyProvider(subject.target, wrapRequest());
  const call = callBytes(METHOD, encodeBytesField(unwrapRequest(wrapped)));
  const answered = () => subject.sample('ocicrypt_kms_calls_total', /UnWrapKey.*status="OK"/);
  const before = await answered();
  const lags: number[] = [];
  const samples: Sample[] = [];
  const started = performance.now();
  for (let done = 0; done < calls; ) {
    const target = Math.min(calls, done + Math.ceil(calls / SAMPLES));
    const connections = Array.from({ length: CONNECTIONS }, () => new Connection(subject));
    const until = new AbortController();
    const watching = watch(subject, lags, until.signal);
    await Promise.all(
      Array.from({ length: IN_FLIGHT }, async (_, worker) => {
        while (done < target) {
          done++;
          if (done % 10 === 0) await dialCallClose(subject, call);
          else await connections[worker % CONNECTIONS]?.call(call);
        }
      }),
    );
    until.abort();
    await watching;
    for (const connection of connections) connection.close();
    await subject.reaches('ocicrypt_kms_connections', 0);
    // Our own question to the status page was a connection, too.
    await pause(100);
    samples.push(take(subject.child.pid, done));
    progress(done);
  }
  const seconds = (performance.now() - started) / 1000;
  const settled = samples.slice(Math.floor(samples.length / 3));
  const range = (of: (sample: Sample) => number) => {
    const values = samples.map(of);
    return [Math.min(...values), Math.max(...values)] as const;
  };
  return {
    calls,
    failures: calls - ((await answered()) - before),
    callsPerSecond: calls / seconds,
    slope: slopeOf(settled.map((sample) => [sample.calls / 100_000, sample.residentMiB])),
    peakMiB: Math.max(...samples.map(({ residentMiB }) => residentMiB)),
    descriptors: range(({ descriptors }) => descriptors),
    sockets: range(({ sockets }) => sockets),
    lagP99: lags.sort((a, b) => a - b)[Math.floor(lags.length * 0.99)] ?? 0,
  };
}

type Sample = {
  readonly calls: number;
  readonly residentMiB: number;
  readonly descriptors: number;
  readonly sockets: number;
};

function take(pid: number | undefined, calls: number): Sample {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const directory = `/proc/${pid}/fd`;
  const targets = readdirSync(directory).map((name) => readlinkSync(`${directory}/${name}`));
  return {
    calls,
    residentMiB: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024,
    descriptors: targets.length,
    sockets: targets.filter((target) => target.startsWith('socket:')).length,
  };
}

async function watch({ status }: Subject, lags: number[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const started = performance.now();
    await readStatus(status, '/livez');
    lags.push(performance.now() - started);
    await pause(50);
  }
}

function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [meanX, meanY] = [mean(([x]) => x), mean(([, y]) => y)];
  const covariance = mean(([x, y]) => (x - meanX) * (y - meanY));
  return covariance / mean(([x]) => (x - meanX) ** 2);
}
