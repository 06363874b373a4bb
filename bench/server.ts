// What the server costs its clients and its machine. With `--peer=COMMAND`, a gRPC server that takes the path of a unix
// socket as its last word and answers every call, beside ours (`grpc-go` is one that is built here, where there is Go);
// otherwise the figures stand alone.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { encodeBytesField } from '../src/base/grpc.ts';
import { createKeyfile, openKeyfile } from '../src/kms/keyfile/key.ts';
import { createProvider } from '../src/provider/handle.ts';
import { buildGrpcGo } from '../test/peers/grpc-go.ts';
import { type CallBytes, Connection, callBytes, dialCallClose } from '../tools/grpc-load.ts';
import { PROJECT } from '../tools/process.ts';
import type { BenchOptions } from './bench.ts';
import { print } from './measure.ts';
import { processorSeconds, residentMiB } from './process.ts';

const METHOD = 'UnWrapKey';
/** Seconds of each measurement of throughput. */
const SECONDS = 3;

type Server = { readonly name: string; readonly path: string; readonly child: ChildProcess };

/** Runs the section. */
export async function run({ runs = 2000, peer }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-server-'));
  const servers: Server[] = [];
  try {
    const key = join(directory, 'key');
    createKeyfile(key);
    const request = await unwrapRequest(key);
    const call = callBytes(`/keyprovider.KeyProviderService/${METHOD}`, encodeBytesField(request));
    const ours = [join(PROJECT, 'dist/ocicrypt-kms'), 'serve', `--key=${key}`];
    servers.push(await start('ours', join(directory, 'ours'), (path) => [...ours, `--listen=unix://${path}`]));
    if (peer !== undefined) {
      const words = peer === 'grpc-go' ? [await buildGrpcGo(), 'serve'] : peer.split(' ');
      servers.push(await start('peer', join(directory, 'peer'), (path) => [...words, path]));
    }
    await measureAll(servers, call, runs);
    if (peer === 'grpc-go') await measureGrpcGo(servers, request, runs);
  } finally {
    for (const { child } of servers) child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}

/** As ocicrypt's clients call, which are made with grpc-go. */
async function measureGrpcGo(servers: readonly Server[], request: Uint8Array, runs: number): Promise<void> {
  const program = await buildGrpcGo();
  const figures = servers.map((): number[] => []);
  for (let round = 0; round < 20; round++) {
    for (const [index, { path }] of servers.entries()) {
      const words = ['time', `unix://${path}`, METHOD, String(Math.ceil(runs / 20))];
      const times = execFileSync(program, words, { input: request, encoding: 'utf8' }).trimEnd().split('\n');
      figures[index]?.push(...times.map((microseconds) => Number(microseconds) / 1000));
    }
  }
  reportParts("dial + call + close, grpc-go's client", servers, figures);
}

function reportParts(what: string, servers: readonly Server[], figures: readonly (readonly number[])[]): void {
  for (const part of [0.5, 0.99]) {
    report(
      `${what}, p${part * 100}, ms`,
      servers,
      figures.map((one) => percentile(one, part)),
    );
  }
}

async function measureAll(servers: readonly Server[], call: CallBytes, runs: number): Promise<void> {
  const idle = servers.map(({ child }) => residentMiB(child));
  // A server has long been running when it is measured: its code is compiled.
  for (const server of servers) await measureThroughput(server, call, 64);
  for (const atOnce of [1, 4]) {
    const figures = servers.map((): number[] => []);
    // In turns, so that what slows the machine slows both.
    for (let round = 0; round < 20; round++) {
      for (const [index, { path }] of servers.entries()) {
        const workers = Array.from({ length: atOnce }, async () => {
          for (let left = runs / 20 / atOnce; left > 0; left--)
            figures[index]?.push(await dialCallClose({ path }, call));
        });
        await Promise.all(workers);
      }
    }
    reportParts(`dial + call + close, ${atOnce} at a time`, servers, figures);
  }
  for (const inFlight of [1, 64]) {
    const results: Throughput[] = [];
    for (const server of servers) results.push(await measureThroughput(server, call, inFlight));
    report(
      `calls a second, ${inFlight} in flight`,
      servers,
      results.map(({ rate }) => rate),
    );
    report(
      `processor time of a call, ${inFlight} in flight, µs`,
      servers,
      results.map(({ processor }) => processor),
    );
  }
  report('resident memory, idle, MiB', servers, idle);
  report(
    'resident memory, after all of this, MiB',
    servers,
    servers.map(({ child }) => residentMiB(child)),
  );
}

type Throughput = { readonly rate: number; readonly processor: number };

async function measureThroughput(server: Server, call: CallBytes, inFlight: number): Promise<Throughput> {
  // As many calls on a connection as the server allows.
  const connections = Array.from({ length: Math.ceil(inFlight / 16) }, () => new Connection({ path: server.path }));
  let calls = 0;
  const until = performance.now() + SECONDS * 1000;
  const before = processorSeconds(server.child);
  await Promise.all(
    Array.from({ length: inFlight }, async (_, index) => {
      const connection = connections[index % connections.length];
      for (; performance.now() < until; calls++) await connection?.call(call);
    }),
  );
  const used = processorSeconds(server.child) - before;
  for (const connection of connections) connection.close();
  return { rate: calls / SECONDS, processor: (used / calls) * 1e6 };
}

function report(title: string, servers: readonly Server[], figures: readonly number[]): void {
  const [ours = Number.NaN, peer] = figures;
  const shown = servers.map(({ name }, index) => `${name} ${(figures[index] ?? Number.NaN).toFixed(2)}`).join('  ');
  print(`${title.padEnd(56)} ${shown}${peer === undefined ? '' : `  ratio ${(ours / peer).toFixed(2)}`}`);
}

async function start(name: string, path: string, words: (path: string) => readonly string[]): Promise<Server> {
  const [command = '', ...rest] = words(path);
  const child = spawn(command, rest, { stdio: 'ignore' });
  for (let waited = 0; !existsSync(path); waited += 10) {
    if (waited > 5000 || child.exitCode !== null) throw new Error(`${name} did not start: ${command}`);
    await pause(10);
  }
  await pause(200);
  return { name, path, child };
}

/** What a client sends that has one packet of a local key. */
async function unwrapRequest(path: string): Promise<Uint8Array> {
  const kek = openKeyfile(path);
  const provider = createProvider({
    openKek: async () => kek,
    rules: [{ kind: 'key', uri: { scheme: 'keyfile', path } }],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'grpc-keyprovider' },
  });
  const record = {
    symkey: btoa('0'.repeat(32)),
    digest: `sha256:${'0'.repeat(64)}`,
    cipheroptions: { nonce: btoa('0'.repeat(16)) },
  };
  const wrap = { op: 'keywrap', keywrapparams: { ec: { Parameters: {} }, optsdata: btoa(JSON.stringify(record)) } };
  const reply = await provider.handle(new TextEncoder().encode(JSON.stringify(wrap)));
  const { annotation } = JSON.parse(new TextDecoder().decode(reply)).keywrapresults;
  const unwrap = { op: 'keyunwrap', keyunwrapparams: { dc: { Parameters: null }, annotation } };
  return new TextEncoder().encode(JSON.stringify(unwrap));
}

function percentile(figures: readonly number[], part: number): number {
  const sorted = figures.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
