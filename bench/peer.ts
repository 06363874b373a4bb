// Ours beside another provider, which is the reference provider where it is at hand: its command (`--peer=COMMAND`) and
// its server (`--peer-server=COMMAND`), with one fake Google that speaks gRPC and REST over the same keys. Both find it by
// Google's own names, with the same credentials, roots and requests, and take turns.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeBytesField } from '../src/base/grpc.ts';
import { writeImage } from '../test/fixtures/images.ts';
import { type KeyProvider, writeOcicryptConfig } from '../test/real-clients/skopeo.ts';
import { toolArgv } from '../test/real-clients/tools.ts';
import { type CallBytes, Connection, callBytes, dialCallClose } from '../tools/grpc-load.ts';
import { unwrapRequest, wrapRequest } from '../tools/sample.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { type Command, type CommandFigures, timeCommands } from './command.ts';
import {
  CREDENTIAL_KINDS,
  type CredentialKind,
  type GoogleWorld,
  ROOT_STORES,
  startGoogleWorld,
} from './google-world.ts';
import { interleave, median, print, printMachine, printRow } from './measure.ts';
import { processorSeconds, residentMiB } from './process.ts';
import { callServer, type Pair, type Server, startServers } from './provider-server.ts';

const RUNS = 30;
/** Seconds of each measurement of throughput, and how often they take turns. */
const SECONDS = 2;
const TURNS = 4;
/** Measurements of each server that are not counted: its runtime compiles what is hot for about twenty seconds. */
const WARM_UP = 10;
const IN_FLIGHT = 64;
/** Fewer than any server allows. */
const PER_CONNECTION = 8;
const LAYERS = 12;

/** Prints ratios of ours to theirs. */
export async function run({ runs = RUNS, only = '', peer, peerServer }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const { world, close } = await startGoogleWorld(directory);
  const bench = new PeerBench(directory, world, { runs, only });
  try {
    printMachine();
    if (peer !== undefined) await bench.compareCommands(peer);
    if (peerServer !== undefined) await bench.compareServers(peerServer);
    if (peer === undefined && peerServer === undefined) print('name a command with --peer or --peer-server');
  } finally {
    await close();
    rmSync(directory, { recursive: true });
  }
}

class PeerBench {
  readonly #directory: string;
  readonly #world: GoogleWorld;
  readonly #runs: number;
  readonly #only: string;

  /** @param options only: a part of the titles of what is measured */
  constructor(directory: string, world: GoogleWorld, { runs, only }: { readonly runs: number; readonly only: string }) {
    this.#directory = directory;
    this.#world = world;
    this.#runs = runs;
    this.#only = only;
  }

  async compareCommands(peer: string): Promise<void> {
    const [theirs = '', ...words] = peer.split(' ');
    const { key, environments } = this.#world;
    for (const store of ROOT_STORES) {
      const title = `command, ${store}`;
      if (!title.includes(this.#only)) continue;
      printTimesHead(title);
      for (const kind of CREDENTIAL_KINDS) {
        const environment = { ...environments[store], ...this.#credentials(kind) };
        const asking = (request: Uint8Array): Pair<Command> => {
          const common = { request: new TextDecoder().decode(request), environment };
          return [
            { words: [EXECUTABLE, 'keyprovider', `--kmsURI=${key}`], ...common },
            { words: [theirs, ...words], ...common },
          ];
        };
        const wraps = asking(wrapRequest(key));
        const unwraps = asking(unwrapRequest(key, this.#answerOf(wraps[1])));
        const figures = timeCommands(this.#directory, [...wraps, ...unwraps], this.#runs);
        printTimes(`  ${kind}, wrap`, figures[0], figures[1]);
        printTimes(`  ${kind}, unwrap`, figures[2], figures[3]);
      }
      print('');
    }
    await this.#compareImages('by command', [
      { cmd: { path: EXECUTABLE, args: ['keyprovider', `--kmsURI=${key}`] } },
      { cmd: { path: theirs, args: [...words, '--kmsURI', key] } },
    ]);
  }

  async compareServers(peer: string): Promise<void> {
    const title = 'server, service account';
    if (![title, imagesTitle('by server')].some((one) => one.includes(this.#only))) return;
    const { key } = this.#world;
    const servers = await startServers(this.#world, {
      ...{ peer, home: this.#directory },
      // Ours bounds the calls to a key, and the bound would be measured.
      options: ['--key-rate=100000'],
    });
    const annotation = this.#answerOf({
      words: [EXECUTABLE, 'keyprovider', `--kmsURI=${key}`, '--packet=v1'],
      request: new TextDecoder().decode(wrapRequest(key)),
      environment: this.#environment,
    });
    if (title.includes(this.#only)) printHead(title);
    for (const [name, method, request] of [
      ['wrap', 'WrapKey', wrapRequest(key)],
      ['unwrap', 'UnWrapKey', unwrapRequest(key, annotation)],
    ] as const) {
      // A refusal is quick, and would be measured.
      for (const server of servers) await callServer(server, method, request);
      const bytes = callBytes(`/keyprovider.KeyProviderService/${method}`, encodeBytesField(request));
      // A server has long been running when it is measured: its code is compiled.
      for (let turn = 0; turn < WARM_UP; turn++) for (const server of servers) await measureThroughput(server, bytes);
      if (title.includes(this.#only)) await this.#compareCalls(name, bytes, servers);
    }
    printPair('  resident memory after this', [residentMiB(servers[0].child), residentMiB(servers[1].child)], 'MiB');
    print('');
    await this.#compareImages('by server', [
      { grpc: `127.0.0.1:${servers[0].port}` },
      { grpc: `127.0.0.1:${servers[1].port}` },
    ]);
  }

  async #compareCalls(name: string, bytes: CallBytes, servers: Pair<Server>): Promise<void> {
    const dials = servers.map(({ port }) => ({ name, run: () => dialCallClose({ port, host: '127.0.0.1' }, bytes) }));
    const times = (await interleave(dials, this.#runs * 10)).map(({ median }) => median);
    printPair(`  ${name}, dial + call + close`, [times[0], times[1]], 'ms');
    const rates: Pair<number[]> = [[], []];
    const costs: Pair<number[]> = [[], []];
    for (let turn = 0; turn < TURNS; turn++) {
      for (const index of turn % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
        const { rate, processor } = await measureThroughput(servers[index], bytes);
        rates[index].push(rate);
        costs[index].push(processor);
      }
    }
    printPair(`  ${name}, calls a second, ${IN_FLIGHT} in flight`, [median(rates[0]), median(rates[1])], '');
    printPair(`  ${name}, processor of a call`, [median(costs[0]), median(costs[1])], 'µs');
  }

  /** skopeo, which asks the provider once for each layer. */
  async #compareImages(how: string, providers: Pair<KeyProvider>): Promise<void> {
    const title = imagesTitle(how);
    if (!title.includes(this.#only)) return;
    const { key } = this.#world;
    const [program, ...more] = await toolArgv('skopeo');
    const before = [...more, '--insecure-policy', 'copy'];
    const path = (name: string) => join(this.#directory, name);
    await writeImage(path('plain'), { layers: Array.from({ length: LAYERS }, () => ({})), seed: how });
    const copies = async (index: 0 | 1): Promise<Pair<Command>> => {
      const name = how === 'by command' ? 'kmscrypt' : 'grpc-keyprovider';
      const variables = await writeOcicryptConfig(path(`provider-${index}.json`), { [name]: providers[index] });
      const environment = { ...this.#environment, ...variables };
      const copy = (option: string, from: string, to: string): Command => ({
        words: [
          program,
          ...before,
          `${option}=provider:${name}:${key}`,
          `oci:${path(from)}`,
          `oci:${path(to)}-${index}`,
        ],
        environment,
      });
      // Not what is encrypted while this is measured: the copies take turns in either order.
      this.#answerOf(copy('--encryption-key', 'plain', 'encrypted'));
      return [
        copy('--encryption-key', 'plain', 'encrypted-again'),
        copy('--decryption-key', `encrypted-${index}`, 'opened'),
      ];
    };
    const [ours, theirs] = [await copies(0), await copies(1)];
    const figures = timeCommands(this.#directory, [ours[0], theirs[0], ours[1], theirs[1]], Math.ceil(this.#runs / 4));
    printTimesHead(title);
    printTimes('  encrypt', figures[0], figures[1]);
    printTimes('  decrypt', figures[2], figures[3]);
    print('');
  }

  get #environment(): Readonly<Record<string, string>> {
    return { ...this.#world.environments["the machine's roots"], ...this.#credentials('service account') };
  }

  #credentials(kind: CredentialKind): Readonly<Record<string, string>> {
    return { GOOGLE_APPLICATION_CREDENTIALS: this.#world.credentials[kind] };
  }

  #answerOf({ words: [file, ...words], request: input, environment }: Command): Uint8Array {
    const env = { PATH: process.env.PATH, HOME: this.#directory, ...environment };
    return execFileSync(file, words, { input, env });
  }
}

type Throughput = { readonly rate: number; readonly processor: number };

/** Calls a second, and microseconds of a processor for each. */
async function measureThroughput({ port, child }: Server, call: CallBytes): Promise<Throughput> {
  const address = { port, host: '127.0.0.1' };
  const connections = Array.from({ length: IN_FLIGHT / PER_CONNECTION }, () => new Connection(address));
  const started = performance.now();
  const before = processorSeconds(child);
  let calls = 0;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async (_, index) => {
      const connection = connections[index % connections.length];
      for (; performance.now() < started + SECONDS * 1000; calls++) await connection?.call(call);
    }),
  );
  const processor = ((processorSeconds(child) - before) / calls) * 1e6;
  for (const connection of connections) connection.close();
  return { rate: calls / ((performance.now() - started) / 1000), processor };
}

function imagesTitle(how: string): string {
  return `skopeo, ${LAYERS} layers, ${how}`;
}

function printHead(title: string): void {
  printRow(title, 'ratio', 'ours', 'theirs');
}

/** Ratios of the median, and of the processor's time, which other work on the machine changes less. */
function printTimesHead(title: string): void {
  printRow(title, 'ratio', 'processor', 'ours', 'theirs');
}

function printTimes(name: string, ours: CommandFigures | undefined, theirs: CommandFigures | undefined): void {
  if (ours === undefined || theirs === undefined) throw new Error('a command was not measured');
  const ratios = [ours.median / theirs.median, ours.processor / theirs.processor];
  const times = [ours, theirs].map(({ median: time }) => `${time.toFixed(1)} ms`);
  printRow(name, ...ratios.map((ratio) => ratio.toFixed(2)), ...times);
  const failures = [ours.failures, theirs.failures];
  if (failures.some((some) => some > 0)) print(`    failed and were run again: ours ${failures.join(', theirs ')}`);
}

function printPair(
  name: string,
  [ours = Number.NaN, theirs = Number.NaN]: readonly (number | undefined)[],
  unit: string,
): void {
  const shown = [ours, theirs].map((figure) => `${figure.toFixed(figure < 100 ? 2 : 0)} ${unit}`.trim());
  printRow(name, (ours / theirs).toFixed(2), ...shown);
}
