// How long an outage of the key service is waited for, by ours and by another provider (`--peer`, `--peer-server`): the
// service is down for both at the same time, and both are asked at that moment, by a command and by callers of a server.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wrapRequest } from '../tools/sample.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { OUTAGES, type StartedWorld, startGoogleWorld } from './google-world.ts';
import { median, print, printMachine, printRow } from './measure.ts';
import { callServer, type Pair, type Server, startServers } from './provider-server.ts';

const ROUNDS = 3;
const SECONDS = [0.5, 1, 2, 5];
/** Of each server, at once. */
const CALLERS = 8;

/** Something that succeeds or not, after some milliseconds. */
type Outcome = { readonly succeeded: boolean; readonly milliseconds: number };
type Ask = () => Promise<Outcome>;

export async function run({ runs = ROUNDS, peer, peerServer }: BenchOptions): Promise<void> {
  if (peer === undefined || peerServer === undefined) {
    print('name another provider with --peer and --peer-server');
    return;
  }
  const home = mkdtempSync(join(tmpdir(), 'bench-'));
  const started = await startGoogleWorld(home);
  const servers = await startServers(started.world, { peer: peerServer, home });
  try {
    printMachine();
    printRow('', 'ours', 'after', 'theirs', 'after');
    const request = wrapRequest(started.world.key);
    await measure('command', { runs, started }, commands(started, { peer, home, request }), 1);
    const call = ({ port }: Server) => timed(() => callServer({ port }, 'WrapKey', request));
    await measure('server', { runs, started }, [() => call(servers[0]), () => call(servers[1])], CALLERS);
  } finally {
    await started.close();
    rmSync(home, { recursive: true });
  }
}

type Measured = { readonly runs: number; readonly started: StartedWorld };

async function measure(name: string, { runs, started }: Measured, asks: Pair<Ask>, callers: number): Promise<void> {
  for (const kind of OUTAGES) {
    for (const seconds of SECONDS) {
      const outcomes: Pair<Outcome[][]> = [[], []];
      for (let round = 0; round < runs; round++) {
        // What the round before has left is over: connections, and waits of clients.
        for (const ask of asks) for (let tries = 0; !(await ask()).succeeded && tries < 20; tries++);
        started.breakDown(kind, seconds * 1000);
        const asked = asks.map((ask) => Promise.all(Array.from({ length: callers }, ask)));
        for (const [index, some] of (await Promise.all(asked)).entries()) outcomes[index === 0 ? 0 : 1].push(some);
      }
      printRow(`${name}, ${kind} for ${seconds} s`, ...show(outcomes[0]), ...show(outcomes[1]));
    }
  }
}

/** How many succeeded, and when the last of them had ended, in the median of all rounds. */
function show(rounds: readonly Outcome[][]): readonly string[] {
  const all = rounds.flat();
  const last = median(rounds.map((round) => Math.max(...round.map(({ milliseconds }) => milliseconds))));
  const succeeded = all.filter((one) => one.succeeded).length;
  return [`${succeeded} of ${all.length}`, `${(last / 1000).toFixed(1)} s`];
}

function commands(
  { world }: StartedWorld,
  { peer, home, request }: { readonly peer: string; readonly home: string; readonly request: Uint8Array },
): Pair<Ask> {
  const [theirs = '', ...words] = peer.split(' ');
  const { key, environments, credentials } = world;
  const env = {
    ...{ PATH: process.env.PATH, HOME: home, GOOGLE_APPLICATION_CREDENTIALS: credentials['service account'] },
    ...environments["the machine's roots"],
  };
  const runOnce = (file: string, more: readonly string[]) =>
    new Promise<void>((resolve, reject) => {
      const child = spawn(file, more, { stdio: ['pipe', 'ignore', 'ignore'], env });
      child.once('error', reject);
      child.once('close', (status) => (status === 0 ? resolve() : reject(new Error(`exit status ${status}`))));
      child.stdin.end(request);
    });
  return [
    () => timed(() => runOnce(EXECUTABLE, ['keyprovider', `--kmsURI=${key}`])),
    () => timed(() => runOnce(theirs, words)),
  ];
}

async function timed(run: () => Promise<void>): Promise<Outcome> {
  const begun = performance.now();
  const succeeded = await run().then(
    () => true,
    () => false,
  );
  return { succeeded, milliseconds: performance.now() - begun };
}
